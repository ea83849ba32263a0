package partition

import (
	"context"
	"fmt"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/journal/pages"
	"github.com/perdure/perdure/internal/partition/rows"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	"github.com/perdure/perdure/internal/table"
)

func pageLimit(asked int) int {
	if asked <= 0 || asked > routing.MaxPage {
		return routing.MaxPage
	}
	return asked
}

func damaged(what interface{ String() string }, err error) error {
	return routing.Errorf(routing.CodeDataLoss, "%s can't be read: %v", what, err)
}

// Invocation implements routing.Router.
func (r *Router) Invocation(ctx context.Context, id invocation.ID) (*routing.InvocationDetail, error) {
	return r.Journal(ctx, id, 0, routing.MaxPage)
}

// Journal implements routing.Router.
func (r *Router) Journal(ctx context.Context, id invocation.ID, after uint32, limit int) (*routing.InvocationDetail, error) {
	s, err := r.of(id).pinNow(ctx)
	if err != nil {
		return nil, err
	}
	defer s.Release()
	detail := &routing.InvocationDetail{ID: id, Row: &recordv1.Invocation{}, After: after, Completions: map[uint32]*recordv1.Completion{}}
	found, err := rows.Message(s, table.Invocation(id), detail.Row)
	if err != nil {
		return nil, damaged(id, err)
	}
	if !found || detail.Row.GetPurging() {
		return nil, routing.Errorf(routing.CodeNotFound, "no invocation %s: it never existed, its retention is over, or it is a TRANSACTION that has not committed", id)
	}
	input := &recordv1.Entry{}
	start := detail.Row.GetJournalStart()
	detail.After = max(after, start)
	if found, err = rows.Message(s, table.Journal(id, start), input); err != nil {
		return nil, damaged(id, fmt.Errorf("input: %w", err))
	}
	if found {
		detail.Row.Input = input.GetInput().GetValue()
	}
	if limit == 0 {
		return detail, nil
	}
	if err := rows.Journal(s, detail, pageLimit(limit)); err != nil {
		return nil, damaged(id, err)
	}
	if limit == 1 {
		index := detail.After + 1
		if c := detail.Completions[index]; c.GetParts() != nil && c.Parts.Bytes <= routing.MaxValueBytes {
			if detail.Completions[index], err = pages.Joined(s, id, c); err != nil {
				return nil, damaged(id, fmt.Errorf("completion of entry %d: %w", index, err))
			}
		}
	}
	return detail, nil
}

// State is StatePage with the first rows of every table.
func (r *Router) State(ctx context.Context, object invocation.Object) (*routing.ObjectState, error) {
	return r.StatePage(ctx, routing.StateQuery{Object: object})
}

// StatePage implements routing.Router.
func (r *Router) StatePage(ctx context.Context, query routing.StateQuery) (*routing.ObjectState, error) {
	o := query.Object
	s, err := r.ofObject(o).pinNow(ctx)
	if err != nil {
		return nil, err
	}
	defer s.Release()
	state := &routing.ObjectState{Tables: map[string]*routing.Table{}}
	if state.State, state.Has, err = s.Get(table.State(o)); err != nil {
		return nil, damaged(o, err)
	}
	read := rows.Pages{Data: s, Object: o, Limit: pageLimit(query.Limit), Budget: rows.PageBytes}
	if query.Table != "" {
		page, err := read.Page(query.Table, query.From)
		if err != nil {
			return nil, damaged(o, err)
		}
		if page.Size > 0 || len(page.Rows) > 0 {
			state.Tables[query.Table] = page
		}
		return state, nil
	}
	// From table to table: a scan of all rows would read every table to its end.
	for from := table.RowsOfObject(o); from != nil; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		name, ok, err := read.Next(from)
		if err != nil {
			return nil, damaged(o, err)
		}
		if !ok {
			break
		}
		if state.Tables[name], err = read.Page(name, ""); err != nil {
			return nil, damaged(o, err)
		}
		from = table.Successor(table.Rows(o, name))
	}
	return state, nil
}
