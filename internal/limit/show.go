package limit

import (
	"cmp"
	"maps"
	"slices"

	"github.com/perdure/perdure/internal/invocation"
)

// Holder is who holds a permit.
type Holder struct {
	ID invocation.ID
	Permit
}

// Holders are those who hold a permit, the oldest first, at most so many.
func (l *Limit) Holders(most int) []Holder {
	all := make([]Holder, 0, len(l.held))
	for id, permit := range l.held {
		all = append(all, Holder{id, permit})
	}
	slices.SortFunc(all, func(a, b Holder) int {
		return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(string(a.ID[:]), string(b.ID[:])))
	})
	return all[:min(len(all), most)]
}

// Queued are those who wait, in the order in which they begin, at most so many. They belong to
// the limit.
func (l *Limit) Queued(most int) []*Ask {
	all := slices.Clone(l.queue)
	slices.SortFunc(all, func(a, b *Ask) int {
		if a.Before(b) {
			return -1
		}
		return 1
	})
	return all[:min(len(all), most)]
}

// Oldest is when the one asked who waits longest; 0 if nobody waits.
func (l *Limit) Oldest() (at int64) {
	for _, a := range l.queue {
		if at == 0 || a.At < at {
			at = a.At
		}
	}
	return at
}

// Share is what one tenant has of a limit.
type Share struct {
	Tenant        string
	Held, Waiting int
}

// Shares are the tenants who hold or wait, those with the most waiting first, at most so many.
func (l *Limit) Shares(most int) []Share {
	tenants := map[string]*Share{}
	of := func(tenant string) *Share {
		if tenants[tenant] == nil {
			tenants[tenant] = &Share{Tenant: tenant}
		}
		return tenants[tenant]
	}
	for _, permit := range l.held {
		of(permit.Tenant).Held++
	}
	for _, a := range l.queue {
		of(a.Tenant).Waiting++
	}
	var all []Share
	for _, share := range slices.Collect(maps.Values(tenants)) {
		all = append(all, *share)
	}
	slices.SortFunc(all, func(a, b Share) int {
		return cmp.Or(cmp.Compare(b.Waiting, a.Waiting), cmp.Compare(b.Held, a.Held), cmp.Compare(a.Tenant, b.Tenant))
	})
	return all[:min(len(all), most)]
}
