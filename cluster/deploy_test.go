package cluster

import (
	"bytes"
	"io"
	"os"
	"regexp"
	"testing"
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
