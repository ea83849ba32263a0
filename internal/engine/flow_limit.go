package engine

import (
	"github.com/perdure/perdure/internal/limit/owner"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

// PermitGranted says, for the metrics, that an invocation has a permit of a limit.
type PermitGranted struct {
	Limit string
	// Waited is in milliseconds.
	Waited int64
}

// PermitRefused says, for the metrics, that too many wait for a limit.
type PermitRefused struct{ Limit string }

// Gated is true: it has begun only then.
func (*PermitGranted) Gated() bool { return true }

// Gated is true.
func (*PermitRefused) Gated() bool { return true }

// flowHost is the engine as the limits of its partition see it, and what asks for permits.
type flowHost struct{ *Engine }

func (g flowHost) Touch()                             { g.changed = true }
func (g flowHost) Sequence() uint64                   { return g.nextSequence() }
func (g flowHost) Arm(timer table.Timer)              { g.armTimer(timer) }
func (g flowHost) Granted(limit string, waited int64) { g.effect(&PermitGranted{limit, waited}) }
func (g flowHost) Refused(limit string)               { g.effect(&PermitRefused{limit}) }

// Send implements asker.Host.
func (g flowHost) Send(to uint32, message *recordv1.Message) error { return g.send(to, message) }

// Answer takes an answer to whoever asked: once the event in progress is evaluated, if that is
// here.
func (g flowHost) Answer(to uint32, p *recordv1.Permit) error {
	if to == g.config.Partition {
		g.permits = append(g.permits, p)
		return nil
	}
	return g.send(to, &recordv1.Message{Message: &recordv1.Message_Permit{Permit: p}})
}

// asked takes an ask of another partition.
func (e *Engine) asked(a *recordv1.Acquire, from uint32, now int64) error {
	p, err := e.limits.Acquire(a, from, now)
	if err != nil || p.Permission == recordv1.Permission_PERMISSION_WAITS && !a.Tell {
		return err
	}
	return flowHost{e}.Answer(from, p)
}

// Limits are those that this partition owns, to look at between two events.
func (e *Engine) Limits() *owner.Limits { return e.limits }
