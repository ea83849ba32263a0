package peer

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/partition"
	peerv1 "github.com/perdure/perdure/internal/peer/v1"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
)

// pageBytes is about how many bytes of rows a page has at most, of one node or of all.
const pageBytes = 4 << 20

// InvocationsPage implements routing.Router. Each node lists the partitions that it leads; of what
// they found, as much is in the page as all of them have looked at. Fails with unavailable, naming
// them, if partitions have no leader.
func (r *Router) InvocationsPage(ctx context.Context, filter routing.Filter) (*routing.InvocationsPage, error) {
	ids := r.all()
	if filter.Service != "" && filter.Key != "" {
		ids = []uint32{r.ofObject(invocation.Object{Service: filter.Service, Key: filter.Key})}
	}
	if r.hereAll(ids) {
		page, err := r.local().InvocationsPage(ctx, filter)
		if !r.lost(err) {
			return page, err
		}
	}
	if filter.Scan <= 0 {
		filter.Scan = routing.DefaultScan
	}
	limit := filter.Limit
	if limit <= 0 || limit > routing.MaxPage {
		limit = routing.MaxPage
	}
	pages, err := gather(ctx, r, ids, func(some []uint32) (func(context.Context, *partition.Router) (*routing.InvocationsPage, error), *peerv1.Request) {
		part := filter
		part.Scan = max(filter.Scan*len(some)/len(ids), 1)
		return func(ctx context.Context, local *partition.Router) (*routing.InvocationsPage, error) {
				return local.InvocationsOf(ctx, some, part)
			},
			&peerv1.Request{Ask: &peerv1.Request_Invocations{Invocations: filterOf(part)}}
	}, func(answer *peerv1.Answer) (*routing.InvocationsPage, bool) {
		return invocationsFrom(answer.GetInvocations()), answer.GetInvocations() != nil
	})
	if err != nil {
		return nil, err
	}
	return mergeInvocations(pages, limit), nil
}

func mergeInvocations(pages []*routing.InvocationsPage, limit int) *routing.InvocationsPage {
	merged := &routing.InvocationsPage{}
	for _, page := range pages {
		merged.Scanned += page.Scanned
		if !page.Next.IsZero() && (merged.Next.IsZero() || bytes.Compare(page.Next[:], merged.Next[:]) < 0) {
			merged.Next = page.Next // Nobody has looked at less.
		}
	}
	for _, page := range pages {
		for _, found := range page.Found {
			if merged.Next.IsZero() || bytes.Compare(found.ID[:], merged.Next[:]) <= 0 {
				merged.Found = append(merged.Found, found)
			}
		}
	}
	slices.SortFunc(merged.Found, func(a, b routing.InvocationDetail) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return cut(merged, limit)
}

// cut ends a page at its limit, or where it is large, but has at least one of what was found.
func cut(page *routing.InvocationsPage, limit int) *routing.InvocationsPage {
	budget := pageBytes
	for i := range page.Found {
		if i == limit || i > 0 && budget <= 0 {
			page.Found, page.Next = page.Found[:i], page.Found[i-1].ID
			break
		}
		budget -= proto.Size(page.Found[i].Row)
	}
	return page
}

// SchedulesPage implements routing.Router, as InvocationsPage does.
func (r *Router) SchedulesPage(ctx context.Context, query routing.ScheduleQuery) (*routing.SchedulesPage, error) {
	ids := r.all()
	if r.hereAll(ids) {
		page, err := r.local().SchedulesPage(ctx, query)
		if !r.lost(err) {
			return page, err
		}
	}
	limit := query.Limit
	if limit <= 0 || limit > routing.MaxPage {
		limit = routing.MaxPage
	}
	pages, err := gather(ctx, r, ids, func(some []uint32) (func(context.Context, *partition.Router) (*routing.SchedulesPage, error), *peerv1.Request) {
		return func(ctx context.Context, local *partition.Router) (*routing.SchedulesPage, error) {
				return local.SchedulesOf(ctx, some, query)
			},
			&peerv1.Request{Ask: &peerv1.Request_Schedules{Schedules: &peerv1.SchedulesQuery{Prefix: query.Prefix, After: query.After, Limit: pageSize(query.Limit)}}}
	}, func(answer *peerv1.Answer) (*routing.SchedulesPage, bool) {
		page := answer.GetSchedules()
		return &routing.SchedulesPage{Found: page.GetFound(), Next: page.GetNext()}, page != nil
	})
	if err != nil {
		return nil, err
	}
	return mergeSchedules(pages, limit), nil
}

func mergeSchedules(pages []*routing.SchedulesPage, limit int) *routing.SchedulesPage {
	merged := &routing.SchedulesPage{}
	for _, page := range pages {
		if page.Next != "" && (merged.Next == "" || page.Next < merged.Next) {
			merged.Next = page.Next
		}
	}
	for _, page := range pages {
		for _, found := range page.Found {
			if merged.Next == "" || found.GetSchedule().GetName() <= merged.Next {
				merged.Found = append(merged.Found, found)
			}
		}
	}
	slices.SortFunc(merged.Found, func(a, b *recordv1.ScheduleReply) int {
		return cmp.Compare(a.GetSchedule().GetName(), b.GetSchedule().GetName())
	})
	budget := pageBytes
	for i, found := range merged.Found {
		if i == limit || i > 0 && budget <= 0 {
			merged.Found, merged.Next = merged.Found[:i], merged.Found[i-1].GetSchedule().GetName()
			break
		}
		budget -= proto.Size(found)
	}
	return merged
}

// Transactions implements routing.Router. Fails with unavailable, naming them, if partitions have
// no leader or do not answer: a list that leaves out what they hold would say that nothing is in
// doubt.
func (r *Router) Transactions(ctx context.Context) ([]routing.Transaction, error) {
	ids := r.all()
	if r.hereAll(ids) {
		found, err := r.local().Transactions(ctx)
		if !r.lost(err) {
			return found, err
		}
	}
	lists, err := gather(ctx, r, ids, func(some []uint32) (func(context.Context, *partition.Router) ([]routing.Transaction, error), *peerv1.Request) {
		return func(ctx context.Context, local *partition.Router) ([]routing.Transaction, error) {
				return local.TransactionsOf(ctx, some)
			},
			&peerv1.Request{Ask: &peerv1.Request_Transactions{Transactions: &peerv1.TransactionsQuery{}}}
	}, func(answer *peerv1.Answer) ([]routing.Transaction, bool) {
		return transactionsFrom(answer.GetTransactions()), answer.GetTransactions() != nil
	})
	if err != nil {
		return nil, err
	}
	return routing.SortTransactions(slices.Concat(lists...)), nil
}

// Limits implements routing.Router. Fails with unavailable, naming them, if partitions have no
// leader or do not answer.
func (r *Router) Limits(ctx context.Context, query routing.LimitQuery) ([]routing.Limit, error) {
	ids := r.all()
	if r.hereAll(ids) {
		found, err := r.local().Limits(ctx, query)
		if !r.lost(err) {
			return found, err
		}
	}
	lists, err := gather(ctx, r, ids, func(some []uint32) (func(context.Context, *partition.Router) ([]routing.Limit, error), *peerv1.Request) {
		return func(ctx context.Context, local *partition.Router) ([]routing.Limit, error) {
				return local.LimitsOf(ctx, some, query)
			},
			&peerv1.Request{Ask: &peerv1.Request_Limits{Limits: &peerv1.LimitsQuery{Name: query.Name, Service: query.Service, Waiting: query.Waiting}}}
	}, func(answer *peerv1.Answer) ([]routing.Limit, bool) {
		return limitsFrom(answer.GetLimits()), answer.GetLimits() != nil
	})
	if err != nil {
		return nil, err
	}
	return routing.SortLimits(slices.Concat(lists...)), nil
}

func (r *Router) all() []uint32 {
	ids := make([]uint32, r.partitions)
	for i := range ids {
		ids[i] = uint32(i) + 1
	}
	return ids
}

func (r *Router) hereAll(ids []uint32) bool {
	return !slices.ContainsFunc(ids, func(id uint32) bool { return !r.here(id) })
}

// gather asks every node about the partitions that it leads, and those of them again whose leader
// was another one. part says what to ask of some partitions, here or of another node. The
// questions only read. The answers are in no order.
func gather[T any](ctx context.Context, r *Router, ids []uint32,
	part func(some []uint32) (func(context.Context, *partition.Router) (T, error), *peerv1.Request),
	answer func(*peerv1.Answer) (T, bool),
) ([]T, error) {
	var found []T
	p := patience{router: r}
	for pending := ids; ; {
		changed := r.leaders.AnyChanged()
		groups := map[uint64][]uint32{}
		terms := map[uint32]uint64{}
		var rest []uint32
		for _, id := range pending {
			node, term := r.leaders.Leader(id)
			terms[id] = term
			switch {
			case r.local().Leads(id):
				groups[r.node] = append(groups[r.node], id)
			case node != 0 && node != r.node:
				groups[node] = append(groups[node], id)
			default:
				rest = append(rest, id)
			}
		}
		var mu sync.Mutex
		var fatal error
		var all sync.WaitGroup
		for node, some := range groups {
			all.Go(func() {
				result, err := askOne(ctx, r, node, some, part, answer)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					found = append(found, result)
				case judge(ctx, err) == final:
					fatal = err
				default:
					r.heed(err, node)
					rest = append(rest, some...)
				}
			})
		}
		all.Wait()
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if fatal != nil {
			return nil, fatal
		}
		if len(rest) == 0 {
			return found, nil
		}
		slices.Sort(rest)
		if pending = rest; !p.wait(ctx, func() bool {
			return slices.ContainsFunc(pending, func(id uint32) bool {
				node, term := r.leaders.Leader(id)
				return node != 0 && term != terms[id]
			})
		}, changed) {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			return nil, r.leaderless(pending, "what they have would be missing: try again")
		}
	}
}

func askOne[T any](ctx context.Context, r *Router, node uint64, some []uint32,
	part func(some []uint32) (func(context.Context, *partition.Router) (T, error), *peerv1.Request),
	answer func(*peerv1.Answer) (T, bool),
) (T, error) {
	var none T
	local, request := part(some)
	if node == r.node {
		return local(ctx, r.local())
	}
	// A node that is cut off must not hold up the list for as long as its connection lasts.
	bounded, cancel := context.WithTimeout(ctx, listWait)
	defer cancel()
	request.Partitions = some
	data, err := encode(bounded, request, r.maxBytes)
	if err != nil {
		return none, err
	}
	got, err := r.request(bounded, node, data)
	if err != nil {
		if bounded.Err() != nil && ctx.Err() == nil {
			err = routing.Errorf(routing.CodeUnavailable, "node %016x did not answer for %s within %s: try again", node, routing.PartitionNames(some), listWait)
		}
		return none, err
	}
	if result, ok := answer(got); ok {
		return result, nil
	}
	return none, routing.Errorf(routing.CodeInternal, "node %016x answered with %T", node, got.Answer)
}

// listWait is how long a node may take for its part of a list: a little longer than it waits for
// its own partitions.
const listWait = 8 * time.Second
