package history

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// source is where a history's choices come from: rapid, which makes them smaller after a
// failure, or a seeded generator, which is faster.
type source func(below int) int

func rapidSource(t *rapid.T) source {
	return func(below int) int { return rapid.IntRange(0, below-1).Draw(t, "choice") }
}

func seeded(seed uint64) source {
	r := rand.New(rand.NewPCG(seed, 1))
	return r.IntN
}

// shape of a history.
type shape struct {
	txns, keys, ops int
	// overlap is about how many transactions run at one time.
	overlap int
	// doubtful transactions, of ten, are aborted or have no answer.
	doubtful int
}

// serial runs transactions one after the other, and makes up beginnings and ends around the
// point where each took effect: such a history is strictly serializable.
func serial(choose source, s shape) ([]Txn, map[string][]int64) {
	lists := map[string][]int64{}
	var txns []Txn
	value := int64(0)
	for i := range s.txns {
		txn := Txn{ID: i, Process: choose(4)}
		if choose(10) < s.doubtful {
			txn.Outcome = Outcome(1 + choose(2))
		}
		effect := txn.Outcome == Committed || txn.Outcome == Unknown && choose(2) == 0
		own := map[string][]int64{}
		for range 1 + choose(s.ops) {
			key := fmt.Sprint("k", choose(s.keys))
			if choose(2) == 0 {
				value++
				own[key] = append(own[key], value)
				txn.Ops = append(txn.Ops, Append(key, value))
				continue
			}
			if txn.Outcome != Committed && choose(2) == 0 {
				txn.Ops = append(txn.Ops, ReadUnknown(key))
				continue
			}
			txn.Ops = append(txn.Ops, Read(key, slices.Concat(lists[key], own[key])))
		}
		if effect {
			for key, values := range own {
				lists[key] = append(lists[key], values...)
			}
		}
		point := int64(10 * i)
		txn.Began = point - int64(choose(5*s.overlap))
		txn.Ended = point + int64(choose(5*s.overlap))
		if txn.Outcome == Unknown && effect {
			// It may have happened after its caller gave up.
			txn.Ended -= int64(choose(10 * s.overlap))
		}
		txns = append(txns, txn)
	}
	for i := range txns {
		j := choose(i + 1)
		txns[i], txns[j] = txns[j], txns[i]
	}
	return txns, lists
}

func TestSerialHistoriesAreFine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		choose := rapidSource(t)
		h, final := serial(choose, shape{txns: 1 + choose(40), keys: 1 + choose(4), ops: 5, overlap: 1 + choose(8), doubtful: choose(6)})
		if choose(2) == 0 {
			for key := range final {
				if choose(2) == 0 {
					delete(final, key)
				}
			}
		}
		if got := Check(h, Options{Realtime: choose(4) > 0, Final: final}); len(got) > 0 {
			t.Fatalf("a strictly serializable history is reported:\n%s", Format(got))
		}
	})
}

// Larger ones, without the cost of drawing.
func TestLargeSerialHistoriesAreFine(t *testing.T) {
	for seed := range uint64(12) {
		h, final := serial(seeded(seed), shape{txns: 1000, keys: 1 + int(seed), ops: 6, overlap: 1 + 3*int(seed), doubtful: 2})
		for _, opts := range []Options{{Realtime: true, Final: final}, {Realtime: true}, {}} {
			if got := Check(h, opts); len(got) > 0 {
				t.Fatalf("seed %d: a strictly serializable history is reported:\n%s", seed, Format(got))
			}
		}
	}
}

// reads of committed transactions with at least n values.
func longReads(h []Txn, n int) [][2]int {
	var out [][2]int
	for i, txn := range h {
		for o, op := range txn.Ops {
			if txn.Outcome == Committed && !op.Append && len(op.Read) >= n {
				out = append(out, [2]int{i, o})
			}
		}
	}
	return out
}

// TestMutationsAreCaught spoils good histories in one place. Some mutations make another good
// history, so rates are asked for, near what was measured.
func TestMutationsAreCaught(t *testing.T) {
	type spoil func(choose source, h []Txn, final map[string][]int64) bool
	anyRead := func(n int, change func(choose source, list []int64) []int64) spoil {
		return func(choose source, h []Txn, _ map[string][]int64) bool {
			reads := longReads(h, n)
			if len(reads) == 0 {
				return false
			}
			place := reads[choose(len(reads))]
			op := &h[place[0]].Ops[place[1]]
			op.Read = change(choose, slices.Clone(op.Read))
			return true
		}
	}
	committedAppend := func(choose source, h []Txn) (Txn, Op) {
		for {
			txn := h[choose(len(h))]
			if op := txn.Ops[choose(len(txn.Ops))]; op.Append && txn.Outcome == Committed {
				return txn, op
			}
		}
	}
	tests := []struct {
		name string
		// rate of those caught, with final lists and realtime.
		rate  float64
		spoil spoil
	}{
		{"swap two values of a read", 1, anyRead(2, func(choose source, list []int64) []int64 {
			i := choose(len(list) - 1)
			list[i], list[i+1] = list[i+1], list[i]
			return list
		})},
		{"drop a value of a read but the last", 1, anyRead(2, func(choose source, list []int64) []int64 {
			i := choose(len(list) - 1)
			return slices.Delete(list, i, i+1)
		})},
		// Of two values by one transaction, or in a read that overlaps the append, it is a
		// state that could be read.
		{"drop the last value of a read", 0.75, anyRead(1, func(_ source, list []int64) []int64 { return list[:len(list)-1] })},
		{"drop half of a read", 0.98, anyRead(8, func(_ source, list []int64) []int64 { return list[:len(list)/2] })},
		{"double a value of a read", 1, anyRead(1, func(choose source, list []int64) []int64 {
			i := choose(len(list))
			return slices.Insert(list, i, list[i])
		})},
		{"double an append", 1, func(choose source, h []Txn, final map[string][]int64) bool {
			_, op := committedAppend(choose, h)
			for i := range h {
				for o := range h[i].Ops {
					if other := &h[i].Ops[o]; other.Key == op.Key {
						if at := slices.Index(other.Read, op.Value); at >= 0 {
							other.Read = slices.Insert(slices.Clone(other.Read), at, op.Value)
						}
					}
				}
			}
			final[op.Key] = slices.Insert(slices.Clone(final[op.Key]), slices.Index(final[op.Key], op.Value), op.Value)
			return true
		}},
		{"lose an append", 1, func(choose source, h []Txn, final map[string][]int64) bool {
			_, op := committedAppend(choose, h)
			lose := func(list []int64) []int64 {
				return slices.DeleteFunc(slices.Clone(list), func(value int64) bool { return value == op.Value })
			}
			for i := range h {
				for o := range h[i].Ops {
					if other := &h[i].Ops[o]; other.Key == op.Key && other.Read != nil {
						other.Read = lose(other.Read)
					}
				}
			}
			final[op.Key] = lose(final[op.Key])
			return true
		}},
		{"call a commit an abort", 0.99, func(choose source, h []Txn, _ map[string][]int64) bool {
			txn, _ := committedAppend(choose, h)
			for i := range h {
				if h[i].ID == txn.ID {
					h[i].Outcome = Aborted
				}
			}
			return true
		}},
		{"move a transaction in time", 0.9, func(choose source, h []Txn, _ map[string][]int64) bool {
			txn, _ := committedAppend(choose, h)
			for i := range h {
				if h[i].ID == txn.ID {
					h[i].Began, h[i].Ended = h[i].Began+300, h[i].Ended+300
				}
			}
			return true
		}},
	}
	const histories = 150
	for number, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			caught, made := 0, 0
			for seed := range uint64(histories) {
				choose := seeded(seed + 1000*uint64(number))
				h, final := serial(choose, shape{txns: 80, keys: 3, ops: 4, overlap: 3, doubtful: 1})
				if !test.spoil(choose, h, final) {
					continue
				}
				made++
				found := Check(h, Options{Realtime: true, Final: final})
				if len(found) > 0 {
					caught++
				}
				for _, a := range found {
					complete(t, a)
				}
			}
			rate := float64(caught) / float64(made)
			t.Logf("%d of %d caught", caught, made)
			if made < histories/2 || rate < test.rate {
				t.Errorf("%d of %d caught, want a share of %g", caught, made, test.rate)
			}
		})
	}
}

// interleaved runs operations of transactions in any order without isolation, so that the
// history may be serializable or not.
func interleaved(choose source, txns, keys, ops int) ([]Txn, map[string][]int64) {
	h := make([]Txn, txns)
	lists := map[string][]int64{}
	var turns []int
	for i := range h {
		h[i].ID = i
		for range 1 + choose(ops) {
			turns = append(turns, i)
		}
	}
	for i := range turns {
		j := choose(i + 1)
		turns[i], turns[j] = turns[j], turns[i]
	}
	for now, i := range turns {
		key := fmt.Sprint("k", choose(keys))
		if h[i].Ops == nil {
			h[i].Began = int64(now) * 10
		}
		h[i].Ended = int64(now)*10 + 1
		if choose(2) == 0 {
			value := int64(now)
			lists[key] = append(lists[key], value)
			h[i].Ops = append(h[i].Ops, Append(key, value))
		} else {
			h[i].Ops = append(h[i].Ops, Read(key, slices.Clone(lists[key])))
		}
	}
	return h, lists
}

// explained says whether some order of the transactions gives all reads and the final lists:
// the definition, tried out.
func explained(h []Txn, final map[string][]int64, realtime bool) bool {
	lists := map[string][]int64{}
	done := make([]bool, len(h))
	run := func(txn Txn) bool {
		for _, op := range txn.Ops {
			if op.Append {
				lists[op.Key] = append(lists[op.Key], op.Value)
			} else if !slices.Equal(lists[op.Key], op.Read) {
				return false
			}
		}
		return true
	}
	var try func(left int) bool
	try = func(left int) bool {
		if left == 0 {
			for key, list := range final {
				if !slices.Equal(lists[key], list) {
					return false
				}
			}
			return true
		}
	next:
		for i := range h {
			if done[i] {
				continue
			}
			for j := range h {
				if realtime && !done[j] && h[j].Ended < h[i].Began {
					continue next
				}
			}
			before := map[string][]int64{}
			for key, list := range lists {
				before[key] = slices.Clip(list)
			}
			done[i] = true
			if run(h[i]) && try(left-1) {
				return true
			}
			done[i] = false
			lists = before
		}
		return false
	}
	return try(len(h))
}

// TestAgainstDefinition compares the check with trying all orders: with final lists and all
// reads known it must agree, both ways.
func TestAgainstDefinition(t *testing.T) {
	const histories = 3000
	fine := 0
	compare := func(fail func(string, ...any), choose source) {
		h, final := interleaved(choose, 2+choose(4), 1+choose(3), 3)
		realtime := choose(2) == 0
		got := Check(h, Options{Realtime: realtime, Final: final})
		want := explained(h, final, realtime)
		if want {
			fine++
		}
		if want != (len(got) == 0) {
			fail("realtime %t: an order exists: %t; found:\n%s\n%+v\nfinal %v", realtime, want, Format(got), h, final)
		}
	}
	for seed := range uint64(histories) {
		compare(func(format string, args ...any) { t.Fatalf("seed %d: "+format, append([]any{seed}, args...)...) }, seeded(seed))
	}
	if fine < histories/10 || fine > histories*9/10 {
		t.Errorf("%d of %d histories are serializable: that tests one side only", fine, histories)
	}
	rapid.Check(t, func(t *rapid.T) { compare(t.Fatalf, rapidSource(t)) })
}

// Without final lists less is found, but never too much: what is reported has no order.
func TestNeverTooMuchWithoutFinal(t *testing.T) {
	caught, wrong := 0, 0
	for seed := range uint64(2000) {
		choose := seeded(seed)
		h, final := interleaved(choose, 2+choose(4), 1+choose(3), 3)
		realtime := choose(2) == 0
		got := Check(h, Options{Realtime: realtime})
		// An order may end with other lists than those that were not read.
		if explained(h, nil, realtime) {
			if len(got) > 0 {
				t.Fatalf("seed %d: an order exists, found:\n%s\n%+v\nfinal %v", seed, Format(got), h, final)
			}
			continue
		}
		wrong++
		if len(got) > 0 {
			caught++
		}
	}
	t.Logf("%d of %d caught", caught, wrong)
	if float64(caught) < 0.95*float64(wrong) {
		t.Errorf("%d of %d histories without an order are caught", caught, wrong)
	}
}
