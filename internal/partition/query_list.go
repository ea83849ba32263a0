package partition

import (
	"bytes"
	"container/heap"
	"context"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	"github.com/perdure/perdure/internal/table"
)

// Invocations lists as many invocations as InvocationsPage can have, looking at as many as that
// takes: without an object or unfinished statuses in the filter, perhaps at all there are.
func (r *Router) Invocations(ctx context.Context, filter routing.Filter) ([]routing.InvocationDetail, error) {
	filter.Limit = pageLimit(filter.Limit)
	var found []routing.InvocationDetail
	for {
		page, err := r.InvocationsPage(ctx, filter)
		if err != nil {
			return nil, err
		}
		found = append(found, page.Found...)
		filter.Limit -= len(page.Found)
		if filter.After = page.Next; filter.After.IsZero() || filter.Limit <= 0 {
			return found, nil
		}
	}
}

// InvocationsPage implements routing.Router. It merges the partitions, reading each only as far
// as the merge needs.
func (r *Router) InvocationsPage(ctx context.Context, filter routing.Filter) (*routing.InvocationsPage, error) {
	return r.InvocationsOf(ctx, nil, filter)
}

// InvocationsOf is InvocationsPage of some partitions, all of which must be led here; nil: of all.
func (r *Router) InvocationsOf(ctx context.Context, ids []uint32, filter routing.Filter) (*routing.InvocationsPage, error) {
	partitions, err := r.some(ids)
	if err != nil {
		return nil, err
	}
	limit, budget := pageLimit(filter.Limit), filter.Scan
	if budget <= 0 {
		budget = routing.DefaultScan
	}
	if len(partitions) == 0 || !filter.Until.IsZero() && bytes.Compare(filter.After[:], filter.Until[:]) >= 0 {
		return &routing.InvocationsPage{}, nil
	}
	if filter.Service != "" && filter.Key != "" {
		partitions = []*Partition{r.ofObject(invocation.Object{Service: filter.Service, Key: filter.Key})}
	}
	chunk := min(max(budget/(2*len(partitions)), 1), firstChunk)
	rest := make(merge, 0, len(partitions))
	for _, p := range partitions {
		rest = append(rest, newListing(p, filter, chunk))
	}
	page := &routing.InvocationsPage{}
	for len(rest) > 0 {
		least := rest[0]
		switch {
		case len(least.found) > 0:
			if len(page.Found) == limit {
				page.Next = page.Found[limit-1].ID
				return page, nil
			}
			page.Found = append(page.Found, least.found[0])
			least.found = least.found[1:]
		case least.ended:
			heap.Pop(&rest)
			continue
		case least.passed != filter.After && page.Scanned >= budget:
			// Everything up to here was looked at in every partition. Each has gone at least one
			// row beyond After, so the next page starts further on.
			page.Next = least.passed
			return page, nil
		case len(page.Found) == limit:
			page.Next = page.Found[limit-1].ID
			return page, nil
		default:
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			scanned, err := least.read(max(budget-page.Scanned, 1))
			if err != nil {
				return nil, err
			}
			page.Scanned += scanned
		}
		heap.Fix(&rest, 0)
	}
	return page, nil
}

// The rows that are read of a partition at once, first and later: a page over many partitions
// needs few of each, one over a single partition many.
const (
	firstChunk = 64
	lastChunk  = 2048
)

// listing is one partition's part of a page.
type listing struct {
	partition *Partition
	filter    routing.Filter
	// active: the unfinished invocations are looked at rather than all.
	active       bool
	lower, upper []byte
	// passed is the last id that was looked at.
	passed invocation.ID
	// ended: there is nothing behind passed.
	ended bool
	// found are matches not yet taken, all of them up to passed.
	found []routing.InvocationDetail
	chunk int
}

func newListing(p *Partition, filter routing.Filter, chunk int) *listing {
	l := &listing{partition: p, filter: filter, active: onlyUnfinished(filter.Statuses), passed: filter.After, chunk: chunk}
	key := table.Invocation
	l.lower, l.upper = table.Invocations()
	if l.active {
		key = table.ActiveKey
		l.lower, l.upper = table.ActiveAll()
	}
	if filter.Service != "" && filter.Key != "" {
		// All ids of an object start with its hash; other objects' may too.
		hash := invocation.Target{Service: filter.Service, Key: filter.Key}.Hash()
		first := key(invocation.NewID(hash, [16]byte{}))
		l.lower, l.upper = first, table.Successor(first[:len(first)-16])
	}
	if !filter.Until.IsZero() {
		if until := append(key(filter.Until), 0); bytes.Compare(until, l.upper) < 0 {
			l.upper = until
		}
	}
	if !filter.After.IsZero() {
		if after := append(key(filter.After), 0); bytes.Compare(after, l.lower) > 0 {
			l.lower = after
		}
	}
	l.ended = bytes.Compare(l.lower, l.upper) >= 0
	return l
}

func onlyUnfinished(statuses []recordv1.Status) bool {
	return len(statuses) > 0 && !slices.ContainsFunc(statuses, func(s recordv1.Status) bool {
		return s < recordv1.Status_STATUS_SCHEDULED || s > recordv1.Status_STATUS_PAUSED
	})
}

// read looks at the next chunk of rows, at most limit.
func (l *listing) read(limit int) (scanned int, err error) {
	s, err := l.partition.pin()
	if err != nil {
		return 0, err
	}
	defer s.Release()
	chunk := min(l.chunk, limit)
	l.chunk = min(2*l.chunk, lastChunk)
	l.found = nil
	l.ended = true
	// Of unfinished invocations, those whose row is to be read: not within the scan, which
	// holds an iterator of the store.
	var wanted []invocation.ID
	var rowErr error
	err = s.Scan(l.lower, l.upper, func(key, value []byte) bool {
		if scanned == chunk {
			l.ended = false
			return false
		}
		id, err := table.ParseID(key)
		if err != nil {
			rowErr = damaged(id, err)
			return false
		}
		scanned++
		l.passed = id
		if l.active {
			wanted, rowErr = l.want(wanted, id, value)
		} else {
			rowErr = l.take(id, value)
		}
		return rowErr == nil
	})
	if err != nil {
		return scanned, routing.Errorf(routing.CodeDataLoss, "partition %d: the invocations can't be read: %v", l.partition.id, err)
	}
	if rowErr != nil {
		return scanned, rowErr
	}
	for _, id := range wanted {
		value, ok, err := s.Get(table.Invocation(id))
		if err != nil {
			return scanned, damaged(id, err)
		}
		if !ok {
			return scanned, routing.Errorf(routing.CodeDataLoss, "%s is unfinished and has no row", id)
		}
		if err := l.take(id, value); err != nil {
			return scanned, err
		}
	}
	if scanned > 0 {
		if l.active {
			l.lower = append(table.ActiveKey(l.passed), 0)
		} else {
			l.lower = append(table.Invocation(l.passed), 0)
		}
	}
	return scanned, nil
}

// want adds id unless its Active row shows that the filter leaves it out.
func (l *listing) want(wanted []invocation.ID, id invocation.ID, value []byte) ([]invocation.ID, error) {
	active, err := table.ParseActive(value)
	if err != nil {
		return wanted, damaged(id, err)
	}
	if !slices.Contains(l.filter.Statuses, active.Status) {
		return wanted, nil
	}
	// An invocation that holds no key has no object here.
	if o := active.Object; o != (invocation.Object{}) &&
		(l.filter.Service != "" && l.filter.Service != o.Service || l.filter.Key != "" && l.filter.Key != o.Key ||
			!strings.HasPrefix(o.Key, l.filter.KeyPrefix)) {
		return wanted, nil
	}
	return append(wanted, id), nil
}

// take adds an invocation if it matches.
func (l *listing) take(id invocation.ID, value []byte) error {
	row := &recordv1.Invocation{}
	if err := proto.Unmarshal(value, row); err != nil {
		return damaged(id, err)
	}
	if !matches(l.filter, row) || row.Purging {
		return nil
	}
	// A page of rows with their payloads could be gigabytes.
	row.Input = nil
	if row.Result != nil {
		row.Result.Value = nil
	}
	l.found = append(l.found, routing.InvocationDetail{ID: id, Row: row})
	return nil
}

func matches(f routing.Filter, row *recordv1.Invocation) bool {
	t := row.GetTarget()
	return (f.Service == "" || f.Service == t.GetService()) &&
		(f.Key == "" || f.Key == t.GetKey()) &&
		strings.HasPrefix(t.GetKey(), f.KeyPrefix) &&
		(f.Handler == "" || f.Handler == t.GetHandler()) &&
		(f.Deployment == "" || f.Deployment == row.Deployment) &&
		row.CreatedAt >= f.CreatedFrom && (f.CreatedBefore == 0 || row.CreatedAt < f.CreatedBefore) &&
		(len(f.Statuses) == 0 || slices.Contains(f.Statuses, row.Status))
}

// merge is a heap of the listings by the least id that each may still give.
type merge []*listing

func (m merge) at(i int) invocation.ID {
	if l := m[i]; len(l.found) > 0 {
		return l.found[0].ID
	}
	return m[i].passed
}

func (m merge) Len() int { return len(m) }
func (m merge) Less(i, j int) bool {
	a, b := m.at(i), m.at(j)
	return bytes.Compare(a[:], b[:]) < 0
}
func (m merge) Swap(i, j int) { m[i], m[j] = m[j], m[i] }
func (m *merge) Push(x any)   { *m = append(*m, x.(*listing)) }

func (m *merge) Pop() any {
	old := *m
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*m = old[:len(old)-1]
	return last
}
