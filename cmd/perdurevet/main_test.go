package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestVettool runs the command as users do: by go vet, which also carries the modes of handlers
// from generated packages to those that implement them, and by itself.
func TestVettool(t *testing.T) {
	tool := filepath.Join(t.TempDir(), "perdurevet")
	if out, err := exec.Command("go", "build", "-o", tool, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	const cases = "../../internal/vet/testdata/cases"
	for _, command := range [][]string{{"go", "vet", "-vettool=" + tool, cases}, {tool, cases}} {
		out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
		if err == nil {
			t.Errorf("%s found nothing", command[0])
		}
		for _, want := range []string{"time.Sleep in a DURABLE handler", "actor.Do in a TRANSACTION handler is refused", "st is a copy"} {
			if !strings.Contains(string(out), want) {
				t.Errorf("%s did not say %q, but:\n%s", command[0], want, out)
			}
		}
	}
	if out, err := exec.Command("go", "vet", "-vettool="+tool, "../../examples/counter").CombinedOutput(); err != nil {
		t.Errorf("correct code: %v\n%s", err, out)
	}
	if out, err := exec.Command("go", "vet", "-vettool="+tool, "-clock", cases).CombinedOutput(); err == nil || strings.Contains(string(out), "TRANSACTION") {
		t.Errorf("-clock alone: %v\n%s", err, out)
	}
}
