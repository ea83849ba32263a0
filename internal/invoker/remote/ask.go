package remote

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/perdure/perdure/internal/invoker"
	invokerv1 "github.com/perdure/perdure/internal/invoker/v1"
	"github.com/perdure/perdure/internal/journal"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/stress"
)

// source is what the node that runs an attempt or a READ handler may ask the leader for.
type source struct {
	tables   invoker.Tables
	promise  func(name string) (*recordv1.Result, error)
	journal  func(*invoker.Attempt) invoker.Journal
	attempt  *invoker.Attempt
	complete func(ctx context.Context, entry *recordv1.Entry) error
	call     func(ctx context.Context, invoke *recordv1.Invoke) (*recordv1.Result, error)
}

// pageRows and pageBytes bound what one answer has of a table; one row may be larger.
var (
	pageRows  = stress.Few(1000, 1)
	pageBytes = stress.Few(1<<20, 1)
)

func (inv *Invoker) serveAsk(ctx context.Context, ask *invokerv1.Ask) *invokerv1.Response {
	inv.mu.Lock()
	from, ok := inv.mu.asked[ask.GetKey()]
	inv.mu.Unlock()
	if !ok {
		return &invokerv1.Response{Failure: &invokerv1.Failure{Message: "the attempt was superseded"}}
	}
	response := &invokerv1.Response{}
	if err := from.answer(ctx, ask, response); errors.Is(err, errOlder) {
		return nil
	} else if err != nil {
		return &invokerv1.Response{Failure: failureMessage(err)}
	}
	return response
}

func (s source) answer(ctx context.Context, ask *invokerv1.Ask, r *invokerv1.Response) (err error) {
	switch asked := ask.GetAsk().(type) {
	case *invokerv1.Ask_Get:
		r.Value, r.Found, err = s.tables.Get(asked.Get.GetTable(), asked.Get.GetKey())
	case *invokerv1.Ask_Len:
		var count int
		count, err = s.tables.Len(asked.Len)
		r.Count = int64(count)
	case *invokerv1.Ask_Scan:
		bytes := 0
		err = s.tables.Scan(asked.Scan.GetTable(), asked.Scan.GetKey(), func(key string, value []byte) bool {
			if len(r.Rows) >= pageRows || bytes >= pageBytes {
				r.More = true
				return false
			}
			bytes += len(key) + len(value)
			r.Rows = append(r.Rows, &invokerv1.Row{Key: key, Value: value})
			return true
		})
	case *invokerv1.Ask_Promise:
		if s.promise == nil {
			return fmt.Errorf("promise %s is asked for by what is no READ handler", asked.Promise)
		}
		r.Result, err = s.promise(asked.Promise)
	case *invokerv1.Ask_Complete:
		if s.complete == nil {
			return fmt.Errorf("only a READ handler completes by a call")
		}
		err = s.complete(ctx, asked.Complete)
	case *invokerv1.Ask_Call:
		if s.call == nil {
			return fmt.Errorf("only a READ handler calls so")
		}
		r.Result, err = s.call(ctx, asked.Call)
	default:
		return s.answerJournal(ask, r)
	}
	return err
}

func (s source) answerJournal(ask *invokerv1.Ask, r *invokerv1.Response) (err error) {
	if s.journal == nil {
		return fmt.Errorf("a READ handler has no journal")
	}
	recorded := s.journal(s.attempt)
	switch asked := ask.GetAsk().(type) {
	case *invokerv1.Ask_Entries:
		r.Entries, err = recorded.Entries(asked.Entries)
	case *invokerv1.Ask_Completions:
		var found map[uint32]*recordv1.Completion
		found, r.Known, err = recorded.Completions(asked.Completions.GetFirst(), asked.Completions.GetLast())
		for _, completion := range found {
			r.Completions = append(r.Completions, completion)
		}
	case *invokerv1.Ask_Completion:
		var found *recordv1.Completion
		if found, err = recorded.Completion(asked.Completion); found.GetParts() != nil && !ask.GetApart() {
			found, err = whole(recorded, found)
		}
		if found != nil {
			r.Completions = append(r.Completions, found)
		}
	case *invokerv1.Ask_Parts:
		r.Parts, err = recorded.Parts(asked.Parts.GetEntry(), asked.Parts.GetFirst())
	default:
		return fmt.Errorf("this build does not know what is asked for")
	}
	return err
}

// errOlder is of what the program of the node that asks can't take. Without an answer that node gives the
// attempt back, which begins again elsewhere, or there once it has another program; with a failure, the
// handler would use up its attempts.
var errOlder = errors.New("the program of the node that asks is too old for the answer")

// whole is for a node whose program does not know that it can ask for parts.
func whole(from invoker.Journal, c *recordv1.Completion) (*recordv1.Completion, error) {
	if bytes := c.GetParts().GetBytes(); bytes > maxMessageBytes {
		return nil, fmt.Errorf("the result of entry %d has %d bytes, more than %d: %w", c.GetEntry(), bytes, maxMessageBytes, errOlder)
	}
	value, err := journal.Join(c.GetParts(), func(first uint32) ([][]byte, error) { return from.Parts(c.GetEntry(), first) })
	return &recordv1.Completion{Entry: c.GetEntry(), Result: &recordv1.Result{Value: value}, At: c.GetAt()}, err
}

// asker asks a leader: it is an attempt's Tables and Journal, and a READ handler's.
type asker struct {
	invoker *Invoker
	node    uint64
	key     uint64
	ctx     context.Context
	before  func(context.Context) error // nil: nothing was said that has to arrive before
	lost    func(cause error)           // is told that what is read can't be asked for
}

var (
	_ invoker.Tables  = (*asker)(nil)
	_ invoker.Journal = (*asker)(nil)
)

func (a *asker) ask(ctx context.Context, ask *invokerv1.Ask) (*invokerv1.Response, error) {
	if a.before != nil {
		if err := a.before(ctx); err != nil {
			return nil, err
		}
	}
	ask.Key = a.key
	response, err := a.invoker.ask(ctx, a.node, &invokerv1.Request{Request: &invokerv1.Request_Ask{Ask: ask}})
	if err != nil {
		return nil, unanswered{err}
	}
	return response, failureOf(response.GetFailure())
}

// unanswered is the error of what was asked and may not have arrived.
type unanswered struct{ error }

func (u unanswered) Unwrap() error { return u.error }

const askPause = 100 * time.Millisecond

// read asks for what can be asked for as often as need be: until there is an answer, for as long as
// one may take. A call can fail while the session goes on.
func (a *asker) read(ask *invokerv1.Ask) (*invokerv1.Response, error) {
	for until := time.Now().Add(a.invoker.config.Patience); ; {
		response, err := a.ask(a.ctx, ask)
		if _, ok := errors.AsType[unanswered](err); !ok {
			return response, err
		}
		if !time.Now().Before(until) {
			a.lost(err)
			return nil, err
		}
		select {
		case <-time.After(askPause):
		case <-a.ctx.Done():
			return nil, context.Cause(a.ctx)
		}
	}
}

// Get implements invoker.Tables.
func (a *asker) Get(table, key string) ([]byte, bool, error) {
	r, err := a.read(&invokerv1.Ask{Ask: &invokerv1.Ask_Get{Get: &invokerv1.TableKey{Table: table, Key: key}}})
	return r.GetValue(), r.GetFound(), err
}

// Len implements invoker.Tables.
func (a *asker) Len(table string) (int, error) {
	r, err := a.read(&invokerv1.Ask{Ask: &invokerv1.Ask_Len{Len: table}})
	return int(r.GetCount()), err
}

// Scan implements invoker.Tables.
func (a *asker) Scan(table, from string, fn func(key string, value []byte) bool) error {
	for {
		r, err := a.read(&invokerv1.Ask{Ask: &invokerv1.Ask_Scan{Scan: &invokerv1.TableKey{Table: table, Key: from}}})
		if err != nil {
			return err
		}
		for _, row := range r.GetRows() {
			if !fn(row.GetKey(), row.GetValue()) {
				return nil
			}
			from = row.GetKey() + "\x00" // the least key after it
		}
		if !r.GetMore() {
			return nil
		}
	}
}

// Entries implements invoker.Journal.
func (a *asker) Entries(index uint32) ([]*recordv1.Entry, error) {
	r, err := a.read(&invokerv1.Ask{Ask: &invokerv1.Ask_Entries{Entries: index}})
	return r.GetEntries(), err
}

// Completions implements invoker.Journal.
func (a *asker) Completions(first, last uint32) (map[uint32]*recordv1.Completion, uint32, error) {
	r, err := a.read(&invokerv1.Ask{Ask: &invokerv1.Ask_Completions{Completions: &invokerv1.Range{First: first, Last: last}}})
	if err != nil {
		return nil, 0, err
	}
	found := make(map[uint32]*recordv1.Completion, len(r.GetCompletions()))
	for _, completion := range r.GetCompletions() {
		found[completion.GetEntry()] = completion
	}
	return found, r.GetKnown(), nil
}

// Completion implements invoker.Journal.
func (a *asker) Completion(index uint32) (*recordv1.Completion, error) {
	r, err := a.read(&invokerv1.Ask{Apart: true, Ask: &invokerv1.Ask_Completion{Completion: index}})
	if err != nil || len(r.GetCompletions()) == 0 {
		return nil, err
	}
	return r.GetCompletions()[0], nil
}

// Parts implements invoker.Journal.
func (a *asker) Parts(index, first uint32) ([][]byte, error) {
	r, err := a.read(&invokerv1.Ask{Ask: &invokerv1.Ask_Parts{Parts: &invokerv1.PartsFrom{Entry: index, First: first}}})
	if err == nil || first > 0 || a.ctx.Err() != nil {
		return r.GetParts(), err
	}
	// A leader of an older version knows nothing of parts, and says the value.
	r, older := a.read(&invokerv1.Ask{Ask: &invokerv1.Ask_Completion{Completion: index}})
	if older != nil || len(r.GetCompletions()) == 0 {
		return nil, err
	}
	var parts [][]byte
	for _, part := range journal.Split(r.GetCompletions()[0].GetResult().GetValue()) {
		parts = append(parts, part)
	}
	return parts, nil
}

func (a *asker) promise(name string) (*recordv1.Result, error) {
	r, err := a.read(&invokerv1.Ask{Ask: &invokerv1.Ask_Promise{Promise: name}})
	return r.GetResult(), err
}

func (a *asker) complete(ctx context.Context, entry *recordv1.Entry) error {
	_, err := a.ask(ctx, &invokerv1.Ask{Ask: &invokerv1.Ask_Complete{Complete: entry}})
	return err
}

func (a *asker) call(ctx context.Context, invoke *recordv1.Invoke) (*recordv1.Result, error) {
	r, err := a.ask(ctx, &invokerv1.Ask{Ask: &invokerv1.Ask_Call{Call: invoke}})
	return r.GetResult(), err
}
