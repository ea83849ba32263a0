package remote

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
	invokerv1 "github.com/perdure/perdure/internal/invoker/v1"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
)

// uplink is the side of a session that runs attempts.
type uplink struct {
	*link
	invoker *Invoker
	mu      struct {
		sync.Mutex
		attempts map[uint64]*hosted
	}
}

// hosted is an attempt that runs here for another node; it is the attempt's Host.
type hosted struct {
	link    *uplink
	key     uint64
	running invoker.Running // set and used while the link heeds a batch, and by ended
	mu      struct {
		sync.Mutex
		over    bool // it has finished or is given up: what it says counts no more
		awaits  uint64
		granted map[uint64]func()
	}
}

// serveDown takes what a leader says. A session that is not known begins with its first batch.
func (inv *Invoker) serveDown(from uint64, batch *invokerv1.Batch) bool {
	inv.mu.Lock()
	u := inv.mu.up[from]
	if u == nil || u.session != batch.GetSession() {
		if batch.GetSequence() != 1 || inv.mu.closed {
			inv.mu.Unlock()
			return false
		}
		if u != nil {
			u.stop(errors.New("the leader has begun another session"))
		}
		u = inv.upToLocked(from, batch.GetSession())
	}
	inv.mu.Unlock()
	return u.take(batch, u.heard)
}

func (inv *Invoker) upToLocked(node, session uint64) *uplink {
	u := &uplink{invoker: inv}
	u.mu.attempts = map[uint64]*hosted{}
	u.link = newLink(inv.ctx, &link{
		node: node, session: session, beat: inv.config.Beat, patient: inv.config.Patience,
		call: func(ctx context.Context, batch *invokerv1.Batch) (*invokerv1.Response, error) {
			return inv.ask(ctx, node, &invokerv1.Request{Request: &invokerv1.Request_Up{Up: batch}})
		},
		busy: func() bool {
			u.mu.Lock()
			defer u.mu.Unlock()
			return len(u.mu.attempts) > 0
		},
		lost: u.ended,
	})
	inv.mu.up[node] = u
	inv.running.Go(u.run)
	return u
}

// ended aborts what ran for a leader that is gone.
func (u *uplink) ended(cause error) {
	u.invoker.mu.Lock()
	if u.invoker.mu.up[u.node] == u {
		delete(u.invoker.mu.up, u.node)
	}
	u.invoker.mu.Unlock()
	u.heed.Lock() // a batch that is acted on may start more
	defer u.heed.Unlock()
	u.mu.Lock()
	running := maps.Clone(u.mu.attempts)
	clear(u.mu.attempts)
	u.mu.Unlock()
	for _, h := range running {
		h.running.Abort(cause)
	}
}

func (u *uplink) attempt(key uint64) *hosted {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.mu.attempts[key]
}

func (u *uplink) drop(key uint64) {
	u.mu.Lock()
	delete(u.mu.attempts, key)
	u.mu.Unlock()
}

func (u *uplink) heard(message *invokerv1.Message) {
	key := message.GetKey()
	if said, ok := message.GetMessage().(*invokerv1.Message_Start); ok {
		u.start(key, said.Start)
		return
	}
	h := u.attempt(key)
	if h == nil {
		return // it has finished
	}
	switch said := message.GetMessage().(type) {
	case *invokerv1.Message_Notify:
		h.running.Notify(message.GetIndex(), said.Notify)
	case *invokerv1.Message_Cancel:
		h.running.Cancel()
	case *invokerv1.Message_Abort:
		u.drop(key)
		h.running.Abort(errors.New(said.Abort))
	case *invokerv1.Message_Granted:
		h.mu.Lock()
		granted := h.mu.granted[said.Granted]
		delete(h.mu.granted, said.Granted)
		h.mu.Unlock()
		if granted != nil {
			granted()
		}
	}
}

func (u *uplink) start(key uint64, message *invokerv1.Attempt) {
	attempt, err := attemptOf(message)
	if err != nil || !u.invoker.config.Directory.Here(attempt.Target) || !u.invoker.config.Open() {
		u.say(&invokerv1.Message{Key: key, Message: &invokerv1.Message_Lost{Lost: &invokerv1.Nothing{}}})
		return
	}
	h := &hosted{link: u, key: key}
	h.mu.granted = map[uint64]func(){}
	reads := &asker{invoker: u.invoker, node: u.node, key: key, ctx: u.ctx, before: u.flush, lost: h.lose}
	attempt.Host, attempt.Tables = h, reads
	if attempt.Mode == invocation.ModeRead {
		attempt.Promise = reads.promise
	}
	u.mu.Lock()
	u.mu.attempts[key] = h
	u.mu.Unlock()
	h.running = u.invoker.config.Local.Start(attempt)
}

// maxMessageBytes bounds one message, so that a batch with it is one that other nodes take: a batch that
// is refused would end the session, and with it all other attempts, again and again.
const maxMessageBytes = 31<<20 - 64<<10

func tooLarge(what string, bytes int) *recordv1.Error {
	return &recordv1.Error{Code: uint32(routing.CodeResourceExhausted), Message: fmt.Sprintf(
		"%s has %d bytes, and what one node says to another has at most %d: split it over several steps or calls", what, bytes, maxMessageBytes)}
}

func (h *hosted) say(message *invokerv1.Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.over {
		return
	}
	if bytes := proto.Size(message); bytes > maxMessageBytes {
		refused := tooLarge("a step", bytes)
		h.giveUpLocked(&invokerv1.Message{Message: &invokerv1.Message_Finish{Finish: outcomeMessage(&invoker.Outcome{Result: &recordv1.Result{Error: refused}})}}, errors.New(refused.Message))
		return
	}
	message.Key = h.key
	h.link.say(message)
	if _, finished := message.GetMessage().(*invokerv1.Message_Finish); finished {
		h.mu.over = true
		h.link.drop(h.key)
	}
}

var errNotBegun = errors.New("it has not begun here")

// lose has the leader start the attempt again: what it must know can't be asked for, of which the handler
// would make an error that is kept.
func (h *hosted) lose(cause error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.mu.over {
		h.giveUpLocked(&invokerv1.Message{Message: &invokerv1.Message_Lost{Lost: &invokerv1.Nothing{}}}, cause)
	}
}

// giveUpLocked says the last of the attempt, which may be on this goroutine, in the middle of a step.
func (h *hosted) giveUpLocked(last *invokerv1.Message, cause error) {
	h.mu.over = true
	last.Key = h.key
	h.link.say(last)
	h.link.drop(h.key)
	go func() {
		h.link.heed.Lock()
		defer h.link.heed.Unlock()
		h.running.Abort(cause)
	}()
}

// Append implements invoker.Host.
func (h *hosted) Append(_ *invoker.Attempt, index uint32, entry *recordv1.Entry) {
	h.say(&invokerv1.Message{Index: index, Message: &invokerv1.Message_Append{Append: entry}})
}

// Call implements invoker.Host.
func (h *hosted) Call(_ *invoker.Attempt, index uint32, invoke *recordv1.Invoke) {
	h.say(&invokerv1.Message{Index: index, Message: &invokerv1.Message_Call{Call: invoke}})
}

// AwaitDurable implements invoker.Host.
func (h *hosted) AwaitDurable(_ *invoker.Attempt, granted func()) {
	if bugGrant {
		granted()
		return
	}
	h.mu.Lock()
	h.mu.awaits++
	number := h.mu.awaits
	h.mu.granted[number] = granted
	h.mu.Unlock()
	h.say(&invokerv1.Message{Message: &invokerv1.Message_Await{Await: number}})
}

// Retry implements invoker.Host.
func (h *hosted) Retry(_ *invoker.Attempt, index uint32, tries *recordv1.RunTries) {
	h.say(&invokerv1.Message{Index: index, Message: &invokerv1.Message_Retry{Retry: tries}})
}

// Complete implements invoker.Host.
func (h *hosted) Complete(_ *invoker.Attempt, index uint32, result *recordv1.Result) {
	h.say(&invokerv1.Message{Index: index, Message: &invokerv1.Message_Complete{Complete: result}})
}

// Part implements invoker.Host.
func (h *hosted) Part(_ *invoker.Attempt, index, number uint32, part []byte) {
	h.say(&invokerv1.Message{Index: index, Message: &invokerv1.Message_Part{Part: &invokerv1.Part{Number: number, Value: part}}})
}

// CompleteParts implements invoker.Host.
func (h *hosted) CompleteParts(_ *invoker.Attempt, index uint32, parts *recordv1.Parts) {
	h.say(&invokerv1.Message{Index: index, Message: &invokerv1.Message_CompleteParts{CompleteParts: parts}})
}

// Journal implements invoker.Host.
func (h *hosted) Journal(*invoker.Attempt) invoker.Journal {
	u := h.link
	return &asker{invoker: u.invoker, node: u.node, key: h.key, ctx: u.ctx, before: u.flush, lost: h.lose}
}

// Finish implements invoker.Host.
func (h *hosted) Finish(_ *invoker.Attempt, outcome *invoker.Outcome) {
	if outcome.Lost { // which the message of an outcome does not say
		h.lose(errNotBegun)
		return
	}
	h.say(&invokerv1.Message{Message: &invokerv1.Message_Finish{Finish: outcomeMessage(outcome)}})
}

// serveRead runs a READ handler for a leader.
func (inv *Invoker) serveRead(ctx context.Context, from uint64, m *invokerv1.Read) *invokerv1.Response {
	target := targetOf(m.GetTarget())
	if !inv.config.Directory.Here(target) {
		return &invokerv1.Response{Failure: &invokerv1.Failure{Message: "this node does not host " + target.Service}}
	}
	if !inv.config.Open() {
		return &invokerv1.Response{Failure: &invokerv1.Failure{Message: "this node is starting"}}
	}
	var unread atomic.Pointer[error]
	reads := &asker{invoker: inv, node: from, key: m.GetKey(), ctx: ctx, lost: func(cause error) { unread.Store(&cause) }}
	read := &invoker.Read{
		Target: target, Input: m.GetInput(), State: m.GetState(), HasState: m.GetHasState(), Tables: reads,
		Traceparent: m.GetTraceparent(), Headers: m.GetHeaders(), Promise: reads.promise, Complete: reads.complete, Call: reads.call,
	}
	read.ID, _ = invocation.IDFromBytes(m.GetId())
	result := inv.config.Local.Read(ctx, read)
	if cause := unread.Load(); cause != nil {
		return &invokerv1.Response{Failure: failureMessage(fmt.Errorf("the data of %s can't be asked for: %w", target, *cause))}
	}
	if bytes := proto.Size(result); bytes > maxMessageBytes {
		result = &recordv1.Result{Error: tooLarge("the response of "+target.String(), bytes)}
	}
	return &invokerv1.Response{Result: result}
}
