package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func goEnv(t *testing.T, name string) string {
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// TestOverlayFitsThisToolchain makes the overlay of the Go that runs the test.
func TestOverlayFitsThisToolchain(t *testing.T) {
	name, err := writeOverlay(goEnv(t, "GOROOT"), goEnv(t, "GOVERSION"), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var overlay struct{ Replace map[string]string }
	if err := json.Unmarshal(data, &overlay); err != nil {
		t.Fatal(err)
	}
	for _, e := range edits {
		of := filepath.Join(goEnv(t, "GOROOT"), "src", e.file)
		text, err := os.ReadFile(overlay.Replace[of])
		if err != nil || !bytes.Contains(text, []byte(e.new)) {
			t.Errorf("%s is not edited: %v", e.file, err)
		}
	}
}

// TestOtherToolchainIsRefused: what an edit looks for must be there exactly once.
func TestOtherToolchainIsRefused(t *testing.T) {
	first := edits[0]
	for name, text := range map[string]string{"never": "package runtime\n", "twice": first.old + first.old} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			file := filepath.Join(root, "src", first.file)
			if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := writeOverlay(root, "go9.99", t.TempDir())
			if err == nil || !strings.Contains(err.Error(), "go9.99") || !strings.Contains(err.Error(), first.file) {
				t.Errorf("the error is %v, which does not name go9.99 and %s", err, first.file)
			}
		})
	}
}

// TestProcessesAreCompared: the same seed must have the same trace in all of them.
func TestProcessesAreCompared(t *testing.T) {
	outputs := make([]bytes.Buffer, 2)
	outputs[0].WriteString("    x_test.go:1: trace of seed 1, few: 5 events\nPASS\n")
	outputs[1].WriteString("    x_test.go:1: trace of seed 1, few: 5 events\n    x_test.go:1: trace of seed 2, few: 3 events\n")
	if err := compare(outputs); err != nil {
		t.Error(err)
	}
	outputs[0].WriteString("    x_test.go:1: trace of seed 2, few: 4 events\n")
	if err := compare(outputs); err == nil || !strings.Contains(err.Error(), "seed 2, few") {
		t.Errorf("the error is %v, which does not name seed 2", err)
	}
}
