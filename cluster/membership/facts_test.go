package membership_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/perdure/perdure/cluster/membership"
)

// soon is long: what gossip didn't bring to a node, which it leaves out in one of a hundred runs, comes with one of
// the next exchanges, each of which is with another node by chance.
const soon = time.Minute

// hears waits until all nodes were told something last of a key.
func (w *world) hears(most time.Duration, want string, nodes ...*node) time.Duration {
	w.t.Helper()
	started := time.Now()
	prefix := want[:strings.LastIndex(want, "/")+1]
	last := func(n *node) string {
		told := n.shared()
		for _, one := range slices.Backward(told) {
			if strings.HasPrefix(one, prefix) {
				return one
			}
		}
		return ""
	}
	for slices.ContainsFunc(nodes, func(n *node) bool { return last(n) != want }) {
		if time.Since(started) > most {
			for _, n := range nodes {
				w.t.Errorf("node %d was told %.100q, want %.100q", n.id, last(n), want)
			}
			w.t.FailNow()
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(started)
}

func TestFacts(t *testing.T) {
	simulate(t, func(w *world) {
		nodes := w.startAll(5)
		w.expect(soon, "1 2 3 4 5", nodes...)
		share := func(n *node, key string, value []byte) {
			t.Helper()
			if err := n.Share(key, value); err != nil {
				t.Fatal(err)
			}
		}
		share(nodes[0], "leaders", []byte("a"))
		t.Logf("a small fact took %v", w.hears(soon, "1/leaders/a", nodes[1:]...))
		// Of values that follow each other quickly the last one holds.
		for i := range 100 {
			share(nodes[0], "leaders", fmt.Appendf(nil, "b%d", i))
		}
		w.hears(soon, "1/leaders/b99", nodes[1:]...)
		if told := nodes[4].shared(); len(told) > 50 {
			t.Errorf("node 5 was told %d values of 101, so nothing was coalesced", len(told))
		}
		// The same key of another node is another fact.
		share(nodes[1], "leaders", []byte("c"))
		w.hears(soon, "2/leaders/c", nodes[0], nodes[2], nodes[3], nodes[4])
		large := bytes.Repeat([]byte("x"), membership.MaxFactBytes)
		share(nodes[2], "large", large)
		t.Logf("a large fact took %v", w.hears(soon, "3/large/"+string(large), nodes[0], nodes[1], nodes[3], nodes[4]))
		// A node that comes later hears all.
		late := w.start(6, nil)
		w.hears(soon, "1/leaders/b99", late)
		w.hears(soon, "3/large/"+string(large), late)
		share(nodes[2], "large", nil)
		w.hears(soon, "3/large/", nodes[0], nodes[1], nodes[3], nodes[4], late)
		if told := nodes[0].shared(); slices.ContainsFunc(told, func(one string) bool { return strings.HasPrefix(one, "1/") }) {
			t.Errorf("node 1 was told its own: %q", told)
		}
		for _, test := range []struct {
			key   string
			value []byte
		}{{"", nil}, {"\x00k", nil}, {"\xff", nil}, {strings.Repeat("k", 200), nil}, {"k", make([]byte, membership.MaxFactBytes+1)}} {
			if err := nodes[0].Share(test.key, test.value); err == nil {
				t.Errorf("a fact with key %.10q and %d bytes was taken", test.key, len(test.value))
			}
		}
	})
}

// TestFactsOfAnEarlierProcess: what it said is taken back, or replaced, by the next process, even
// if that one's clock is behind.
func TestFactsOfAnEarlierProcess(t *testing.T) {
	simulate(t, func(w *world) {
		nodes := w.startAll(3)
		w.expect(soon, "1 2 3", nodes...)
		for _, key := range []string{"kept", "dropped"} {
			if err := nodes[1].Share(key, []byte("old")); err != nil {
				t.Fatal(err)
			}
			w.hears(soon, "2/"+key+"/old", nodes[0], nodes[2])
		}
		nodes[1].stop()
		again := w.start(2, nil)
		if err := again.Share("kept", []byte("new")); err != nil {
			t.Fatal(err)
		}
		w.expect(soon, "1 2 3", nodes[0], nodes[2], again)
		w.hears(soon, "2/kept/new", nodes[0], nodes[2])
		w.hears(soon, "2/dropped/", nodes[0], nodes[2])
	})
}
