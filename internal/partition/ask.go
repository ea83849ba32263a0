package partition

import (
	"context"

	"github.com/perdure/perdure/internal/engine"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
)

// reply is what a token's owner hears.
type reply struct {
	result  *recordv1.Result
	existed bool
	refused bool
	err     error
}

// refusal is the engine's refusal as an error, or nil.
func (r reply) refusal() error {
	if !r.refused {
		return nil
	}
	failed := routing.Errorf(routing.Code(r.result.GetError().GetCode()), "%s", r.result.GetError().GetMessage())
	failed.Details = r.result.GetError().GetDetails()
	return failed
}

// resultOr is the result, or why there is none.
func (r reply) resultOr(err error) (*recordv1.Result, error) {
	if err == nil {
		err = r.refusal()
	}
	if err != nil {
		return nil, err
	}
	return r.result, nil
}

// ask posts an event with a token and waits for its answer. If ctx ends first, the engine is
// told that nobody waits for id any more.
func (p *Partition) ask(ctx context.Context, event func(engine.Token) engine.Event, id invocation.ID) (reply, error) {
	if err := ctx.Err(); err != nil {
		return reply{}, err
	}
	answer := make(chan reply, 1)
	p.waiters.Lock()
	p.waiters.last++
	token := p.waiters.last
	p.waiters.channels[token] = answer
	p.waiters.Unlock()
	// After the channel is there: a leadership that ends from here on answers it.
	if p.leading.Load() == nil {
		p.answer(token, reply{err: p.elsewhere(nil)})
		r := <-answer
		return r, r.err
	}
	p.postEvent(event(token))
	select {
	case r := <-answer:
		return r, r.err
	case <-ctx.Done():
	}
	p.waiters.Lock()
	delete(p.waiters.channels, token)
	p.waiters.Unlock()
	if !id.IsZero() {
		p.postEvent(&engine.Hangup{ID: id, Token: token})
	}
	return reply{}, ctx.Err()
}

// answer gives a token's owner its reply, if it still waits.
func (p *Partition) answer(token engine.Token, r reply) {
	p.waiters.Lock()
	ch := p.waiters.channels[token]
	delete(p.waiters.channels, token)
	p.waiters.Unlock()
	if ch != nil {
		ch <- r
	}
}
