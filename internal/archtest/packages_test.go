package archtest

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"
)

const (
	maxFileLines    = 800
	aimFileLines    = 500
	maxPackageLines = 3500
)

// roomier are packages that may be larger, and why. What can be a pure package beside such a
// one goes there.
var roomier = map[string]int{
	// The transitions of invocations and of transactions write the same memory in one evaluation;
	// what of transactions does not is in internal/transaction.
	"internal/engine": 6000,
	// One program, a file for each sub-command: they share its connection, output and flags, and
	// nothing else could use them.
	"cmd/perdure": 4600,
	// What is asked of partitions' rows is read beside the goroutine that owns them, by the same
	// snapshots; lists that merge partitions are in files of their own.
	"internal/partition": 4000,
	// One goroutine owns all raft nodes, and elections, members, snapshots, barriers and sleep are what it
	// does to them; what of it is bytes, streams, logs or lists of faults is in packages below it.
	"cluster/replica": 5000,
	// What runs DURABLE handlers, transactions and READ handlers shares the pool and its goroutines'
	// rules; each part implements all of actor.Runtime.
	"internal/invoker/inprocess": 5000,
}

// forbiddenNames say nothing about what is inside, so everything ends up inside.
var forbiddenNames = []string{"manager", "helper", "helpers", "util", "utils", "common", "base", "types", "models", "model", "impl", "core", "misc", "shared", "lib"}

func TestPackageComments(t *testing.T) {
	for _, p := range load(t).sorted() {
		var comments, written []string
		for _, name := range p.files {
			file := p.parse(t, name)
			if !file.generated() {
				written = append(written, name)
			}
			if file.syntax.Doc != nil && strings.TrimSpace(file.syntax.Doc.Text()) != "" {
				comments = append(comments, fmt.Sprintf("%s\x00%s", name, file.syntax.Doc.Text()))
			}
		}
		// protoc-gen-go writes no package comment.
		if len(written) == 0 && len(comments) == 0 {
			continue
		}
		// A command has one comment for each platform its main is written for.
		if p.name != "main" && len(comments) > 1 || len(comments) == 0 {
			t.Errorf("%s has %d package comments in %s; it needs one, which says the package's one job", p.path, len(comments), names(comments))
			continue
		}
		start := "Package " + p.name + " "
		if p.name == "main" {
			start = "Command " + path.Base(p.path) + " "
		}
		for _, comment := range comments {
			name, text, _ := strings.Cut(comment, "\x00")
			if !strings.HasPrefix(text, start) {
				t.Errorf("%s/%s: the package comment starts %q; it must start %q, as godoc shows it", p.path, name, firstWords(text), start)
			}
		}
	}
}

func names(comments []string) string {
	if len(comments) == 0 {
		return "no file"
	}
	var out []string
	for _, comment := range comments {
		name, _, _ := strings.Cut(comment, "\x00")
		out = append(out, name)
	}
	return strings.Join(out, ", ")
}

func firstWords(text string) string {
	words := strings.Fields(text)
	return strings.Join(words[:min(len(words), 4)], " ")
}

func TestSizes(t *testing.T) {
	for _, p := range load(t).sorted() {
		total := 0
		for _, name := range p.files {
			file := p.parse(t, name)
			if file.generated() {
				continue
			}
			total += file.lines
			if file.lines > maxFileLines {
				t.Errorf("%s/%s has %d lines, more than %d: split it by noun, and aim at %d", p.path, name, file.lines, maxFileLines, aimFileLines)
			}
		}
		if most := cmp.Or(roomier[p.path], maxPackageLines); total > most {
			t.Errorf("%s has %d lines without tests and generated code, more than %d: it has two jobs; give one a package of its own", p.path, total, most)
		}
	}
}

func TestPackageNames(t *testing.T) {
	for _, p := range load(t).sorted() {
		for _, element := range append(strings.Split(p.path, "/"), p.name) {
			// A folder of the golden files' protobuf package, whose name is part of what is tested.
			if strings.HasPrefix(p.path, "codegen/internal/golden/") && element == "shared" {
				continue
			}
			if slices.Contains(forbiddenNames, element) {
				t.Errorf("%s: %q says nothing about what is inside; name the package after the noun it is about (docs/TERMS.md)", p.path, element)
			}
		}
	}
}
