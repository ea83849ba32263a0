package badgerstore

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/fb"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/badger/v4/y"
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/storage"
)

// The audit reads a directory before Badger does and refuses what Badger would silently repair
// by dropping data: it cuts its log at the first record it cannot read, deletes tables that a
// cut-off manifest does not name, and takes an unreadable block for absent keys. It changes
// nothing, so that a refused directory can still be examined and restored.
type audit struct {
	dir        string // Badger's
	options    badger.Options
	logger     *slog.Logger
	skipVerify bool
	highWater  uint64

	levels levelSizes // set by run
}

// run returns the commit sequence that Badger must come up with.
func (a *audit) run() (last uint64, err error) {
	tables, err := a.tables()
	if err != nil {
		return 0, err
	}
	logs, err := walFiles(a.dir)
	if err != nil {
		return 0, err
	}
	last = tables
	var cut *walScan // a log whose end could not be read
	for _, path := range logs {
		scan, err := scanWAL(path)
		if err != nil {
			return 0, err
		}
		if scan.gap != nil {
			return 0, fmt.Errorf("%w: %w", storage.ErrDataLoss, scan.gap)
		}
		if scan.later > scan.last+1 && scan.later > last+1 {
			return 0, fmt.Errorf("%w: %s: the record at or after offset %d cannot be read, but commits up to %d follow it%s",
				storage.ErrDamaged, path, scan.endBytes, scan.later, remedy)
		}
		if scan.last != 0 {
			if cut != nil && scan.first > last+1 {
				return 0, fmt.Errorf("%w: %s: commits %d to %d, after offset %d, cannot be read, but %s holds later ones%s",
					storage.ErrDamaged, cut.path, last+1, scan.first-1, cut.endBytes, path, remedy)
			}
			if scan.first > last+1 {
				return 0, fmt.Errorf("%w: commits %d to %d are in no table and no log of %s: %s starts with commit %d%s",
					storage.ErrDataLoss, last+1, scan.first-1, a.dir, path, scan.first, remedy)
			}
			last = max(last, scan.last)
		}
		if scan.last == 0 || scan.later > scan.last {
			cut = &scan
		}
	}
	if last < a.highWater {
		where := ""
		if cut != nil {
			where = fmt.Sprintf("; %s is unreadable after offset %d", cut.path, cut.endBytes)
		}
		return 0, fmt.Errorf("%w: %s holds commits up to %d, but commit %d was on disk%s%s",
			storage.ErrDataLoss, a.dir, last, a.highWater, where, remedy)
	}
	return last, a.removeEmptyLogs(logs)
}

const remedy = ": re-seed this node from its peers, or restore the directory from a backup"

// removeEmptyLogs removes logs that a crash left with no bytes, for Badger could not open again: it creates the newest first
// and extends it next, and cuts an older one, whose content is in a table, before it removes it. They hold nothing by their size.
func (a *audit) removeEmptyLogs(logs []string) error {
	for _, path := range logs {
		info, err := os.Stat(path)
		if err == nil && info.Size() == 0 {
			a.logger.Warn("removing an empty write-ahead log left by a crash", "path", path)
			err = os.Remove(path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// tables checks every table of the manifest and returns their highest commit sequence.
func (a *audit) tables() (highest uint64, err error) {
	path := filepath.Join(a.dir, badger.ManifestFilename)
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, a.refuseOrphans(path)
	}
	if err != nil {
		return 0, err
	}
	defer file.Close()
	manifest, _, err := badger.ReplayManifestFile(file, 0, a.options)
	if err != nil {
		return 0, fmt.Errorf("%w: %s: %w%s", storage.ErrDamaged, path, err, remedy)
	}
	started, done := time.Now(), int64(0)
	for id, entry := range manifest.Tables {
		path := table.NewFilename(id, a.dir)
		version, size, err := checkTable(path, a.skipVerify)
		if err != nil {
			return 0, fmt.Errorf("%w: %s: %w%s", storage.ErrDamaged, path, err, remedy)
		}
		highest = max(highest, version)
		done += size
		if entry.Level >= badgerLevels {
			return 0, fmt.Errorf("%w: manifest: table %d is on level %d", storage.ErrDamaged, id, entry.Level)
		}
		a.levels.levels[entry.Level] += size
		if entry.Level > 0 {
			a.levels.largestBytes = max(a.levels.largestBytes, size)
		}
	}
	if elapsed := time.Since(started); elapsed > 2*time.Second {
		a.logger.Info("checked the store's tables", "tables", len(manifest.Tables), "bytes", done, "duration", elapsed)
	}
	return highest, nil
}

// refuseOrphans reports tables without a manifest: Badger would start an empty store and
// delete them.
func (a *audit) refuseOrphans(manifest string) error {
	tables, err := filepath.Glob(filepath.Join(a.dir, "*.sst"))
	if err != nil {
		return err
	}
	if len(tables) > 0 {
		return fmt.Errorf("%w: %s does not exist, but %d tables do%s", storage.ErrDataLoss, manifest, len(tables), remedy)
	}
	return nil
}

// checkTable verifies the index of a table file and, unless skipped, all its blocks. It returns
// the highest version in it.
func checkTable(path string, skipBlocks bool) (version uint64, size int64, err error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, 0, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return 0, 0, err
	}
	index, start, err := readTableIndex(file, info.Size())
	if err != nil {
		return 0, 0, err
	}
	if skipBlocks {
		return index.MaxVersion(), info.Size(), nil
	}
	reader := bufio.NewReaderSize(io.NewSectionReader(file, 0, start), 1<<20)
	var offset int64
	var block fb.BlockOffset
	var data []byte
	for i := range index.OffsetsLength() {
		if !index.Offsets(&block, i) || int64(block.Offset()) != offset {
			return 0, 0, fmt.Errorf("block %d is not at offset %d", i, offset)
		}
		if cap(data) < int(block.Len()) {
			data = make([]byte, block.Len())
		}
		data = data[:block.Len()]
		if _, err := io.ReadFull(reader, data); err != nil {
			return 0, 0, fmt.Errorf("block %d at offset %d: %w", i, offset, err)
		}
		if err := checkBlock(data); err != nil {
			return 0, 0, fmt.Errorf("block %d at offset %d: %w", i, offset, err)
		}
		offset += int64(len(data))
	}
	if offset != start {
		return 0, 0, fmt.Errorf("blocks end at offset %d, the index starts at %d", offset, start)
	}
	return index.MaxVersion(), info.Size(), nil
}

// readTableIndex reads from the end of a table: index, its length, checksum, its length.
// A length that cannot be is an error here; Badger would end the process.
func readTableIndex(file *os.File, size int64) (index *fb.TableIndex, start int64, err error) {
	end := size
	take := func(n int64) ([]byte, error) {
		if n < 0 || n > end {
			return nil, fmt.Errorf("footer: length %d at offset %d of %d", n, end, size)
		}
		end -= n
		data := make([]byte, n)
		_, err := file.ReadAt(data, end)
		return data, err
	}
	takeCounted := func() ([]byte, error) {
		length, err := take(4)
		if err != nil {
			return nil, err
		}
		return take(int64(binary.BigEndian.Uint32(length)))
	}
	sum, err := takeCounted()
	if err != nil {
		return nil, 0, err
	}
	data, err := takeCounted()
	if err != nil {
		return nil, 0, err
	}
	if err := checkSum(data, sum); err != nil {
		return nil, 0, fmt.Errorf("index at offset %d: %w", end, err)
	}
	return fb.GetRootAsTableIndex(data, 0), end, nil
}

// checkBlock verifies an uncompressed block: content, checksum, its length.
func checkBlock(data []byte) error {
	if len(data) < 4 {
		return fmt.Errorf("only %d bytes", len(data))
	}
	content := data[:len(data)-4]
	length := binary.BigEndian.Uint32(data[len(content):])
	if uint64(length) > uint64(len(content)) {
		return fmt.Errorf("checksum of %d bytes in a block of %d", length, len(data))
	}
	at := len(content) - int(length)
	return checkSum(content[:at], content[at:])
}

func checkSum(data, encoded []byte) error {
	var sum pb.Checksum
	if err := proto.Unmarshal(encoded, &sum); err != nil {
		return fmt.Errorf("checksum: %w", err)
	}
	// Badger ends the process for an algorithm it does not know.
	if sum.Algo != pb.Checksum_CRC32C {
		return fmt.Errorf("checksum algorithm %d is not CRC32C", sum.Algo)
	}
	if y.VerifyChecksum(data, &sum) != nil {
		return y.ErrChecksumMismatch
	}
	return nil
}
