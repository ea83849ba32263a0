package inprocess

import (
	"sync/atomic"

	"github.com/perdure/perdure/actor"
)

// guard finds steps made from two goroutines at once. It is no lock: who comes second has made a
// mistake and is told so.
type guard struct {
	taken atomic.Bool
	owner uintptr // the handler's goroutine
}

func (g *guard) take() bool { return g.taken.CompareAndSwap(false, true) }
func (g *guard) release()   { g.taken.Store(false) }

func errConcurrent(step string) error {
	return actor.Errorf(actor.FailedPrecondition, "%s while another goroutine is in a step of the same handler: steps belong to the handler's goroutine; for work side by side use futures and RunAsync", step)
}

func errForeign(step string) error {
	return actor.Errorf(actor.FailedPrecondition, "%s from another goroutine than the handler's: steps must be made in one order to be replayed; for work side by side use futures and RunAsync", step)
}

func errOver(step string) error {
	return actor.Errorf(actor.FailedPrecondition, "%s after the attempt was over: the handler's ctx must not outlive the handler", step)
}

func errTable(table string, err error) error {
	return actor.Errorf(actor.DataLoss, "table %s cannot be read: %w", table, err)
}

// checkSend refuses a send of which nothing could come.
func checkSend(call actor.CallRequest) error {
	switch {
	case call.Method.Mode == actor.ModeRead:
		return actor.Errorf(actor.InvalidArgument, "%s is a READ handler: sending to it has no effect; call it", call.Method.FullName())
	case call.Method.Mode == actor.ModeSignal && call.Delay > 0:
		return actor.Errorf(actor.InvalidArgument, "%s is a SIGNAL and can't be delayed: sleep, then send it", call.Method.FullName())
	}
	return nil
}

func errStepTimeout(m *method) error {
	return actor.Errorf(actor.DeadlineExceeded, "%s made no step for %s, its step_timeout", m.desc.FullName(), m.stepTimeout)
}
