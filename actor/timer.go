package actor

import (
	"context"
	"time"
)

// Sleep waits, durably: the time goes on while the node is down.
func Sleep(ctx context.Context, wait time.Duration) error {
	_, err := After(ctx, wait).Await(ctx)
	return err
}

// Timer is a durable timer, made by [After]. It is sealed.
type Timer interface {
	Future[time.Time]
	// Stop ends the timer: a wait for it ends with an error of code canceled, unless it has fired
	// before. Nothing is left of a timer that was stopped, while one that is merely forgotten
	// fires for nobody. Stopping twice, or after it has fired, changes nothing.
	Stop(ctx context.Context) error
}

type timer struct {
	Future[time.Time]
	runtime Runtime
	index   uint32
}

func (t *timer) Stop(ctx context.Context) error {
	runtime, err := runtimeOf(ctx, "Stop of a timer")
	switch {
	case err != nil:
		return err
	case t.runtime == nil: // refused when it was made; Await says why
		return nil
	case runtime != t.runtime:
		return Errorf(FailedPrecondition, "Stop of a timer that another handler has made")
	}
	return t.runtime.StopTimer(ctx, t.index)
}

// After completes with the instant it was set for once wait has passed, durably.
func After(ctx context.Context, wait time.Duration) Timer {
	runtime, err := runtimeOf(ctx, "Sleep")
	if err != nil {
		return &timer{Future: failedFuture[time.Time]{err}}
	}
	index, until, err := runtime.Sleep(ctx, wait)
	if err != nil {
		return &timer{Future: failedFuture[time.Time]{err}}
	}
	return &timer{&stepFuture[time.Time]{runtime, index, func([]byte) (time.Time, error) { return until, nil }}, runtime, index}
}
