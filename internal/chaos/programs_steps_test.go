package chaos

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/perdure/perdure/actor"
	chaosv1 "github.com/perdure/perdure/internal/chaos/gen/chaos/v1"
	programs "github.com/perdure/perdure/internal/chaos/gen/chaos/v1/chaosv1perdure"
)

// version adds the amount in one of two ways, which differ in their steps. Every attempt's code has
// a variant more than that of the one before, and the steps fit the journal only if the invocation
// stays with the variant that it came here with.
func (p *program) version(at int, step *chaosv1.VersionStep) error {
	variant := actor.Unversioned
	if !step.Later || p.ctx.Attempt() > 1 {
		variant = actor.Version(p.ctx, fmt.Sprint("change ", at), actor.Unversioned, p.ctx.Attempt())
	}
	if variant%2 == 0 {
		p.add(step.Amount)
		return nil
	}
	value, err := actor.Run(p.ctx, fmt.Sprint("variant ", variant), func(context.Context) (int64, error) { return step.Amount, nil })
	if err != nil {
		return unplanned("version", err)
	}
	p.add(value)
	return nil
}

// attach sends a program and waits for it by its id.
func (p *program) attach(step *chaosv1.AttachProgram) error {
	ctx, call := p.ctx, &chaosv1.CallProgram{Key: step.Key, Steps: step.Steps}
	send := func(options ...actor.SendOption) (*actor.Invocation[*chaosv1.InterpretResponse], error) {
		return programs.Interpreter(ctx, step.Key).InterpretSend(ctx, &chaosv1.InterpretRequest{Steps: step.Steps}, options...)
	}
	if step.IdempotencyKey == "" {
		sent, err := send()
		if err != nil {
			return unplanned("send", err)
		}
		response, err := sent.Attach(ctx)
		return checkCall(call, response, err)
	}
	for range 2 {
		if _, err := send(actor.IdempotencyKey(step.IdempotencyKey)); err != nil {
			return unplanned("send with an idempotency key", err)
		}
	}
	sent := actor.Attach[*chaosv1.InterpretResponse](ctx, actor.IDOf(programs.InterpreterServiceName, step.Key, "Interpret", step.IdempotencyKey))
	if response, done, err := sent.Peek(ctx); done {
		if err := checkCall(call, response, err); err != nil {
			return err
		}
	} else if err != nil {
		return unplanned("peek", err)
	}
	response, err := sent.Attach(ctx)
	if err := checkCall(call, response, err); err != nil {
		return err
	}
	response, done, err := sent.Peek(ctx)
	if !done {
		return unplanned("peek at what has ended", err)
	}
	return checkCall(call, response, err)
}

// never is a timeout that no program reaches.
const never = time.Hour

// combine makes calls and waits for a combination of them.
func (p *program) combine(step *chaosv1.Combine) error {
	ctx, futures := p.ctx, p.begin(step.Calls)
	switch step.Combination {
	case chaosv1.Combination_COMBINATION_ANY:
		response, err := actor.Any(ctx, futures...)
		return checkAny(step.Calls, response, err)
	case chaosv1.Combination_COMBINATION_SETTLED:
		several := make([]actor.AnyFuture, len(futures))
		for i, future := range futures {
			several[i] = future
		}
		if err := actor.Settled(ctx, several...); err != nil {
			return unplanned("settled", err)
		}
		return p.checkCalls(step.Calls, futures)
	case chaosv1.Combination_COMBINATION_ALL:
		_, err := actor.WithTimeout(ctx, actor.AllAsync(futures...), never).Await(ctx)
		if slices.ContainsFunc(step.Calls, failsAsPlanned) {
			if actor.CodeOf(err) != actor.Aborted {
				return unplanned("all, of which one fails", err)
			}
			return nil
		}
		if err != nil {
			return unplanned("all", err)
		}
		return p.checkCalls(step.Calls, futures)
	case chaosv1.Combination_COMBINATION_NESTED:
		first := actor.WithTimeout(ctx, actor.AnyAsync(futures...), never)
		lost := actor.WithTimeout(ctx, actor.Future[int64](actor.NewAwakeable[int64](ctx)), time.Duration(step.TimeoutMs)*time.Millisecond)
		if err := actor.Settled(ctx, first, lost); err != nil {
			return unplanned("settled", err)
		}
		if _, err := lost.Await(ctx); actor.CodeOf(err) != actor.DeadlineExceeded {
			return unplanned("what never comes", err)
		}
		p.add(1)
		response, err := first.Await(ctx)
		return checkAny(step.Calls, response, err)
	}
	return actor.Errorf(actor.Unimplemented, "combination %s", step.Combination)
}

func failsAsPlanned(call *chaosv1.CallProgram) bool {
	_, fails := ownAdds(call.Steps)
	return fails
}

// checkAny compares a result with those that calls can have: that of any which succeeds.
func checkAny(calls []*chaosv1.CallProgram, response *chaosv1.InterpretResponse, err error) error {
	var possible []int64
	for _, call := range calls {
		if added, fails := ownAdds(call.Steps); !fails {
			possible = append(possible, added)
		}
	}
	switch {
	case len(possible) == 0 && actor.CodeOf(err) == actor.Aborted:
		return nil
	case len(possible) == 0 || err != nil:
		return unplanned("any", err)
	case !slices.Contains(possible, response.Added):
		return actor.Errorf(actor.Internal, "any of %v added %d", possible, response.Added)
	}
	return nil
}
