package owner

import (
	"cmp"
	"slices"
	"strings"

	"github.com/perdure/perdure/internal/limit"
)

// Counts is how many limits are in use here, how many permits are held and how many wait.
func (l *Limits) Counts() (used, held, waiting int) {
	for _, own := range l.named {
		held += own.Held()
		waiting += own.Waiting()
	}
	return len(l.named), held, waiting
}

// Statuses are the limits in use whose names begin with prefix, those with the most waiting first,
// at most so many.
func (l *Limits) Statuses(prefix string, waiting bool, most int, now int64) []limit.Status {
	var found []*owned
	for name, own := range l.named {
		if strings.HasPrefix(name, prefix) && (!waiting || own.Waiting() > 0) {
			found = append(found, own)
		}
	}
	slices.SortFunc(found, func(a, b *owned) int {
		return cmp.Or(cmp.Compare(b.Waiting(), a.Waiting()), cmp.Compare(a.name, b.name))
	})
	var all []limit.Status
	for _, own := range found[:min(len(found), most)] {
		all = append(all, l.status(own, now))
	}
	return all
}

func (l *Limits) status(own *owned, now int64) limit.Status {
	// Tokens moves the bucket to now, which the next event would do too.
	return limit.Status{
		Name: own.name, Settings: own.Settings(), UntilDone: own.record.GetUntilDone(),
		Rule: l.book.Of(own.name).GetName(), Declared: declared(own.record),
		Held: own.Held(), Waiting: own.Waiting(), Tokens: own.Tokens(now), Oldest: own.Oldest(),
	}
}

// Status is one limit with at most so many tenants, holders and waiting ones.
func (l *Limits) Status(name string, most int, now int64) (limit.Status, bool) {
	own := l.named[name]
	if own == nil {
		return limit.Status{}, false
	}
	s := l.status(own, now)
	s.Shares, s.Holders = own.Shares(most), own.Holders(most)
	for _, a := range own.Queued(most) {
		s.Queue = append(s.Queue, *a)
	}
	return s, true
}
