package inprocess

import (
	"context"
	"sync"
	"time"
)

// lifetime is the context of an attempt. Most handlers of a TRANSACTION never ask for Done or a
// value, so the cancellable context behind it is made when they do.
type lifetime struct {
	parent   context.Context
	deadline time.Time // of the invocation; zero: none

	mu struct {
		sync.Mutex
		inner context.Context
		stop  context.CancelCauseFunc
		timed context.CancelFunc
		cause error // set once the attempt is over
	}
}

func (l *lifetime) ensure() context.Context {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.inner != nil {
		return l.mu.inner
	}
	parent := l.parent
	if !l.deadline.IsZero() {
		parent, l.mu.timed = context.WithDeadline(parent, l.deadline)
	}
	l.mu.inner, l.mu.stop = context.WithCancelCause(parent)
	if l.mu.cause != nil {
		l.mu.stop(l.mu.cause)
	}
	return l.mu.inner
}

// end closes Done: the attempt is over.
func (l *lifetime) end(cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.cause != nil {
		return
	}
	l.mu.cause = cause
	if l.mu.inner != nil {
		l.mu.stop(cause)
		if l.mu.timed != nil {
			l.mu.timed()
		}
	}
}

// endedBy reports whether cause is what ended it.
func (l *lifetime) endedBy(cause error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.cause == cause
}

func (l *lifetime) Deadline() (time.Time, bool) {
	if !l.deadline.IsZero() {
		return l.deadline, true
	}
	return l.parent.Deadline()
}

func (l *lifetime) Done() <-chan struct{} { return l.ensure().Done() }
func (l *lifetime) Err() error            { return l.ensure().Err() }
func (l *lifetime) Value(key any) any     { return l.ensure().Value(key) }
