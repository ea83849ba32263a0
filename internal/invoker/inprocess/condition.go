package inprocess

import (
	"context"

	"github.com/perdure/perdure/actor"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// conditionRecord is a condition as it is recorded. What is decided in it is left out: the way it
// was decided follows from earlier entries, and a look at all that has completed since could
// decide it in another.
func conditionRecord(condition *actor.Condition) *recordv1.Condition {
	switch decided, failure := condition.Verdict(); {
	case decided && failure:
		return &recordv1.Condition{} // an entry 0
	case decided:
		return &recordv1.Condition{Quantifier: recordv1.Quantifier_QUANTIFIER_SETTLED} // of nothing
	}
	record := &recordv1.Condition{Quantifier: recordv1.Quantifier(condition.Quantifier), Entry: condition.Entry}
	if entries := openEntries(condition); entries != nil {
		record.Entries = entries
		return record
	}
	for _, part := range condition.Parts {
		record.Parts = append(record.Parts, conditionRecord(part))
	}
	return record
}

// openEntries are the parts of a condition if all are entries that are not decided; else nil.
func openEntries(condition *actor.Condition) []uint32 {
	entries := make([]uint32, 0, len(condition.Parts))
	for _, part := range condition.Parts {
		if decided, _ := part.Verdict(); decided || part.Quantifier != actor.QuantifierEntry {
			return nil
		}
		entries = append(entries, part.Entry)
	}
	if len(entries) == 0 {
		return nil
	}
	return entries
}

// firstOfEntries are the entries of which the first to complete decides, nil for any other
// condition.
func firstOfEntries(condition *actor.Condition) []uint32 {
	if condition.Quantifier != actor.QuantifierFirst {
		return nil
	}
	return openEntries(condition)
}

// waitUntil is WaitUntil for handlers without a journal: one wait after the other.
func waitUntil(ctx context.Context, condition *actor.Condition, ended func(entry uint32) (done, failure bool), wait func(context.Context, []uint32) (int, error)) error {
	for {
		// Entries complete at any time. What decides and what is waited for must be one look, or
		// one that completes between two of them is neither seen nor waited for.
		seen := map[uint32]bool{}
		var open []uint32
		condition.Undecided(func(entry uint32) {
			if done, failure := ended(entry); done {
				seen[entry] = failure
			} else {
				open = append(open, entry)
			}
		})
		decided := condition.Decide(func(entry uint32) (done, failure bool) {
			failure, done = seen[entry]
			return done, failure
		})
		if decided {
			return nil
		}
		if _, err := wait(ctx, open); err != nil {
			return err
		}
	}
}
