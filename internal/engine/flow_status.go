package engine

import (
	"cmp"
	"slices"
	"strings"

	"github.com/perdure/perdure/internal/limit"
)

// Limits is how many limits are in use here, how many permits are held and how many wait.
func (e *Engine) Limits() (used, held, waiting int) {
	for _, own := range e.limits.named {
		held += own.Held()
		waiting += own.Waiting()
	}
	return len(e.limits.named), held, waiting
}

// LimitStatuses are the limits in use whose names begin with prefix, those with the most waiting
// first, at most so many.
func (e *Engine) LimitStatuses(prefix string, waiting bool, most int, now int64) []limit.Status {
	var found []*ownedLimit
	for name, own := range e.limits.named {
		if strings.HasPrefix(name, prefix) && (!waiting || own.Waiting() > 0) {
			found = append(found, own)
		}
	}
	slices.SortFunc(found, func(a, b *ownedLimit) int {
		return cmp.Or(cmp.Compare(b.Waiting(), a.Waiting()), cmp.Compare(a.name, b.name))
	})
	var all []limit.Status
	for _, own := range found[:min(len(found), most)] {
		all = append(all, own.status(now))
	}
	return all
}

func (own *ownedLimit) status(now int64) limit.Status {
	// Tokens moves the bucket to now, which the next event would do too.
	return limit.Status{
		Name: own.name, Settings: own.Settings(), UntilDone: own.record.GetUntilDone(),
		Held: own.Held(), Waiting: own.Waiting(), Tokens: own.Tokens(now), Oldest: own.Oldest(),
	}
}

// LimitStatus is one limit with at most so many tenants, holders and waiting ones.
func (e *Engine) LimitStatus(name string, most int, now int64) (limit.Status, bool) {
	own := e.limits.named[name]
	if own == nil {
		return limit.Status{}, false
	}
	s := own.status(now)
	s.Shares, s.Holders = own.Shares(most), own.Holders(most)
	for _, a := range own.Queued(most) {
		s.Queue = append(s.Queue, *a)
	}
	return s, true
}
