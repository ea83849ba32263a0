package vet

import (
	"errors"
	"fmt"
	"go/ast"
	"go/token"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/tools/go/analysis/checker"
	"golang.org/x/tools/go/packages"
)

// TestRules compares what is said of the packages in testdata with the comments there: a line with
// `// want` expects exactly the findings that its patterns match, another none. The packages are
// compiled against the real actor package and real generated code, so that the rules cannot drift
// from them.
func TestRules(t *testing.T) {
	(&findings{packages: cases(t).packages, left: slices.Clone(cases(t).left)}).compare(t)
}

// TestExamplesAreClean: the examples are what users copy, and the rules must have nothing against
// correct code.
func TestExamplesAreClean(t *testing.T) {
	for _, f := range run(t, "../../examples/...", "../../bench/...").left {
		t.Errorf("%s: %s", f.at, f.text)
	}
}

// TestEveryRuleHasACase: a rule without one could say nothing and nobody would notice.
func TestEveryRuleHasACase(t *testing.T) {
	said := map[string]bool{}
	for _, f := range cases(t).left {
		name, _, _ := strings.Cut(f.text, ":")
		said[name] = true
	}
	for _, r := range rules {
		if !said[string(r.name)] {
			t.Errorf("no case in testdata for rule %s", r.name)
		}
	}
}

// TestOtherContexts: the command line can name contexts of other libraries.
func TestOtherContexts(t *testing.T) {
	t.Cleanup(func() { extra = vocabulary{} })
	if err := extra.addContexts("github.com/perdure/perdure/internal/vet/testdata/foreign/flow.Context"); err != nil {
		t.Fatal(err)
	}
	if err := extra.addRuns("github.com/perdure/perdure/internal/vet/testdata/foreign/flow.SideEffect"); err != nil {
		t.Fatal(err)
	}
	run(t, "./testdata/foreign").compare(t)
	for _, bad := range []string{"Context", "a/b", "a/b.", "a.b/c"} {
		if err := extra.addContexts(bad); err == nil {
			t.Errorf("-contexts=%s was taken", bad)
		}
	}
}

type said struct {
	at   string // file:line
	text string // rule: message
}

type findings struct {
	packages []*packages.Package
	left     []said
}

// theCases is what is said of the cases, for both tests that look at it. With them come the generated packages
// that they import: their modes are facts, which are read from source.
var theCases = sync.OnceValues(func() (*findings, error) {
	return analyze("./testdata/cases", "../../examples/bank/gen/...")
})

func cases(t *testing.T) *findings {
	t.Helper()
	found, err := theCases()
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func run(t *testing.T, patterns ...string) *findings {
	t.Helper()
	found, err := analyze(patterns...)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// analyze reads the packages that match, and no others: with the standard library and all that a node is made
// of, which have neither handlers nor modes, it takes 50 times as long. What is imported from elsewhere is known
// as go vet knows it, by what the compiler exports.
func analyze(patterns ...string) (*findings, error) {
	loaded, err := packages.Load(&packages.Config{Mode: packages.LoadSyntax, Tests: false}, patterns...)
	if err != nil {
		return nil, err
	}
	if packages.PrintErrors(loaded) > 0 {
		return nil, errors.New("the packages do not compile")
	}
	for _, p := range loaded { // The checker would look for facts in packages without source.
		maps.DeleteFunc(p.Imports, func(_ string, imported *packages.Package) bool { return !slices.Contains(loaded, imported) })
	}
	graph, err := checker.Analyze(Analyzers(), loaded, nil)
	if err != nil {
		return nil, err
	}
	out := &findings{packages: loaded}
	for _, action := range graph.Roots {
		if action.Err != nil {
			return nil, action.Err
		}
		for _, d := range action.Diagnostics {
			at := action.Package.Fset.Position(d.Pos)
			out.left = append(out.left, said{fmt.Sprintf("%s:%d", at.Filename, at.Line), d.Category + ": " + d.Message})
		}
	}
	return out, nil
}

type want struct {
	at      string
	pattern *regexp.Regexp
}

var wanted = regexp.MustCompile("`([^`]+)`")

func wants(t *testing.T, files *token.FileSet, file *ast.File) []want {
	t.Helper()
	var all []want
	for _, group := range file.Comments {
		for _, comment := range group.List {
			_, after, ok := strings.Cut(comment.Text, "// want ")
			if !ok {
				continue
			}
			at := files.Position(comment.Pos())
			for _, match := range wanted.FindAllStringSubmatch(after, -1) {
				all = append(all, want{fmt.Sprintf("%s:%d", at.Filename, at.Line), regexp.MustCompile("^" + match[1])})
			}
		}
	}
	return all
}

// compare reports what was said and not wanted, and the reverse.
func (f *findings) compare(t *testing.T) {
	t.Helper()
	for _, p := range f.packages {
		for _, file := range p.Syntax {
			for _, w := range wants(t, p.Fset, file) {
				f.take(t, w)
			}
		}
	}
	for _, s := range f.left {
		t.Errorf("%s: unexpected: %s", s.at, s.text)
	}
}

func (f *findings) take(t *testing.T, w want) {
	t.Helper()
	for i, s := range f.left {
		if s.at == w.at && w.pattern.MatchString(s.text) {
			f.left = append(f.left[:i:i], f.left[i+1:]...)
			return
		}
	}
	t.Errorf("%s: nothing said that matches %s", w.at, w.pattern)
}
