package archtest

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	testName = regexp.MustCompile("`(Test[A-Za-z]+)`")
	testFunc = regexp.MustCompile(`(?m)^func (Test[A-Za-z]+)\(`)
)

// TestParityNamesTests: docs/parity.md proves what it says by naming tests, which must be there.
func TestParityNamesTests(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root(), "docs", "parity.md"))
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	for _, name := range textFiles(t) {
		if !strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(root(), name))
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range testFunc.FindAllSubmatch(text, -1) {
			there[string(match[1])] = true
		}
	}
	named := testName.FindAllSubmatch(page, -1)
	if len(named) < 20 {
		t.Errorf("docs/parity.md names %d tests: the pattern no longer finds them", len(named))
	}
	for _, match := range named {
		if !there[string(match[1])] {
			t.Errorf("docs/parity.md names %s, which is no test", match[1])
		}
	}
}
