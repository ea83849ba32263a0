package history

import (
	"sync"
	"testing"
)

func TestRecorder(t *testing.T) {
	r := NewRecorder()
	first := r.Begin(1, Append("x", 1))
	second := r.Begin(2, Append("x", 2), ReadUnknown("y"))
	third := r.Begin(3)
	fourth := r.Begin(4)
	first.Committed(Append("x", 1), Read("y", nil))
	first.Aborted()
	third.Aborted(Append("x", 3))
	fourth.Unknown(Append("x", 4))
	h := r.History()
	second.Committed()
	if len(h) != 4 {
		t.Fatalf("%d transactions, want 4", len(h))
	}
	for i, want := range []struct {
		outcome Outcome
		ops     int
	}{{Committed, 2}, {Unknown, 2}, {Aborted, 1}, {Unknown, 1}} {
		if got := h[i]; got.ID != i || got.Process != i+1 || got.Outcome != want.outcome || len(got.Ops) != want.ops {
			t.Errorf("transaction %d is %+v, want %s with %d operations", i, got, want.outcome, want.ops)
		}
	}
	if h[0].Ops[1].Read == nil {
		t.Error("an empty list that was read is taken for one that is unknown")
	}
	if h[0].Ended < h[0].Began || h[2].Ended < h[0].Ended || h[3].Began < h[0].Began {
		t.Errorf("times do not follow each other: %+v", h)
	}
}

// Many callers of lists under one lock: strictly serializable, as recorded.
func TestRecorderConcurrently(t *testing.T) {
	const callers, calls = 8, 200
	r := NewRecorder()
	var mu sync.Mutex
	lists := map[string][]int64{}
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Go(func() {
			for call := range calls {
				key, other, value := string(rune('a'+call%3)), string(rune('a'+call%2)), int64(caller*calls+call)
				pending := r.Begin(caller, Append(key, value))
				if call%10 == 9 {
					pending.Aborted(Append(key, value))
					continue
				}
				mu.Lock()
				read := lists[other]
				read = read[:len(read):len(read)]
				lists[key] = append(lists[key], value)
				mu.Unlock()
				if call%10 == 8 {
					pending.Unknown(Append(key, value))
				} else {
					pending.Committed(Read(other, read), Append(key, value))
				}
			}
		})
	}
	wg.Wait()
	opts := Options{Realtime: true, Final: lists}
	h := r.History()
	if got := Check(h, opts); len(got) > 0 {
		t.Error(Format(got))
	}
	// And the same with one committed append taken out.
	lists["a"] = lists["a"][1:]
	if got := Check(h, opts); len(got) == 0 {
		t.Error("a missing append is not noticed")
	}
}
