package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestSequentialPackages: the packages that the Makefile tests without the race detector start no goroutines, and
// neither do their tests.
func TestSequentialPackages(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root(), "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "\nSEQUENTIAL := ")
	list, _, _ := strings.Cut(after, "\n")
	if list == "" {
		t.Fatal("the Makefile has no list SEQUENTIAL any more: remove this test, or say here where the list is")
	}
	for _, dir := range strings.Fields(list) {
		files, err := filepath.Glob(filepath.Join(root(), dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Errorf("the Makefile's SEQUENTIAL has %s, where there are no Go files: %v", dir, err)
		}
		for _, name := range files {
			source, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			for _, found := range concurrent(t, filepath.Base(name), source) {
				t.Errorf("%s/%s: then the race detector can find something there: take the package out of SEQUENTIAL in the Makefile", dir, found)
			}
		}
	}
}

// concurrent finds what lets things run beside each other.
func concurrent(t *testing.T, name string, source []byte) (found []string) {
	t.Helper()
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, name, source, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	tell := func(node ast.Node, what string) {
		found = append(found, files.Position(node.Pos()).String()+" "+what)
	}
	ast.Inspect(file, func(node ast.Node) bool {
		switch n := node.(type) {
		case *ast.GoStmt:
			tell(n, "starts a goroutine")
		case *ast.ImportSpec:
			path, _ := strconv.Unquote(n.Path.Value)
			if slices.Contains([]string{"sync", "sync/atomic", "testing/synctest", "golang.org/x/sync/errgroup"}, path) {
				tell(n, "imports "+path)
			}
		case *ast.SelectorExpr:
			if slices.Contains([]string{"Parallel", "RunParallel", "AfterFunc"}, n.Sel.Name) {
				tell(n, "calls "+n.Sel.Name)
			}
		}
		return true
	})
	return found
}

// TestPlantedGoroutinesAreFound plants what TestSequentialPackages looks for.
func TestPlantedGoroutinesAreFound(t *testing.T) {
	for planted, want := range map[string]string{
		"package p\nfunc f() { go f() }":                                       "p.go:2:12 starts a goroutine",
		"package p\nimport \"sync/atomic\"\nvar x atomic.Int64":                "p.go:2:8 imports sync/atomic",
		"package p\nimport \"testing\"\nfunc f(t *testing.T) { t.Parallel() }": "p.go:3:24 calls Parallel",
		"package p\n// go f() is only spoken of\nfunc f() {}":                  "",
	} {
		if got := strings.Join(concurrent(t, "p.go", []byte(planted)), ", "); got != want {
			t.Errorf("%q: found %q, not %q", planted, got, want)
		}
	}
}
