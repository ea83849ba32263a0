package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

const (
	modulePath = "github.com/perdure/perdure"
	updateHint = "make listings"
)

var update = flag.Bool("update", false, "write imports.txt and the api.txt files as they are now")

// goPackage is what the tests know of one package of this module. Paths of packages of this
// module are relative to it ("internal/engine"); all others are whole.
type goPackage struct {
	path string
	name string
	dir  string
	// files are the names of the Go files without tests, of every platform.
	files []string
	// listed are those of files that linux/amd64 builds.
	listed []string
	// imports of files that linux/amd64 builds; testImports of its tests.
	imports, testImports []string
	// deps is everything in a binary with the package: imports, followed through other modules
	// as well.
	deps []string
}

// isStandard reports whether the path of a package that is not this module's is of the
// standard library: its first element has no dot.
func isStandard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}

// graph is the packages of this module by path.
type graph map[string]*goPackage

func (g graph) isLocal(path string) bool { _, ok := g[path]; return ok }

func (g graph) sorted() []*goPackage {
	packages := make([]*goPackage, 0, len(g))
	for _, p := range g {
		packages = append(packages, p)
	}
	slices.SortFunc(packages, func(a, b *goPackage) int { return strings.Compare(a.path, b.path) })
	return packages
}

// chain is one way from a package to a dependency: its imports inside this module, then the
// dependency. It is what the reader of a failure wants to know first.
func (g graph) chain(from, to string) string {
	type step struct {
		path string
		came *step
	}
	seen := map[string]bool{from: true}
	queue := []*step{{path: from}}
	var best *step
	for len(queue) > 0 && best == nil {
		at := queue[0]
		queue = queue[1:]
		p := g[at.path]
		if p == nil {
			continue
		}
		for _, next := range p.imports {
			if next == to {
				best = &step{next, at}
				break
			}
			if !seen[next] {
				seen[next] = true
				queue = append(queue, &step{next, at})
			}
		}
	}
	if best == nil {
		return from + " → … → " + to
	}
	var names []string
	for at := best; at != nil; at = at.came {
		names = append(names, at.path)
	}
	slices.Reverse(names)
	return strings.Join(names, " → ")
}

// local makes a path of this module relative to it.
func local(path string) string {
	if path == modulePath {
		return "."
	}
	return strings.TrimPrefix(path, modulePath+"/")
}

// locals does that for all paths, and leaves out the standard library's own internals, which
// would look like this module's.
func locals(paths []string) []string {
	var out []string
	for _, path := range paths {
		if first, _, _ := strings.Cut(path, "/"); first == "internal" || first == "vendor" {
			continue
		}
		out = append(out, local(path))
	}
	return out
}

// root is the top folder of the repository: the tests run in their own.
func root() string {
	dir, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		return filepath.Join("..", "..")
	}
	return dir
}

// repository loads the packages once for all tests. It asks the go command for linux/amd64 in
// any case: the listings must not depend on who writes them.
var repository = sync.OnceValues(func() (graph, error) {
	if err := seeFolders(); err != nil {
		return nil, err
	}
	list := exec.Command("go", "list", "-json=ImportPath,Name,Dir,GoFiles,IgnoredGoFiles,Imports,TestImports,XTestImports,Deps", "./...")
	list.Dir = root()
	list.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0", "GOWORK=off")
	var stderr bytes.Buffer
	list.Stderr = &stderr
	out, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("go list ./...: %w\n%s", err, stderr.Bytes())
	}
	g := graph{}
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var listed struct {
			ImportPath, Name, Dir              string
			GoFiles, IgnoredGoFiles            []string
			Imports, TestImports, XTestImports []string
			Deps                               []string
		}
		if err := decoder.Decode(&listed); errors.Is(err, io.EOF) {
			return g, nil
		} else if err != nil {
			return nil, fmt.Errorf("go list ./...: %w", err)
		}
		p := &goPackage{
			path: local(listed.ImportPath), name: listed.Name, dir: listed.Dir,
			listed: listed.GoFiles, files: slices.Clone(listed.GoFiles),
			imports: locals(listed.Imports), deps: locals(listed.Deps),
			testImports: locals(append(listed.TestImports, listed.XTestImports...)),
		}
		for _, name := range listed.IgnoredGoFiles {
			if !strings.HasSuffix(name, "_test.go") {
				p.files = append(p.files, name)
			}
		}
		g[p.path] = p
	}
})

// seeFolders reads every folder. The go command notes which folders and files a test opened
// itself and runs it again if one has changed; what the programs it starts have read, it
// doesn't know.
func seeFolders() error {
	return filepath.WalkDir(root(), func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			// Somebody's temporary file.
			return nil
		}
		if err == nil && entry.IsDir() && (entry.Name() == ".git" || entry.Name() == "perdure-data") {
			return filepath.SkipDir
		}
		return err
	})
}

func load(t *testing.T) graph {
	t.Helper()
	g, err := repository()
	if err != nil {
		t.Fatal(err)
	}
	if len(g) < 10 {
		t.Fatalf("go list found %d packages, so these tests would check nothing", len(g))
	}
	return g
}

// goFile is one parsed file.
type goFile struct {
	name      string
	syntax    *ast.File
	positions *token.FileSet
	lines     int
}

func (f goFile) generated() bool { return ast.IsGenerated(f.syntax) }

var parsed struct {
	mu    sync.Mutex
	files map[string]goFile
}

// parse reads a file of a package, once.
func (p *goPackage) parse(t *testing.T, name string) goFile {
	t.Helper()
	path := filepath.Join(p.dir, name)
	parsed.mu.Lock()
	defer parsed.mu.Unlock()
	if file, ok := parsed.files[path]; ok {
		return file
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	positions := token.NewFileSet()
	syntax, err := parser.ParseFile(positions, p.path+"/"+name, text, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	if parsed.files == nil {
		parsed.files = map[string]goFile{}
	}
	file := goFile{name: name, syntax: syntax, positions: positions, lines: bytes.Count(text, []byte("\n"))}
	parsed.files[path] = file
	return file
}

// under reports whether path is one of the packages or in a folder below it. A pattern "=x"
// is x alone.
func under(path string, patterns []string) bool {
	for _, pattern := range patterns {
		if alone, ok := strings.CutPrefix(pattern, "="); ok {
			if path == alone {
				return true
			}
			continue
		}
		if path == pattern || strings.HasPrefix(path, pattern+"/") {
			return true
		}
	}
	return false
}

// compare checks a committed listing against what it should be, or writes it with -update.
func compare(t *testing.T, path, got, what string) {
	t.Helper()
	name, err := filepath.Rel(root(), path)
	if err != nil {
		name = path
	}
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v\nWrite it with: %s", err, updateHint)
	}
	if string(want) == got {
		return
	}
	t.Errorf("%s is not what %s is now (- committed, + now):\n%s\nIf that is intended: %s", filepath.ToSlash(name), what, difference(string(want), got), updateHint)
}

// difference lists the lines only one of two texts has; both texts are sorted or nearly so,
// and the reader wants the lines rather than a minimal edit.
func difference(before, after string) string {
	count := map[string]int{}
	for line := range strings.Lines(before) {
		count[line]--
	}
	for line := range strings.Lines(after) {
		count[line]++
	}
	var out strings.Builder
	write := func(sign string, text string, more func(int) bool, step int) {
		for line := range strings.Lines(text) {
			if more(count[line]) {
				count[line] += step
				fmt.Fprintf(&out, "%s %s\n", sign, strings.TrimRight(line, "\n"))
			}
		}
	}
	write("-", before, func(n int) bool { return n < 0 }, 1)
	write("+", after, func(n int) bool { return n > 0 }, -1)
	if out.Len() == 0 {
		return "the same lines in another order"
	}
	return out.String()
}
