package remote

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/invoker"
	invokerv1 "github.com/perdure/perdure/internal/invoker/v1"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/telemetry"
)

// downlink is the leader's side of a session.
type downlink struct {
	*link
	invoker *Invoker
	// attempts by key, guarded by Invoker.mu.
	attempts map[uint64]*forwarded
}

var (
	_ invoker.Running  = (*forwarded)(nil)
	_ invoker.Unplaced = (*forwarded)(nil)
)

// forwarded is an attempt that another node runs, or will once one has its handlers.
type forwarded struct {
	invoker *Invoker
	attempt *invoker.Attempt

	mu struct {
		sync.Mutex
		link  *downlink // nil: no node runs it yet
		key   uint64
		early []*invokerv1.Message // said before there was a link
		ended bool
	}
}

// place gives the attempt to a node; it reports false if there is none now.
func (f *forwarded) place() bool {
	node, _ := f.invoker.choose(f.attempt.Target, f.attempt.Deployment)
	switch node {
	case 0:
		return false
	case f.invoker.config.Node: // it is the host by now: the next attempt will find that
		f.end(&invoker.Outcome{Lost: true})
		return true
	}
	start := attemptMessage(f.attempt)
	if bytes := proto.Size(start); bytes > maxMessageBytes {
		f.end(f.refusal(bytes))
		return true
	}
	key := f.invoker.offer(source{tables: f.attempt.Tables, promise: f.attempt.Promise, journal: f.attempt.Host.Journal, attempt: f.attempt})
	link := f.invoker.downTo(node, key, f)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.link, f.mu.key = link, key
	if link == nil || f.mu.ended {
		f.invoker.forget(f)
		return true
	}
	link.say(&invokerv1.Message{Key: key, Message: &invokerv1.Message_Start{Start: start}})
	for _, message := range f.mu.early {
		message.Key = key
		link.say(message)
	}
	f.mu.early = nil
	return true
}

// refusal is how an attempt ends that has too many bytes to be given to another node. What has a journal
// waits for an operator.
func (f *forwarded) refusal(bytes int) *invoker.Outcome {
	refused := tooLarge(fmt.Sprintf("what %s begins with (its request, state and what its transaction has written)", f.attempt.Target), bytes)
	if f.attempt.Mode.Journaled() {
		return &invoker.Outcome{Retry: refused, Pause: true}
	}
	return &invoker.Outcome{Result: &recordv1.Result{Error: refused}}
}

// end says how the attempt ended, unless it has or was aborted.
func (f *forwarded) end(outcome *invoker.Outcome) {
	if f.close() {
		f.attempt.Host.Finish(f.attempt, outcome)
	}
}

func (f *forwarded) close() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.ended {
		return false
	}
	f.mu.ended = true
	f.invoker.forget(f)
	return true
}

func (f *forwarded) say(message *invokerv1.Message) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.mu.ended:
	case f.mu.link == nil:
		f.mu.early = append(f.mu.early, message)
	default:
		message.Key = f.mu.key
		f.mu.link.say(message)
	}
}

// Waiting implements invoker.Unplaced.
func (f *forwarded) Waiting() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.link == nil && !f.mu.ended
}

// Notify implements invoker.Running.
func (f *forwarded) Notify(index uint32, completion *recordv1.Completion) {
	f.say(&invokerv1.Message{Index: index, Message: &invokerv1.Message_Notify{Notify: completion}})
}

// Cancel implements invoker.Running.
func (f *forwarded) Cancel() {
	f.say(&invokerv1.Message{Message: &invokerv1.Message_Cancel{Cancel: &invokerv1.Nothing{}}})
}

// Abort implements invoker.Running.
func (f *forwarded) Abort(cause error) {
	f.say(&invokerv1.Message{Message: &invokerv1.Message_Abort{Abort: cause.Error()}})
	f.close()
}

// heard acts on what the node that runs the attempt says.
func (f *forwarded) heard(l *downlink, message *invokerv1.Message) {
	host, a, index := f.attempt.Host, f.attempt, message.GetIndex()
	switch said := message.GetMessage().(type) {
	case *invokerv1.Message_Append:
		host.Append(a, index, said.Append)
	case *invokerv1.Message_Call:
		host.Call(a, index, said.Call)
	case *invokerv1.Message_Await:
		number := said.Await
		host.AwaitDurable(a, func() {
			f.say(&invokerv1.Message{Message: &invokerv1.Message_Granted{Granted: number}})
		})
	case *invokerv1.Message_Retry:
		host.Retry(a, index, said.Retry)
	case *invokerv1.Message_Complete:
		host.Complete(a, index, said.Complete)
	case *invokerv1.Message_Part:
		host.Part(a, index, said.Part.GetNumber(), said.Part.GetValue())
	case *invokerv1.Message_CompleteParts:
		host.CompleteParts(a, index, said.CompleteParts)
	case *invokerv1.Message_Finish:
		f.end(outcomeOf(said.Finish))
	case *invokerv1.Message_Lost:
		l.invoker.passOver(l.node)
		f.end(&invoker.Outcome{Lost: true})
	}
}

// downTo is the session with a node, in which key is f from now on. It is nil once closed.
func (inv *Invoker) downTo(node, key uint64, f *forwarded) *downlink {
	inv.mu.Lock()
	defer inv.mu.Unlock()
	if inv.mu.closed {
		return nil
	}
	d := inv.mu.down[node]
	if d == nil {
		d = &downlink{invoker: inv, attempts: map[uint64]*forwarded{}}
		d.link = newLink(inv.ctx, &link{
			node: node, session: rand.Uint64(), begins: true, beat: inv.config.Beat, patient: inv.config.Patience,
			call: func(ctx context.Context, batch *invokerv1.Batch) (*invokerv1.Response, error) {
				return inv.ask(ctx, node, &invokerv1.Request{Request: &invokerv1.Request_Down{Down: batch}})
			},
			busy: func() bool {
				inv.mu.Lock()
				defer inv.mu.Unlock()
				return len(d.attempts) > 0
			},
			lost: d.ended,
		})
		inv.mu.down[node] = d
		inv.running.Go(d.run)
	}
	d.attempts[key] = f
	return d
}

// ended has the partitions start again what the other node ran.
func (d *downlink) ended(cause error) {
	inv := d.invoker
	inv.mu.Lock()
	if inv.mu.down[d.node] == d {
		delete(inv.mu.down, d.node)
	}
	inv.mu.avoid[d.node] = time.Now().Add(inv.config.Avoid)
	lost := maps.Clone(d.attempts)
	closed := inv.mu.closed
	inv.mu.Unlock()
	if closed {
		return // the partitions have stepped down
	}
	if len(lost) > 0 {
		inv.config.Logger.Warn("a node that ran attempts is lost: they begin again", telemetry.KeyTo, fmt.Sprintf("%016x", d.node), telemetry.KeyError, cause)
	}
	for _, f := range lost {
		f.end(&invoker.Outcome{Lost: true})
	}
}

// forget lets go of an attempt, whose lock is held.
func (inv *Invoker) forget(f *forwarded) {
	inv.mu.Lock()
	defer inv.mu.Unlock()
	delete(inv.mu.waiting, f)
	delete(inv.mu.asked, f.mu.key)
	if f.mu.link != nil {
		delete(f.mu.link.attempts, f.mu.key)
	}
}

// serveUp takes what a node says of the attempts that it runs for this one.
func (inv *Invoker) serveUp(from uint64, batch *invokerv1.Batch) bool {
	inv.mu.Lock()
	d := inv.mu.down[from]
	inv.mu.Unlock()
	if d == nil || d.session != batch.GetSession() {
		return false
	}
	return d.take(batch, func(message *invokerv1.Message) {
		inv.mu.Lock()
		f := d.attempts[message.GetKey()]
		inv.mu.Unlock()
		if f != nil { // else it was superseded
			f.heard(d, message)
		}
	})
}
