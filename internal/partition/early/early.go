// Package early deals with events that come to a partition which nobody leads here: those that somebody waits
// for are refused, and what other partitions say is kept for a leadership that is about to begin.
//
// A node is known to have been elected before its leadership begins, and what other partitions sent to the
// leader before it they send again as soon as they know. Lost here, it would be sent once more after a
// second, and a transaction would wait for so long.
package early

import (
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/engine"
)

// What a Queue keeps at most; more is lost, as all of it was before.
const (
	maxEvents = 4096
	maxBytes  = 4 << 20
)

// Queue keeps what other partitions have said. It belongs to the partition's goroutine; its zero value is
// empty.
type Queue struct {
	term   uint64
	events []engine.Event
	bytes  int
}

// Keep keeps an event for the leadership of a term, in place of those for another one. It drops an event that
// does not come from another partition, and those that are too many.
func (q *Queue) Keep(term uint64, event engine.Event) {
	bytes := 0
	switch ev := event.(type) {
	case *engine.Deliver:
		bytes = proto.Size(ev.Message)
	case *engine.Told:
		bytes = proto.Size(ev.Peer)
	case *engine.Acked:
	default:
		return
	}
	if q.term != term {
		*q = Queue{term: term}
	}
	if len(q.events) < maxEvents && q.bytes+bytes <= maxBytes {
		q.events, q.bytes = append(q.events, event), q.bytes+bytes
	}
}

// Take is what was kept for the leadership of a term, which is forgotten with all the rest.
func (q *Queue) Take(term uint64) []engine.Event {
	events := q.events
	if q.term != term {
		events = nil
	}
	*q = Queue{}
	return events
}

// Token is that of who waits for an event's answer, or 0.
func Token(event engine.Event) engine.Token {
	switch ev := event.(type) {
	case *engine.Invoke:
		return ev.Token
	case *engine.Attach:
		return ev.Token
	case *engine.Cancel:
		return ev.Token
	case *engine.Pause:
		return ev.Token
	case *engine.Resume:
		return ev.Token
	case *engine.Purge:
		return ev.Token
	case *engine.RestartAsNew:
		return ev.Token
	case *engine.CompleteAwakeable:
		return ev.Token
	case *engine.CompletePromise:
		return ev.Token
	case *engine.ChangeSchedule:
		return ev.Token
	}
	return 0
}
