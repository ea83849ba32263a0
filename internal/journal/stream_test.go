package journal

import (
	"fmt"
	"testing"

	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// TestStreamed: a cursor that reads its journal in parts passes the same entries as one that has
// all of it, and asks for each part once.
func TestStreamed(t *testing.T) {
	const start, length = 40, 100
	var all []*recordv1.Entry
	for i := range length {
		all = append(all, run(fmt.Sprint(start+1+i), ""))
	}
	for _, page := range []int{1, 3, 64, length, length + 1} {
		var asked []uint32
		part := func(index uint32) []*recordv1.Entry {
			asked = append(asked, index)
			from := int(index) - start - 1
			return all[from:min(from+page, length)]
		}
		for _, have := range []int{0, 1, 50, length} {
			asked = nil
			cursor := Streamed(start, all[:have], start+length, part)
			for i := range length {
				if !cursor.Replaying() || int(cursor.Passed()) != start+i {
					t.Fatalf("page %d, have %d: at %d of %d", page, have, cursor.Passed(), start+i)
				}
				for range 2 {
					if got := cursor.Next().GetRun().GetName(); got != fmt.Sprint(start+1+i) {
						t.Fatalf("page %d, have %d: entry %d is %q", page, have, start+1+i, got)
					}
				}
				cursor.Pass()
			}
			if cursor.Replaying() || cursor.Next() != nil || cursor.Pass() != start+length+1 {
				t.Errorf("page %d, have %d: not at the end", page, have)
			}
			if want := (length - have + page - 1) / page; len(asked) != want {
				t.Errorf("page %d, have %d: asked %d times, want %d: %d", page, have, len(asked), want, asked)
			}
		}
	}
}
