package cluster

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestDeploy: what deploy/ gives a program on its command line and in its environment, a program
// knows.
func TestDeploy(t *testing.T) {
	var usage bytes.Buffer
	if code := run("node", []string{"--help"}, func(string) string { return "" }, io.Discard, &usage, nil, nil); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	for _, c := range []struct {
		file, given string
		known       func(name string) string
	}{
		{"kubernetes.yaml", `(?m)^ +- --([a-z-]+)=`, func(name string) string { return `(?m)^  -` + name + " " }},
		{"perdure.service", `(?m)^#   (PERDURE_[A-Z_]+)=`, func(name string) string { return `\(` + name + `\)` }},
		{"perdure.service", `ExecStart=\S+ --([a-z-]+) `, func(name string) string { return `(?m)^  -` + name + " " }},
	} {
		text, err := os.ReadFile("../deploy/" + c.file)
		if err != nil {
			t.Fatal(err)
		}
		found := regexp.MustCompile(c.given).FindAllSubmatch(text, -1)
		if len(found) == 0 {
			t.Errorf("%s gives nothing like %s", c.file, c.given)
		}
		for _, match := range found {
			if name := string(match[1]); !regexp.MustCompile(c.known(name)).Match(usage.Bytes()) {
				t.Errorf("%s gives %s, which is not in\n%s", c.file, name, &usage)
			}
		}
	}
}

// TestDeployUnit: systemd knows all that the unit says, and gives a node the time that it may take to stop.
func TestDeployUnit(t *testing.T) {
	unit, err := os.ReadFile("../deploy/perdure.service")
	if err != nil {
		t.Fatal(err)
	}
	match := regexp.MustCompile(`(?m)^TimeoutStopSec=(\d+)$`).FindSubmatch(unit)
	if match == nil {
		t.Fatal("the unit has no TimeoutStopSec in seconds")
	}
	if seconds, err := strconv.Atoi(string(match[1])); err != nil || time.Duration(seconds)*time.Second <= longestShutdown {
		t.Errorf("a node is killed after %s s, and may take %s to stop: %v", match[1], longestShutdown, err)
	}
	program := regexp.MustCompile(`(?m)^ExecStart=\S+`)
	if found := program.FindAll(unit, -1); len(found) != 1 {
		t.Fatalf("the unit starts %q", found)
	}
	const name = "perdure.service"
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, program.ReplaceAll(unit, []byte("ExecStart=/bin/true")), 0o600); err != nil {
		t.Fatal(err)
	}
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Log("no systemd-analyze is here: the unit is not verified")
		return
	}
	out, err := exec.CommandContext(t.Context(), analyze, "--man=no", "verify", file).CombinedOutput()
	blamed := false
	for line := range strings.Lines(string(out)) { // other units of the machine may have problems too
		if strings.Contains(line, name) {
			blamed = true
			t.Errorf("systemd-analyze verify: %s", line)
		}
	}
	if err != nil && !blamed {
		t.Logf("systemd-analyze can't verify the unit here: %v: %s", err, out)
	}
}
