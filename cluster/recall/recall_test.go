package recall_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/perdure/perdure/cluster/recall"
	"github.com/perdure/perdure/cluster/transport"
)

// TestBook tells in one line each what a node says, or what is noted of it, and whether it is refused.
func TestBook(t *testing.T) {
	type line struct {
		process, opened, durable uint64
		noted, stale             bool
	}
	for _, test := range []struct {
		name  string
		lines []line
	}{
		{"one process", []line{{1, 0, 0, false, false}, {1, 0, 5, false, false}, {1, 0, 3, false, false}}},
		{"restarted", []line{{1, 0, 5, false, false}, {2, 5, 6, false, false}, {3, 9, 10, false, false}}},
		{"had more than it could say", []line{{1, 0, 5, false, false}, {2, 8, 9, false, false}}},
		{"an earlier copy", []line{{1, 0, 5, false, false}, {2, 4, 9, false, true}, {2, 4, 99, false, true}, {3, 5, 6, false, false}}},
		{"a late message lowers nothing", []line{{1, 0, 5, false, false}, {1, 0, 3, false, false}, {2, 4, 4, false, true}}},
		{"a copy of a process that goes on", []line{{1, 0, 5, false, false}, {2, 5, 6, false, false}, {1, 0, 6, false, true}, {2, 5, 7, false, false}}},
		{"an earlier version", []line{{1, 0, 5, false, false}, {0, 0, 0, false, false}, {2, 4, 4, false, true}, {2, 7, 8, false, false}}},
		{"noted, then restarted", []line{{1, 0, 5, true, false}, {2, 5, 6, false, false}, {1, 0, 5, true, false}, {2, 5, 7, false, false}}},
		{"noted, then an earlier copy", []line{{1, 0, 5, true, false}, {2, 4, 6, false, true}}},
		{"noted while it goes on", []line{{1, 2, 5, false, false}, {1, 2, 7, true, false}, {1, 2, 6, false, false}, {2, 6, 8, false, true}}},
		{"noted before this node heard of it", []line{{1, 2, 7, true, false}, {1, 2, 9, false, false}, {2, 9, 10, false, false}}},
		{"noted of a later process", []line{{1, 2, 5, false, false}, {2, 7, 8, true, false}, {1, 2, 9, false, true}, {3, 8, 9, false, false}}},
		{"noted too late", []line{{2, 4, 6, false, false}, {1, 0, 5, true, false}, {2, 4, 7, false, true}}},
		{"a stale one was noted", []line{{1, 30, 68, false, false}, {2, 46, 47, true, false}, {3, 47, 48, false, true}, {1, 30, 69, false, false}, {4, 69, 70, false, false}}},
		{"a stale one was believed", []line{{2, 46, 47, false, false}, {1, 30, 68, true, false}, {2, 46, 90, false, true}, {3, 47, 48, false, true}}},
		{"a stale one has grown", []line{{1, 30, 68, true, false}, {2, 46, 90, true, false}, {2, 46, 91, false, true}, {3, 68, 69, false, false}}},
		{"exact copies", []line{{1, 50, 60, true, false}, {2, 50, 55, true, false}, {2, 50, 56, false, true}, {1, 50, 61, false, false}}},
		{"nothing is noted", []line{{0, 0, 9, true, false}, {1, 1, 2, false, false}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var book recall.Book
			for i, l := range test.lines {
				if l.noted {
					book.Note(7, transport.LogClaim{Process: l.process, Opened: l.opened, Durable: l.durable})
					continue
				}
				err := book.Check(7, transport.LogClaim{Process: l.process, Opened: l.opened, Durable: l.durable})
				if stale, ok := errors.AsType[*recall.Stale](err); ok != l.stale || ok && (stale.Node != 7 || stale.Opened != l.opened) {
					t.Fatalf("line %d: %v", i, err)
				}
				if err := book.Check(8, transport.LogClaim{Process: 1}); err != nil {
					t.Fatalf("another node: %v", err)
				}
			}
		})
	}
}

// TestSaysWhatToDo: the text has what is wrong, by how much, and what to do.
func TestSaysWhatToDo(t *testing.T) {
	text := (&recall.Stale{Node: 0xab, Opened: 12, Durable: 14}).Error()
	for _, want := range []string{"00000000000000ab", "12 frames", "heard of 14", "empty directory", "perdure cluster remove 00000000000000ab --force"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q does not say %q", text, want)
		}
	}
}
