package partition

import (
	"bytes"
	"context"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	"github.com/perdure/perdure/internal/table"
)

// What one query may return; more comes page by page.
const (
	maxListed = 1000
	maxRows   = 10_000
)

// Invocation implements routing.Router.
func (r *Router) Invocation(_ context.Context, id invocation.ID) (*routing.InvocationDetail, error) {
	s, err := r.of(id).pin()
	if err != nil {
		return nil, err
	}
	defer s.release()
	detail := &routing.InvocationDetail{ID: id, Row: &recordv1.Invocation{}, Completions: map[uint32]*recordv1.Completion{}}
	value, ok, err := s.Get(table.Invocation(id))
	if err != nil {
		return nil, damaged(id, err)
	}
	if !ok {
		return nil, routing.Errorf(routing.CodeNotFound, "no invocation %s: it never existed, its retention is over, or it is a TRANSACTION that has not committed", id)
	}
	if err := proto.Unmarshal(value, detail.Row); err != nil {
		return nil, damaged(id, err)
	}
	var decodeErr error
	lower, upper := table.JournalOf(id)
	err = s.Scan(lower, upper, func(key, value []byte) bool {
		entry := &recordv1.Entry{}
		if decodeErr = proto.Unmarshal(value, entry); decodeErr != nil {
			return false
		}
		if input := entry.GetInput(); input != nil {
			detail.Row.Input = input.Value
			return true
		}
		detail.Journal = append(detail.Journal, entry)
		return true
	})
	if err == nil && decodeErr == nil {
		lower, upper = table.CompletionsOf(id)
		err = s.Scan(lower, upper, func(_, value []byte) bool {
			completion := &recordv1.Completion{}
			if decodeErr = proto.Unmarshal(value, completion); decodeErr != nil {
				return false
			}
			detail.Completions[completion.Entry] = completion
			return true
		})
	}
	if err == nil {
		err = decodeErr
	}
	if err != nil {
		return nil, damaged(id, err)
	}
	return detail, nil
}

func damaged(what interface{ String() string }, err error) error {
	return routing.Errorf(routing.CodeDataLoss, "%s can't be read: %v", what, err)
}

// Invocations implements routing.Router.
func (r *Router) Invocations(ctx context.Context, filter routing.Filter) ([]routing.InvocationDetail, error) {
	limit := filter.Limit
	if limit <= 0 || limit > maxListed {
		limit = maxListed
	}
	var found []routing.InvocationDetail
	for _, p := range r.partitions {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		of, err := p.list(ctx, filter, limit)
		if err != nil {
			return nil, err
		}
		found = append(found, of...)
	}
	slices.SortFunc(found, func(a, b routing.InvocationDetail) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	if len(found) > limit {
		found = found[:limit]
	}
	return found, nil
}

func (p *Partition) list(ctx context.Context, filter routing.Filter, limit int) ([]routing.InvocationDetail, error) {
	s, err := p.pin()
	if err != nil {
		return nil, err
	}
	defer s.release()
	var found []routing.InvocationDetail
	var rowErr error
	lower, upper := table.Invocations()
	if !filter.After.IsZero() {
		lower = append(table.Invocation(filter.After), 0)
	}
	err = s.Scan(lower, upper, func(key, value []byte) bool {
		if rowErr = ctx.Err(); rowErr != nil {
			return false
		}
		id, err := table.ParseID(key)
		row := &recordv1.Invocation{}
		if err == nil {
			err = proto.Unmarshal(value, row)
		}
		if err != nil {
			rowErr = damaged(id, err)
			return false
		}
		if matches(filter, row) {
			found = append(found, routing.InvocationDetail{ID: id, Row: row})
		}
		return len(found) < limit
	})
	if err == nil {
		err = rowErr
	}
	return found, err
}

func matches(f routing.Filter, row *recordv1.Invocation) bool {
	t := row.GetTarget()
	return (f.Service == "" || f.Service == t.GetService()) &&
		(f.Key == "" || f.Key == t.GetKey()) &&
		(f.Handler == "" || f.Handler == t.GetHandler()) &&
		(len(f.Statuses) == 0 || slices.Contains(f.Statuses, row.Status))
}

// State implements routing.Router.
func (r *Router) State(_ context.Context, object invocation.Object) (*routing.ObjectState, error) {
	s, err := r.ofObject(object).pin()
	if err != nil {
		return nil, err
	}
	defer s.release()
	state := &routing.ObjectState{Tables: map[string][]routing.TableRow{}}
	if state.State, state.Has, err = s.Get(table.State(object)); err != nil {
		return nil, damaged(object, err)
	}
	rows := 0
	var keyErr error
	prefix := table.RowsOfObject(object)
	err = s.Scan(prefix, table.Successor(prefix), func(key, value []byte) bool {
		name, row, err := table.ParseRow(object, key)
		if err != nil {
			keyErr = err
			return false
		}
		state.Tables[name] = append(state.Tables[name], routing.TableRow{Key: row, Value: append([]byte(nil), value...)})
		rows++
		return rows < maxRows
	})
	if err == nil {
		err = keyErr
	}
	if err != nil {
		return nil, damaged(object, err)
	}
	return state, nil
}

var _ routing.Router = (*Router)(nil)
