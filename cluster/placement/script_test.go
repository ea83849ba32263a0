package placement

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write what the scripts print as what they should print")

// TestScripts runs testdata/*.txt: blocks of commands and, after ----, what they come to.
//
//	cluster partitions=8 replicas=3 limit=4   begin with the node a
//	join b zone=x · down b · lost b · up b    a node comes, goes silent, is given up, is back
//	drain b · undrain b · remove b            what the operator wants
//	settle                                    print the steps round by round until none follows
//	settle counts                             only how many there were of each kind
//	round                                     one round
//	show                                      nodes and partitions: "3: a leads abc (d)" has learner d
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var w *world
			var out strings.Builder
			for i, block := range strings.Split(strings.TrimSpace(string(data)), "\n\n") {
				if i > 0 {
					out.WriteString("\n")
				}
				command, _, has := strings.Cut(block, "\n----")
				if !has {
					out.WriteString(block + "\n") // a comment
					continue
				}
				out.WriteString(command + "\n----\n")
				for line := range strings.Lines(command) {
					w = w.command(t, &out, strings.Fields(line))
				}
			}
			if *rewrite {
				if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			got, want := strings.Split(strings.TrimSpace(out.String()), "\n"), strings.Split(strings.TrimSpace(string(data)), "\n")
			for i := range max(len(got), len(want)) {
				if i >= len(got) || i >= len(want) || got[i] != want[i] {
					t.Fatalf("%s differs at line %d; go test ./cluster/placement -rewrite shows how\n got: %q\nwant: %q",
						file, i+1, slices.Concat(got, []string{"(end)"})[min(i, len(got))], slices.Concat(want, []string{"(end)"})[min(i, len(want))])
				}
			}
		})
	}
}

func (w *world) command(t *testing.T, out *strings.Builder, words []string) *world {
	args := map[string]string{}
	for _, word := range words[1:] {
		key, value, _ := strings.Cut(word, "=")
		args[key] = value
	}
	if words[0] == "cluster" {
		number := func(key string) int { n, _ := strconv.Atoi(args[key]); return n }
		w = newWorld(number("partitions"), number("replicas"), number("limit"))
		w.nodes[0].Zone = args["zone"]
		return w
	}
	if words[0] == "settle" || words[0] == "round" || words[0] == "show" {
		w.print(t, out, words)
		return w
	}
	id := uint64(words[1][0]-'a') + 1
	if words[0] == "join" {
		w.nodes = append(w.nodes, Node{ID: id, Zone: args["zone"]})
		return w
	}
	n := w.node(id)
	switch words[0] {
	case "down":
		n.Health = Silent
	case "lost":
		n.Health = Lost
	case "up":
		n.Health = Alive
	case "drain":
		n.State = Draining
	case "undrain":
		n.State = Active
	case "remove":
		n.State = Removed
	default:
		t.Fatalf("no command %q", words[0])
	}
	for i := range w.partitions {
		if n.Health != Alive {
			delete(w.partitions[i].CaughtUp, id)
		}
	}
	w.elect()
	return w
}

// ids of nodes in texts.
var hexID = regexp.MustCompile(`\b[0-9a-f]{16}\b`)

func named(text string) string {
	return hexID.ReplaceAllStringFunc(text, func(id string) string { n, _ := strconv.ParseUint(id, 16, 64); return name(n) })
}

func (w *world) print(t *testing.T, out *strings.Builder, words []string) {
	if words[0] == "show" {
		out.WriteString(w.String())
		return
	}
	counts := map[string]int{}
	for round := 1; ; round++ {
		if round > 1000 {
			t.Fatalf("does not settle:\n%s", w)
		}
		w.elect()
		plan := w.round(t)
		for _, s := range plan.Steps {
			if len(words) > 1 {
				counts[regexp.MustCompile(`: (transfer|promote|add learner|demote|remove)`).FindStringSubmatch(s.String())[1]]++
				continue
			}
			fmt.Fprintf(out, "%d. %s (%s)\n", round, s.Describe(name), s.Reason)
		}
		w.elect()
		w.catchUp(true)
		if len(plan.Steps) > 0 && words[0] == "settle" {
			continue
		}
		for _, wait := range plan.Waits {
			fmt.Fprintf(out, "partition %d waits: %s\n", wait.Partition, named(wait.Reason))
		}
		break
	}
	for _, verb := range []string{"add learner", "promote", "demote", "remove", "transfer"} {
		if counts[verb] > 0 {
			fmt.Fprintf(out, "%s: %d\n", verb, counts[verb])
		}
	}
}
