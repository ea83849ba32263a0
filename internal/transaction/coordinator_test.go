package transaction_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/transaction"
)

// path makes a Path of the indexes of calls.
func path(indexes ...uint32) transaction.Path {
	p := transaction.Path("")
	for _, index := range indexes {
		p = p.Child(index)
	}
	return p
}

func TestPath(t *testing.T) {
	for _, test := range []struct {
		path, root transaction.Path
		under      bool
	}{
		{path(1), path(), true},
		{path(1), path(1), true},
		{path(1, 2), path(1), true},
		{path(1), path(1, 2), false},
		{path(2), path(1), false},
		{path(256), path(1), false},
		{path(1, 256), path(1, 1), false},
	} {
		if got := test.path.Under(test.root); got != test.under {
			t.Errorf("%x under %x is %t", test.path, test.root, got)
		}
	}
}

func TestAge(t *testing.T) {
	// Oldest first.
	ages := []transaction.Age{
		{At: 9, Root: [24]byte{1}, Reader: true},
		{At: 9, Root: [24]byte{2}, Reader: true},
		{At: 1, Root: [24]byte{9}},
		{At: 2, Root: [24]byte{1}},
		{At: 2, Root: [24]byte{2}},
	}
	for i, a := range ages {
		for j, b := range ages {
			if got := a.Before(b); got != (i < j) {
				t.Errorf("%v before %v is %t", a, b, got)
			}
		}
		record := &recordv1.TransactionAge{}
		a.Fill(record)
		if got := transaction.AgeOf(record); got != a {
			t.Errorf("%v was read as %v", a, got)
		}
	}
}

func TestID(t *testing.T) {
	id := transaction.ID{Root: [24]byte{7}, Sequence: 3<<32 | 5}
	if got, ok := transaction.IDOf(id.Record()); !ok || got != id || got.Epoch() != 3 {
		t.Errorf("%v was read as %v of epoch %d", id, got, got.Epoch())
	}
	if _, ok := transaction.IDOf(&recordv1.TransactionID{Root: []byte("short")}); ok {
		t.Error("an id with a root of 5 bytes was taken")
	}
}

// TestUndo: a path that is taken back covers those below it.
func TestUndo(t *testing.T) {
	for _, test := range []struct {
		name        string
		undo, after []transaction.Path
	}{
		{"one", []transaction.Path{path(1)}, []transaction.Path{path(1)}},
		{"twice", []transaction.Path{path(1), path(1)}, []transaction.Path{path(1)}},
		{"below one that is there", []transaction.Path{path(1), path(1, 3)}, []transaction.Path{path(1)}},
		{"above some", []transaction.Path{path(1, 3), path(2), path(1, 4), path(1)}, []transaction.Path{path(2), path(1)}},
		{"all", []transaction.Path{path(1), path(2, 1), path()}, []transaction.Path{path()}},
	} {
		c := &transaction.Coordinator{}
		for _, p := range test.undo {
			c.Undo(p)
		}
		if got := c.Undone(); !slices.Equal(got, test.after) {
			t.Errorf("%s: %x, want %x", test.name, got, test.after)
		}
		if got := transaction.AddPaths(nil, transaction.RecordPaths(c.Undone())); !slices.Equal(got, c.Undone()) {
			t.Errorf("%s: %x was read as %x", test.name, c.Undone(), got)
		}
	}
}

// TestVotes: the coordinator is partition 1. Calls went to 1, 2, 3 and 4, of which 4 has only
// read.
func TestVotes(t *testing.T) {
	const (
		open      = transaction.Undecided
		committed = transaction.Decided
		next      = transaction.NextRound
		lost      = transaction.Lost
	)
	yes := func(from uint32) *recordv1.Vote { return &recordv1.Vote{From: from, Yes: true} }
	reader := func(from uint32) *recordv1.Vote { return &recordv1.Vote{From: from, Yes: true, Reader: true} }
	final := func(from uint32) *recordv1.Vote {
		return &recordv1.Vote{From: from, Yes: true, Reader: true, Final: true}
	}
	confirm := func(from uint32) *recordv1.Vote { return &recordv1.Vote{From: from, Yes: true, Confirm: true} }
	no := func(from uint32) *recordv1.Vote { return &recordv1.Vote{From: from} }
	votes := func(votes ...*recordv1.Vote) []*recordv1.Vote { return votes }
	for _, test := range []struct {
		name    string
		phase   transaction.Phase
		votes   []*recordv1.Vote
		verdict transaction.Verdict // of the last
		writers []uint32
		asked   string // who is asked next; with "!" finally
	}{
		{"nobody has voted", transaction.Preparing, nil, open, nil, "2 3 4"},
		{"one is missing", transaction.Preparing, votes(yes(2), reader(4)), open, []uint32{2}, "3"},
		{"all say yes", transaction.Preparing, votes(yes(3), reader(4), yes(2)), next, []uint32{2, 3}, "4!"},
		{"one who has read is missing", transaction.Preparing, votes(yes(3), yes(2)), open, []uint32{2, 3}, "4"},
		{"and then those who read", transaction.Preparing, votes(yes(3), yes(2), reader(4), final(4)), committed, []uint32{2, 3}, ""},
		{"what one wrote was taken back", transaction.Preparing, votes(reader(2), reader(4), yes(3)), next, []uint32{3}, "2! 4!"},
		{"of two who read one is missing", transaction.Preparing, votes(reader(2), yes(3), reader(4), final(2)), open, []uint32{3}, "4!"},
		{"one must confirm", transaction.Preparing, votes(confirm(2), yes(3), reader(4), final(4)), open, []uint32{2, 3}, "2!"},
		{"one says it twice", transaction.Preparing, votes(yes(2), yes(2)), open, []uint32{2}, "3 4"},
		{"one who has read says it twice", transaction.Preparing, votes(yes(2), yes(3), reader(4), reader(4)), open, []uint32{2, 3}, "4!"},
		{"one says no", transaction.Preparing, votes(yes(2), no(3)), lost, []uint32{2}, "3 4"},
		{"one who has read says no", transaction.Preparing, votes(yes(2), yes(3), no(4)), lost, []uint32{2, 3}, "4"},
		{"it says no when asked finally", transaction.Preparing, votes(yes(2), yes(3), reader(4), no(4)), lost, []uint32{2, 3}, "4!"},
		{"one says no after it has said yes, having forgotten", transaction.Preparing, votes(yes(2), yes(3), reader(4), final(4), no(4)), open, []uint32{2, 3}, ""},
		{"one that was not called", transaction.Preparing, votes(yes(5)), open, nil, "2 3 4"},
		{"the handler still runs", transaction.Running, votes(yes(2), yes(3)), open, nil, "2 3 4"},
		{"a failed one asks all", transaction.RollingBack, nil, open, nil, "2 3 4"},
		{"and once more", transaction.RollingBack, votes(reader(2), reader(3), reader(4)), next, nil, "2! 3! 4!"},
		{"and waits for all", transaction.RollingBack, votes(reader(2), reader(3), reader(4), final(2), final(3)), open, nil, "4!"},
		{"until they have let go", transaction.RollingBack, votes(reader(2), reader(3), reader(4), final(2), final(3), final(4)), committed, nil, ""},
	} {
		c := &transaction.Coordinator{Phase: test.phase}
		for partition := uint32(1); partition <= 4; partition++ {
			c.Answered([]*recordv1.Member{{Partition: partition, Epoch: 1, Writes: partition < 4}})
		}
		verdict := transaction.Undecided
		for _, v := range test.votes {
			verdict = c.Vote(1, v)
		}
		var asked []string
		c.Prepare(1, func(partition uint32, p *recordv1.Prepare) {
			text := fmt.Sprint(partition)
			if p.Final {
				text += "!"
			}
			asked = append(asked, text)
			if p.Discard != (test.phase == transaction.RollingBack) {
				t.Errorf("%s: partition %d is asked with discard %t", test.name, partition, p.Discard)
			}
		})
		if verdict != test.verdict || !slices.Equal(c.Writers(), test.writers) || strings.Join(asked, " ") != test.asked {
			t.Errorf("%s: verdict %d, writers %v, asks %q; want %d, %v, %q", test.name, verdict, c.Writers(), asked, test.verdict, test.writers, test.asked)
		}
	}
}

// TestAnswered: a participant that answers as somebody else has lost what the first knew.
func TestAnswered(t *testing.T) {
	member := func(partition uint32, epoch uint64) *recordv1.Member {
		return &recordv1.Member{Partition: partition, Epoch: epoch}
	}
	c := &transaction.Coordinator{Phase: transaction.Preparing}
	c.Called(2)
	for i, test := range []struct {
		members []*recordv1.Member
		ok      bool
	}{
		{[]*recordv1.Member{member(2, 5)}, true},
		{[]*recordv1.Member{member(2, 5), member(3, 8)}, true},
		{[]*recordv1.Member{member(3, 8)}, true},
		{[]*recordv1.Member{member(4, 1), member(2, 6)}, false},
	} {
		if got := c.Answered(test.members); got != test.ok {
			t.Errorf("answer %d: %t", i+1, got)
		}
	}
	asked := map[uint32]uint64{}
	c.Prepare(1, func(partition uint32, p *recordv1.Prepare) { asked[partition] = p.Epoch })
	if want := map[uint32]uint64{2: 5, 3: 8, 4: 1}; fmt.Sprint(asked) != fmt.Sprint(want) {
		t.Errorf("asked %v, want %v", asked, want)
	}
}

// TestCallsThatWaitForEachOther: a circle counts when it has been reported twice.
func TestCallsThatWaitForEachOther(t *testing.T) {
	waits := func(who, forWhom transaction.Path) *recordv1.SelfWait {
		return &recordv1.SelfWait{Path: []byte(who), For: []byte(forWhom)}
	}
	for _, test := range []struct {
		name string
		from map[uint32][]*recordv1.SelfWait
		want string // the circle's paths
	}{
		{"one waits for one that works", map[uint32][]*recordv1.SelfWait{2: {waits(path(1), path(2))}}, ""},
		{"one after the other", map[uint32][]*recordv1.SelfWait{2: {waits(path(1), path(2)), waits(path(3), path(1))}}, ""},
		// 1 calls 1.1, which waits for 2, and 2 calls 2.1, which waits for 1.
		{"each waits for the other", map[uint32][]*recordv1.SelfWait{
			2: {waits(path(1, 1), path(2))}, 3: {waits(path(2, 1), path(1))}}, "1.1 2.1"},
		{"a circle of three", map[uint32][]*recordv1.SelfWait{
			2: {waits(path(1, 1), path(2)), waits(path(2, 1), path(3))}, 3: {waits(path(3, 1), path(1))}}, "1.1 2.1 3.1"},
		{"two that wait for the same", map[uint32][]*recordv1.SelfWait{
			2: {waits(path(1, 1), path(3)), waits(path(2, 1), path(3))}}, ""},
	} {
		c := &transaction.Coordinator{}
		var circle []*recordv1.SelfWait
		for round := range 2 {
			for _, partition := range []uint32{2, 3} {
				circle = c.Waits(partition, test.from[partition])
				if circle != nil && round == 0 {
					t.Errorf("%s: a circle after the first report", test.name)
				}
				if circle != nil {
					break
				}
			}
		}
		var got []string
		for _, w := range circle {
			var text []string
			for i := 0; i < len(w.Path); i += 4 {
				text = append(text, fmt.Sprint(w.Path[i+3]))
			}
			got = append(got, strings.Join(text, "."))
		}
		slices.Sort(got)
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s: %v, want %q", test.name, got, test.want)
		}
	}
	c := &transaction.Coordinator{}
	both := []*recordv1.SelfWait{waits(path(1, 1), path(2)), waits(path(2, 1), path(1))}
	c.Waits(2, both)
	c.Waits(2, both[:1]) // The second goes on meanwhile.
	if circle := c.Waits(2, both); circle != nil {
		t.Errorf("a circle that was not there all the time: %v", circle)
	}
}
