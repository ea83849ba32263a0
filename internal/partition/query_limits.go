package partition

import (
	"context"

	"github.com/perdure/perdure/internal/partition/status"
	"github.com/perdure/perdure/internal/routing"
)

// Limits implements routing.Router. Partitions that nobody leads here contribute nothing. Fails
// with unavailable, naming them, if some do not answer within 5 s.
func (r *Router) Limits(ctx context.Context, query routing.LimitQuery) ([]routing.Limit, error) {
	return r.LimitsOf(ctx, nil, query)
}

// LimitsOf is Limits of some partitions, all of which must be led here; nil: of all.
func (r *Router) LimitsOf(ctx context.Context, ids []uint32, query routing.LimitQuery) ([]routing.Limit, error) {
	all, err := collect(ctx, r, ids, func(p *Partition, l *leadership) []routing.Limit {
		return status.Limits(p.id, l.engine, query)
	})
	return routing.SortLimits(all), err
}
