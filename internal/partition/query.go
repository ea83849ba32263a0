package partition

import (
	"context"
	"fmt"
	"math"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/journal/pages"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	"github.com/perdure/perdure/internal/table"
)

// pageBytes bounds the journal entries, and the rows of tables, that one query reads; a page
// ends early rather than hold more, but has at least one.
const pageBytes = 4 << 20

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
	defer s.release()
	detail := &routing.InvocationDetail{ID: id, Row: &recordv1.Invocation{}, After: after, Completions: map[uint32]*recordv1.Completion{}}
	found, err := getMessage(s, table.Invocation(id), detail.Row)
	if err != nil {
		return nil, damaged(id, err)
	}
	if !found || detail.Row.GetPurging() {
		return nil, routing.Errorf(routing.CodeNotFound, "no invocation %s: it never existed, its retention is over, or it is a TRANSACTION that has not committed", id)
	}
	input := &recordv1.Entry{}
	start := detail.Row.GetJournalStart()
	detail.After = max(after, start)
	if found, err = getMessage(s, table.Journal(id, start), input); err != nil {
		return nil, damaged(id, fmt.Errorf("input: %w", err))
	}
	if found {
		detail.Row.Input = input.GetInput().GetValue()
	}
	if limit == 0 {
		return detail, nil
	}
	if err := readJournal(s, detail, pageLimit(limit)); err != nil {
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

func getMessage(s *snapshot, key []byte, into proto.Message) (found bool, err error) {
	value, found, err := s.Get(key)
	if err != nil || !found {
		return false, err
	}
	return true, proto.Unmarshal(value, into)
}

// readJournal adds the entries after detail.After, and their completions.
func readJournal(s *snapshot, detail *routing.InvocationDetail, limit int) error {
	if detail.After == ^uint32(0) {
		return nil
	}
	budget, last := pageBytes, detail.After
	var entryErr error
	// What is not in the store yet is collected for all of the range: not for more than a page.
	end := uint32(min(uint64(last)+uint64(limit)+2, math.MaxUint32))
	err := s.Scan(table.Journal(detail.ID, last+1), table.Journal(detail.ID, end), func(key, value []byte) bool {
		if len(detail.Journal) == limit || (budget <= 0 && len(detail.Journal) > 0) {
			detail.More = true
			return false
		}
		index, err := table.ParseEntry(key)
		if err == nil && index != last+1 {
			err = fmt.Errorf("entry %d is missing from its journal", last+1)
		}
		entry := &recordv1.Entry{}
		if err == nil {
			err = proto.Unmarshal(value, entry)
		}
		if err != nil {
			entryErr = fmt.Errorf("journal entry after %d: %w", last, err)
			return false
		}
		detail.Journal = append(detail.Journal, entry)
		last = index
		budget -= len(value)
		return true
	})
	if err == nil {
		err = entryErr
	}
	if err != nil || len(detail.Journal) == 0 {
		return err
	}
	// Completions have their own budget; an entry whose completion is beyond it goes to the
	// next page, for without it the entry would look pending.
	budget = pageBytes
	lower, upper := table.Completion(detail.ID, detail.After+1), append(table.Completion(detail.ID, last), 0)
	err = s.Scan(lower, upper, func(key, value []byte) bool {
		index, err := table.ParseEntry(key)
		completion := &recordv1.Completion{}
		if err == nil {
			err = proto.Unmarshal(value, completion)
		}
		if err != nil {
			entryErr = fmt.Errorf("completion of an entry after %d: %w", detail.After, err)
			return false
		}
		if budget <= 0 && index > detail.After+1 {
			detail.Journal, detail.More = detail.Journal[:index-detail.After-1], true
			return false
		}
		budget -= len(value)
		detail.Completions[index] = completion
		return true
	})
	if err == nil {
		err = entryErr
	}
	return err
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
	defer s.release()
	state := &routing.ObjectState{Tables: map[string]*routing.Table{}}
	if state.State, state.Has, err = s.Get(table.State(o)); err != nil {
		return nil, damaged(o, err)
	}
	read := tableReader{s: s, object: o, limit: pageLimit(query.Limit), budget: pageBytes}
	if query.Table != "" {
		page, err := read.page(query.Table, query.From)
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
		name, ok, err := read.nextTable(from)
		if err != nil {
			return nil, damaged(o, err)
		}
		if !ok {
			break
		}
		if state.Tables[name], err = read.page(name, ""); err != nil {
			return nil, damaged(o, err)
		}
		from = table.Successor(table.Rows(o, name))
	}
	return state, nil
}

// tableReader reads rows of one object's tables.
type tableReader struct {
	s      *snapshot
	object invocation.Object
	limit  int
	// budget of bytes over all pages.
	budget int
}

// nextTable is the table of the first row at or after a key.
func (t *tableReader) nextTable(from []byte) (name string, ok bool, err error) {
	var parseErr error
	err = t.s.Scan(from, table.Successor(table.RowsOfObject(t.object)), func(key, _ []byte) bool {
		name, _, parseErr = table.ParseRow(t.object, key)
		ok = parseErr == nil
		return false
	})
	if err == nil {
		err = parseErr
	}
	return name, ok, err
}

func (t *tableReader) page(name, from string) (*routing.Table, error) {
	page := &routing.Table{}
	count, _, err := t.s.Get(table.RowCount(t.object, name))
	if err == nil {
		page.Size, err = table.ParseNumber(count)
	}
	if err != nil {
		return nil, fmt.Errorf("number of rows of table %q: %w", name, err)
	}
	prefix := table.Rows(t.object, name)
	err = t.s.Scan(table.Row(t.object, name, from), table.Successor(prefix), func(key, value []byte) bool {
		if len(page.Rows) == t.limit || (t.budget <= 0 && len(page.Rows) > 0) {
			page.More = true
			return false
		}
		t.budget -= len(key) + len(value)
		page.Rows = append(page.Rows, routing.TableRow{Key: string(key[len(prefix):]), Value: append([]byte(nil), value...)})
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("table %q: %w", name, err)
	}
	return page, nil
}
