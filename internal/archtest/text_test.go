package archtest

import (
	"bytes"
	"fmt"
	"go/ast"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// traces are signs that a file was made on one particular machine.
var traces = []struct {
	pattern *regexp.Regexp
	what    string
}{
	{regexp.MustCompile(`(?:^|[^\w.$/{}-])(/(?:root|work|home/[a-z][\w-]*|Users/\w+|private/var|tmp/bash\w*(?:\.\d+)?|tmp/go-build\d+)/[\w.-]*)`), "a path of one machine"},
	{regexp.MustCompile(`https?://[^\s/"'<>]*\.(?:internal|intranet|corp|lan|svc|localdomain)\b[^\s"'<>]*`), "a host of a private network"},
	{regexp.MustCompile(`https?://(?:10|192\.168|172\.(?:1[6-9]|2\d|3[01]))\.\d+\.\d+[^\s"'<>]*`), "an address of a private network"},
	{regexp.MustCompile(`https?://[^\s/"'@<>{}$%]+:[^\s/"'@<>{}$%]+@[\w.-]+`), "a URL with a password"},
}

// machineTraces lists them with their lines.
func machineTraces(name string, text []byte) []string {
	var found []string
	number := 0
	for line := range bytes.Lines(text) {
		number++
		for _, trace := range traces {
			if match := trace.pattern.Find(line); match != nil {
				found = append(found, fmt.Sprintf("%s:%d: %q is %s", name, number, bytes.TrimSpace(match), trace.what))
			}
		}
	}
	return found
}

// textFiles are the files git has or would add.
func textFiles(t *testing.T) []string {
	t.Helper()
	list := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = root()
	out, err := list.Output()
	if err != nil {
		t.Skipf("git ls-files: %v: not a git checkout, so there is no telling which files are the project's", err)
	}
	return slices.DeleteFunc(strings.Split(string(out), "\x00"), func(name string) bool { return name == "" })
}

func TestNoTraceOfAMachine(t *testing.T) {
	for _, name := range textFiles(t) {
		// These tests, which show what they look for.
		if strings.HasPrefix(name, "internal/archtest/") && strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(root(), name))
		if err != nil || bytes.IndexByte(text[:min(len(text), 8000)], 0) >= 0 {
			// Removed but not committed, a link, or not text.
			continue
		}
		for _, found := range machineTraces(name, text) {
			t.Errorf("%s: nobody else has it; use a relative path, a temporary folder or example.com", found)
		}
	}
}

// TestTermsListLogKeys keeps docs/TERMS.md and the constants of internal/telemetry the same.
func TestTermsListLogKeys(t *testing.T) {
	g := load(t)
	keys := map[string]bool{}
	telemetry := g["internal/telemetry"]
	if telemetry == nil {
		t.Fatal("internal/telemetry, which has the log keys, is gone")
	}
	for _, name := range telemetry.files {
		ast.Inspect(telemetry.parse(t, name).syntax, func(node ast.Node) bool {
			spec, ok := node.(*ast.ValueSpec)
			if !ok {
				return true
			}
			for i, name := range spec.Names {
				if !strings.HasPrefix(name.Name, "Key") || i >= len(spec.Values) {
					continue
				}
				if literal, ok := spec.Values[i].(*ast.BasicLit); ok {
					if key, err := strconv.Unquote(literal.Value); err == nil {
						keys[key] = true
					}
				}
			}
			return true
		})
	}
	text, err := os.ReadFile(filepath.Join(root(), "docs", "TERMS.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(text), "## Log keys")
	if !found {
		t.Fatal(`docs/TERMS.md has no section "## Log keys"`)
	}
	documented := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|").FindAllStringSubmatch(table, -1) {
		documented[row[1]] = true
	}
	for key := range keys {
		if !documented[key] {
			t.Errorf("docs/TERMS.md: the log key %q of internal/telemetry is not in the table of log keys", key)
		}
	}
	for key := range documented {
		if !keys[key] {
			t.Errorf("docs/TERMS.md: the log key %q is not a constant of internal/telemetry", key)
		}
	}
}
