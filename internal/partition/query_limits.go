package partition

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/perdure/perdure/internal/engine"
	"github.com/perdure/perdure/internal/routing"
)

// Limits implements routing.Router. Partitions that nobody leads here contribute nothing. Fails
// with unavailable, naming them, if some do not answer within 5 s.
func (r *Router) Limits(ctx context.Context, query routing.LimitQuery) ([]routing.Limit, error) {
	bounded, cancel := context.WithTimeout(ctx, transactionsWait)
	defer cancel()
	type answer struct {
		partition uint32
		statuses  []engine.LimitStatus
	}
	answers := make(chan answer, len(r.partitions))
	missing := map[uint32]bool{}
	for _, p := range r.partitions {
		missing[p.id] = true
		p.post(item{control: controlMeasure, granted: func() { answers <- answer{p.id, p.limits(query)} }})
	}
	var all []routing.Limit
	for len(missing) > 0 {
		select {
		case a := <-answers:
			delete(missing, a.partition)
			for _, status := range a.statuses {
				all = append(all, limitOf(a.partition, status))
			}
		case <-bounded.Done():
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			return nil, routing.Errorf(routing.CodeUnavailable, "%s did not answer within %s: try again", partitionNames(missing), transactionsWait)
		}
	}
	slices.SortFunc(all, func(a, b routing.Limit) int {
		return cmp.Or(cmp.Compare(b.Waiting, a.Waiting), cmp.Compare(b.Held, a.Held), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Partition, b.Partition))
	})
	return all[:min(len(all), routing.MaxPage)], nil
}

// limits is called on the partition's goroutine. What it returns belongs to the caller.
func (p *Partition) limits(query routing.LimitQuery) []engine.LimitStatus {
	l := p.leading.Load()
	if l == nil {
		return nil
	}
	now := time.Now().UnixMilli()
	if query.Name != "" {
		status, ok := l.engine.LimitStatus(query.Name, routing.MaxLimitMembers, now)
		if !ok {
			return nil
		}
		return []engine.LimitStatus{status}
	}
	prefix := ""
	if query.Service != "" {
		prefix = query.Service + "/"
	}
	return l.engine.LimitStatuses(prefix, query.Waiting, routing.MaxPage, now)
}

func limitOf(partition uint32, status engine.LimitStatus) routing.Limit {
	settings := status.Settings
	out := routing.Limit{
		Name: status.Name, Partition: partition, Concurrency: settings.Concurrency, UntilDone: status.UntilDone, MaxQueue: settings.MaxQueue,
		RateCount: settings.Rate.Count, RateBurst: settings.Rate.Burst, RatePer: time.Duration(settings.Rate.Per) * time.Millisecond,
		Held: status.Held, Waiting: status.Waiting, Tokens: status.Tokens,
	}
	if status.Oldest != 0 {
		out.Oldest = time.UnixMilli(status.Oldest)
	}
	for _, share := range status.Shares {
		out.Tenants = append(out.Tenants, routing.LimitTenant{Tenant: share.Tenant, Held: share.Held, Waiting: share.Waiting})
	}
	for _, holder := range status.Holders {
		out.Holders = append(out.Holders, routing.LimitMember{ID: holder.ID, Tenant: holder.Tenant, Since: time.UnixMilli(holder.At)})
	}
	for _, a := range status.Queue {
		out.Queue = append(out.Queue, routing.LimitMember{ID: a.ID, Tenant: a.Tenant, Since: time.UnixMilli(a.At), Priority: int(a.Priority), Begun: a.Begun})
	}
	return out
}
