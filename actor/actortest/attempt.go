package actortest

import (
	"context"
	"fmt"
	"sync"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
	"github.com/perdure/perdure/internal/invoker/inprocess"
	"github.com/perdure/perdure/internal/journal"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// stage is the invoker that partitions see: what they tell an attempt, and what it tells them,
// become moves.
type stage struct {
	node   *Node
	runner *inprocess.Invoker

	mu struct {
		sync.Mutex
		started map[invocation.ID]int
	}
}

// Start implements invoker.Invoker.
func (s *stage) Start(asked *invoker.Attempt) invoker.Running {
	s.mu.Lock()
	s.mu.started[asked.ID]++
	// Attempt numbers repeat when a leader is lost before it wrote one down.
	name := fmt.Sprintf("attempt %d at %s", s.mu.started[asked.ID], asked.Target)
	lane := fmt.Sprintf("%s %d", asked.ID, s.mu.started[asked.ID])
	s.mu.Unlock()
	a := &attempt{node: s.node, name: name, lane: lane, host: asked.Host}
	own := *asked
	own.Host = a
	s.node.agenda.post(&move{kind: kindStart, lane: lane + " start", text: name + " starts", of: a, do: func() {
		s.node.attemptStarts(asked, lane)
		a.begin(s.runner.Start(&own))
	}})
	return a
}

// Read implements invoker.Invoker.
func (s *stage) Read(ctx context.Context, read *invoker.Read) *recordv1.Result {
	return s.runner.Read(ctx, read)
}

// attempt stands between a partition and an attempt: it is invoker.Running for the one and
// invoker.Host for the other.
type attempt struct {
	node       *Node
	name, lane string
	host       invoker.Host

	mu struct {
		sync.Mutex
		running invoker.Running // nil before it has started
		aborted bool
		grants  int
	}
}

func (a *attempt) begin(running invoker.Running) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mu.running = running
}

func (a *attempt) isStarted() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mu.running != nil
}

func (a *attempt) isAborted() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mu.aborted
}

// Notify implements invoker.Running.
func (a *attempt) Notify(index uint32, completion *recordv1.Completion) {
	a.node.agenda.post(&move{
		kind: kindCompletion, lane: fmt.Sprintf("%s completion %d", a.lane, index), of: a,
		text: fmt.Sprintf("%s hears that entry %d completed", a.name, index),
		do:   func() { a.mu.running.Notify(index, completion) },
	})
}

// Cancel implements invoker.Running.
func (a *attempt) Cancel() {
	a.node.agenda.post(&move{
		kind: kindCompletion, lane: a.lane + " cancel", of: a, text: a.name + " hears of the cancel",
		do: func() { a.mu.running.Cancel() },
	})
}

// Abort implements invoker.Running. It is no move: an attempt dies with what it has not said yet.
func (a *attempt) Abort(cause error) {
	a.mu.Lock()
	a.mu.aborted = true
	running := a.mu.running
	a.mu.Unlock()
	if running != nil {
		running.Abort(cause)
	}
}

// say is a move by which the attempt tells its partition something.
func (a *attempt) say(text string, do func()) {
	a.node.agenda.post(&move{kind: kindSay, lane: a.lane + " says", of: a, text: a.name + text, do: do})
}

// Append implements invoker.Host.
func (a *attempt) Append(own *invoker.Attempt, index uint32, entry *recordv1.Entry) {
	if sleep := entry.GetSleep(); sleep != nil {
		a.node.sleeps.add(sleep.GetUntil())
	}
	a.say(fmt.Sprintf(" records entry %d: %s", index, journal.Describe(entry)), func() { a.host.Append(own, index, entry) })
}

// Call implements invoker.Host.
func (a *attempt) Call(own *invoker.Attempt, index uint32, invoke *recordv1.Invoke) {
	target := invoke.GetTarget()
	a.say(fmt.Sprintf(" calls %s/%s/%s", target.GetService(), target.GetKey(), target.GetHandler()), func() { a.host.Call(own, index, invoke) })
}

// Journal implements invoker.Host. What is read is no move: nobody else sees it.
func (a *attempt) Journal(of *invoker.Attempt) invoker.Journal { return a.host.Journal(of) }

// AwaitDurable implements invoker.Host.
func (a *attempt) AwaitDurable(own *invoker.Attempt, granted func()) {
	a.mu.Lock()
	a.mu.grants++
	lane := fmt.Sprintf("%s run %d", a.lane, a.mu.grants)
	a.mu.Unlock()
	a.say(" waits for the disk", func() {
		a.host.AwaitDurable(own, func() {
			a.node.agenda.post(&move{kind: kindRun, lane: lane, of: a, text: a.name + " goes on", do: granted})
		})
	})
}

// Retry implements invoker.Host.
func (a *attempt) Retry(own *invoker.Attempt, index uint32, tries *recordv1.RunTries) {
	a.node.sleeps.add(tries.GetNextAt())
	a.say(fmt.Sprintf(" tries run %d again", index), func() { a.host.Retry(own, index, tries) })
}

// Complete implements invoker.Host.
func (a *attempt) Complete(own *invoker.Attempt, index uint32, result *recordv1.Result) {
	a.say(fmt.Sprintf(" records what entry %d returned", index), func() { a.host.Complete(own, index, result) })
}

// Part implements invoker.Host.
func (a *attempt) Part(own *invoker.Attempt, index, number uint32, part []byte) {
	a.say(fmt.Sprintf(" records part %d of what entry %d returned", number, index), func() { a.host.Part(own, index, number, part) })
}

// CompleteParts implements invoker.Host.
func (a *attempt) CompleteParts(own *invoker.Attempt, index uint32, parts *recordv1.Parts) {
	a.say(fmt.Sprintf(" records that entry %d returned %d parts", index, parts.GetCount()), func() { a.host.CompleteParts(own, index, parts) })
}

// Finish implements invoker.Host.
func (a *attempt) Finish(own *invoker.Attempt, outcome *invoker.Outcome) {
	text := " ends"
	switch {
	case outcome.Suspended:
		text = " suspends"
	case outcome.Retry != nil:
		text = " fails: " + outcome.Retry.GetMessage()
	case outcome.Result.GetError() != nil:
		text = " ends with " + outcome.Result.GetError().GetMessage()
	}
	if outcome.Divergence != nil { // once for each invocation, which is tried again and again
		a.node.copies.once("diverged "+own.ID.String(), "a handler is not deterministic: "+outcome.Retry.GetMessage())
	}
	a.say(text, func() { a.host.Finish(own, outcome) })
}
