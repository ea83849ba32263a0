package badgerstore

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/perdure/perdure/storage"
	"github.com/perdure/perdure/storage/storagetest"
)

// image is a directory as a crash left it, in memory.
type image map[string]content

// content is a file's bytes up to the zeros at its end, which logs have millions of.
type content struct {
	data      []byte
	sizeBytes int
}

// bytesOf returns a file's content that has no zeros at its end to save.
func bytesOf(data []byte) content { return content{data, len(data)} }

// imageCommits is the number of commits in an image; contentsAfter is what n of them leave.
const imageCommits = 60

func imageBatch(n int) *storage.Batch {
	random := rand.New(rand.NewPCG(7, uint64(n)))
	batch := new(storage.Batch)
	for i := range 1 + random.IntN(10) {
		key := fmt.Sprintf("key%03d", random.IntN(50))
		if i > 0 && random.IntN(4) == 0 {
			batch.Delete([]byte(key))
		} else {
			batch.Put([]byte(key), fmt.Appendf(nil, "commit %d %s", n, bytes.Repeat([]byte{'v'}, random.IntN(200))))
		}
	}
	return batch
}

func contentsAfter(commits int) map[string]string {
	contents := make(map[string]string)
	for n := range commits {
		for _, op := range imageBatch(n).Ops() {
			if op.Delete {
				delete(contents, string(op.Key))
			} else {
				contents[string(op.Key)] = string(op.Value)
			}
		}
	}
	return contents
}

func imageOptions(dir string) Options {
	options := testOptions(dir)
	options.MemoryBudgetBytes = minMemoryBudgetBytes
	return options
}

// writeImage commits to a new store and returns its directory: closed, or as SIGKILL would
// leave it, with HIGHWATER at the given commit.
func writeImage(t *testing.T, closed bool, highWater uint64) image {
	t.Helper()
	options := imageOptions(t.TempDir())
	store := openTest(t, options)
	for n := range imageCommits {
		if err := store.Commit(imageBatch(n)); err != nil {
			t.Fatal(err)
		}
	}
	if closed {
		closeTest(t, store)
	} else if err := writeHighWater(store.mark.file, highWater); err != nil {
		t.Fatal(err)
	}
	return readImage(t, options.Dir)
}

func readImage(t *testing.T, dir string) image {
	t.Helper()
	files := make(image)
	if err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		end := len(data)
		for zeros := make([]byte, 4096); bytes.HasSuffix(data[:end], zeros); {
			end -= len(zeros)
		}
		files[name] = content{bytes.TrimRight(data[:end], "\x00"), len(data)}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return files
}

// restore writes the image to a new directory, sparsely.
func (files image) restore(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, file := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.WriteFile(path, file.data, 0o600), os.Truncate(path, int64(file.sizeBytes))); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// with returns the image with one file replaced.
func (files image) with(name string, file content) image {
	changed := maps.Clone(files)
	changed[name] = file
	return changed
}

// without returns the image with one file missing.
func (files image) without(name string) image {
	changed := maps.Clone(files)
	delete(changed, name)
	return changed
}

func (files image) flipped(name string, bit int) image {
	file := files[name]
	file.data = bytes.Clone(file.data)
	file.data[bit/8] ^= 1 << (bit % 8)
	return files.with(name, file)
}

// match returns the one file of the image that matches the pattern.
func (files image) match(t *testing.T, pattern string) string {
	t.Helper()
	var names []string
	for name := range files {
		if ok, err := filepath.Match(pattern, name); err != nil {
			t.Fatal(err)
		} else if ok {
			names = append(names, name)
		}
	}
	if len(names) != 1 {
		t.Fatalf("files matching %s: %q, want one", pattern, names)
	}
	return names[0]
}

// checkDamaged opens the image. It must be refused, twice, or hold exactly the given number of
// commits, or one of them if there are several.
func (files image) checkDamaged(t *testing.T, allowed ...int) (refused error) {
	t.Helper()
	dir := files.restore(t)
	store, err := Open(imageOptions(dir))
	if err != nil {
		// Refusing must not be a repair.
		if again, err := Open(imageOptions(dir)); err == nil {
			t.Errorf("the second open succeeded after: %v", err)
			closeTest(t, again)
		}
		return err
	}
	defer closeTest(t, store)
	contents := storagetest.Contents(t, store)
	for _, commits := range allowed {
		if maps.Equal(contents, contentsAfter(commits)) {
			return nil
		}
	}
	t.Errorf("opened without error and holds %d keys, want what %v commits leave", len(contents), allowed)
	return nil
}
