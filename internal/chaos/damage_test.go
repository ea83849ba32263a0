//go:build unix

package chaos

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// image is the files of a directory by their path in it.
type image map[string][]byte

func readImage(t *testing.T, dir string) image {
	t.Helper()
	files := image{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		files[name] = data
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func (i image) write(t *testing.T, dir string) {
	t.Helper()
	for name, data := range i {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// difference names the files that are not the same. What the node may do before it refuses:
// cut the torn tail of an undamaged log, and let an undamaged Badger flush its memtable.
func (i image) difference(other image, damaged string) (names []string) {
	for name, data := range i {
		switch {
		case strings.EqualFold(filepath.Base(name), "lock"):
		case name != damaged && filepath.Ext(name) == ".seg":
		case filepath.Dir(name) == filepath.Join("store", "badger") && filepath.Ext(name) != ".sst" && filepath.Base(damaged) != "MANIFEST":
		case name != damaged && filepath.Base(name) == "HIGHWATER":
		case !bytes.Equal(data, other[name]):
			names = append(names, fmt.Sprintf("%s (%d bytes, now %d)", name, len(data), len(other[name])))
		}
	}
	for name := range other {
		if _, ok := i[name]; !ok && !strings.EqualFold(filepath.Base(name), "lock") && !strings.HasPrefix(name, "store") {
			names = append(names, name+" (new)")
		}
	}
	return names
}

const damageKeys = 40

// fillCounters makes counters whose value is known.
func fillCounters(t *testing.T, n *node, rounds int) {
	t.Helper()
	client := &http.Client{Timeout: 10 * time.Second}
	for range rounds {
		for key := range damageKeys {
			got, err := n.post(t.Context(), client, "/bench.v1.CounterService/Add", fmt.Sprintf(`{"name":"k%d","amount":"1"}`, key))
			if err != nil || got.status != http.StatusOK {
				t.Fatal(err, got.body)
			}
		}
	}
}

// wrong names the counters that are not what was acknowledged.
func wrong(t *testing.T, n *node, want int) (bad []string) {
	t.Helper()
	client := &http.Client{Timeout: 10 * time.Second}
	for key := range damageKeys {
		got, err := n.post(t.Context(), client, "/bench.v1.CounterService/Get", fmt.Sprintf(`{"name":"k%d"}`, key))
		if err != nil {
			t.Fatal(err)
		}
		if body := strings.ReplaceAll(got.body, " ", ""); body != fmt.Sprintf(`{"value":"%d"}`, want) {
			bad = append(bad, fmt.Sprintf("k%d: HTTP %d %s", key, got.status, body))
		}
	}
	return bad
}

// damages are what is done to a file; written is the length of what it holds, and of nil the file is removed. What
// is flipped is in the header, before the middle and near the end.
var damages = map[string]func(data []byte, written int) []byte{
	"removed":             nil,
	"emptied":             func([]byte, int) []byte { return []byte{} },
	"cut half":            func(d []byte, written int) []byte { return d[:written/2] },
	"flipped at 0":        func(d []byte, _ int) []byte { return flipped(d, 0) },
	"flipped at 2 ninths": func(d []byte, written int) []byte { return flipped(d, written*2/9) },
	"flipped at 8 ninths": func(d []byte, written int) []byte { return flipped(d, written*8/9) },
}

func flipped(data []byte, at int) []byte {
	data[at] ^= 0x10
	return data
}

// TestDamage flips bits, cuts and removes files of a stopped node. It must refuse to start and
// say which file and where, change nothing, and start when the bytes are put back; or, if it
// starts, everything acknowledged must be there.
//
// All files with all damages are 150 nodes, and -chaos.for=1m starts them. A run beside others, of which there
// are many, has each file once and each damage, after both endings, as its seed deals them out.
func TestDamage(t *testing.T) {
	t.Parallel() // with the timers, which mostly wait
	const rounds = 25
	random := choices(t)
	all := *chaosFor >= time.Minute
	originals := map[string]image{}
	endings := map[string][]string{} // of each file: after which there is one
	for _, ending := range []string{"stopped", "killed"} {
		original := t.TempDir()
		n := newNode(t, original, nodeSettings{Partitions: 2})
		n.start()
		fillCounters(t, n, rounds)
		if ending == "killed" {
			n.kill()
		} else {
			n.stop()
		}
		originals[ending] = readImage(t, original)
		for name := range originals[ending] {
			if !strings.EqualFold(filepath.Base(name), "lock") {
				endings[name] = append(endings[name], ending)
			}
		}
	}
	names, hows := slices.Sorted(maps.Keys(endings)), slices.Sorted(maps.Keys(damages))
	if len(names) <= len(hows) { // one may have nothing to flip
		t.Errorf("a node has %d files: they don't take %d damages", len(names), len(hows))
	}
	random.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	summary := map[string]int{}
	for i, name := range names {
		chosen, after := hows, endings[name]
		if !all {
			chosen, after = hows[i%len(hows):][:1], []string{after[random.IntN(len(after))]}
		}
		for _, ending := range after {
			data := originals[ending][name]
			written := len(strings.TrimRight(string(data), "\x00"))
			for _, how := range chosen {
				if written == 0 && strings.HasPrefix(how, "flipped") { // there is nothing to flip
					if all {
						continue
					}
					how = "removed"
				}
				t.Run(strings.Join([]string{ending, name, how}, " "), func(t *testing.T) {
					dir := t.TempDir()
					originals[ending].write(t, dir)
					path := filepath.Join(dir, name)
					if damage := damages[how]; damage == nil {
						if err := os.Remove(path); err != nil {
							t.Fatal(err)
						}
					} else if err := os.WriteFile(path, damage(bytes.Clone(data), written), 0o600); err != nil {
						t.Fatal(err)
					}
					summary[checkDamaged(t, dir, name, data, rounds)+" when "+ending]++
				})
			}
		}
	}
	t.Logf("%v", summary)
}

// checkDamaged starts a node on a damaged directory and returns what came of it.
func checkDamaged(t *testing.T, dir, name string, data []byte, want int) string {
	t.Helper()
	before := readImage(t, dir)
	n := newNode(t, dir, nodeSettings{})
	n.launch()
	err := n.ready(20 * time.Second)
	if err == nil {
		if bad := wrong(t, n, want); len(bad) > 0 {
			t.Errorf("it serves, and %d of %d counters are wrong: %s", len(bad), damageKeys, bad[0])
			return "SERVED WRONG"
		}
		return "served, all there"
	}
	code := n.wait(5 * time.Second)
	said := n.said.take()
	t.Logf("%s", said)
	if code != 1 {
		t.Errorf("exit code %d", code)
	}
	if strings.Contains(said, "panic:") || strings.Contains(said, "goroutine ") {
		t.Error("it panicked")
	}
	_, message, _ := strings.Cut(said, " start: ")
	if !strings.Contains(message, filepath.Base(name)) && !strings.Contains(message, filepath.Join(dir, filepath.Dir(name))) &&
		!strings.Contains(message, filepath.Join(dir, "store")) {
		t.Errorf("the message does not name %s", name)
	}
	if changed := before.difference(readImage(t, dir), name); len(changed) > 0 {
		t.Errorf("refusing changed %v", changed)
	}
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
	n.start()
	if bad := wrong(t, n, want); len(bad) > 0 {
		t.Errorf("with the bytes put back %d counters are wrong: %s", len(bad), bad[0])
	}
	return "refused"
}

// TestRefusedDirectories are those that a node must not touch.
func TestRefusedDirectories(t *testing.T) {
	original := t.TempDir()
	first := newNode(t, original, nodeSettings{Partitions: 2})
	first.start()
	fillCounters(t, first, 2)

	second := newNode(t, original, nodeSettings{Partitions: 2})
	second.launch()
	if code, said := second.wait(10*time.Second), second.said.take(); code != 1 || !strings.Contains(said, "is in use by another node") {
		t.Errorf("a second process: exit code %d\n%s", code, said)
	} else {
		t.Logf("second process: %s", said)
	}
	if bad := wrong(t, first, 2); len(bad) > 0 {
		t.Error(bad)
	}
	first.stop()
	files := readImage(t, original)

	change := func(field string, value any) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			var identity map[string]any
			if err := json.Unmarshal(files["node.json"], &identity); err != nil {
				t.Fatal(err)
			}
			identity[field] = value
			data, err := json.Marshal(identity)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "node.json"), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		name       string
		change     func(*testing.T, string)
		partitions uint32
		want       []string
	}{
		{"newer version", change("format_version", 99), 2, []string{"format version is 99", "newer program"}},
		{"another node's id", change("node_id", "00000000000000aa"), 2, []string{"node"}},
		{"id that is none", change("node_id", "x"), 2, []string{"node.json is damaged"}},
		{"no partitions", change("partitions", 0), 2, []string{"node.json is damaged"}},
		{"more partitions in node.json", change("partitions", 3), 0, []string{"node.json says 3 partitions, the log has 2"}},
		{"fewer partitions in node.json", change("partitions", 1), 0, []string{"node.json says 1 partitions, the log has 2"}},
		{"other partitions configured", func(*testing.T, string) {}, 5, []string{"created with 2 partitions", "says 5"}},
		{"node.json cut", func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, "node.json"), 20); err != nil {
				t.Fatal(err)
			}
		}, 2, []string{"node.json is damaged"}},
		{"node.json removed", remove("node.json"), 2, []string{"node.json is missing"}},
		{"log removed", remove("log"), 2, []string{"log is missing or empty", "restore both"}},
		{"store removed", remove("store"), 2, []string{"store with", "restore the store from a backup"}},
		{"a file where the directory should be", func(t *testing.T, dir string) {
			remove("store")(t, dir)
			if err := os.WriteFile(filepath.Join(dir, "store"), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, 2, []string{"store"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			files.write(t, dir)
			c.change(t, dir)
			before := readImage(t, dir)
			n := newNode(t, dir, nodeSettings{Partitions: c.partitions})
			n.launch()
			if err := n.ready(10 * time.Second); err == nil {
				if bad := wrong(t, n, 2); len(bad) > 0 {
					t.Fatalf("it serves, and %d counters are wrong: %s", len(bad), bad[0])
				}
				t.Log("it serves, and everything is there")
				return
			}
			code, said := n.wait(5*time.Second), n.said.take()
			t.Logf("%s", said)
			if code != 1 {
				t.Errorf("exit code %d", code)
			}
			for _, want := range c.want {
				if !strings.Contains(said, want) {
					t.Errorf("it does not say %q", want)
				}
			}
			if changed := before.difference(readImage(t, dir), ""); len(changed) > 0 {
				t.Errorf("refusing changed %v", changed)
			}
		})
	}
}
