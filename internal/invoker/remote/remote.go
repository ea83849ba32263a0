// Package remote runs attempts on other nodes: it is the invoker.Invoker of a node that leads
// partitions of objects whose handlers it does not have, and the part of the node that has them.
//
// # Model
//
//	partition ──► Invoker.Start ──► the node's own invoker, if it has the handlers
//	                           └──► session with a node that has them ──► its Serve ──► its own invoker
//
// What is tied to another deployment than this node's runs on a node of that one, as long as there is one:
// the partition asks by DeploymentOf which it will be, before it starts the attempt.
//
// A session is between a leader's process and another node's. Each side sends batches of messages, one
// after the other's answer, so what is said arrives once and in order or the session is over. Reads of
// tables, journals and promises are calls of their own, which wait for what was said before.
//
// # Failure
//
// A batch that is not answered is sent once more, and acted on once; but for the one that begins a session. A session ends with the first that is
// not answered then either. The leader then has its partition start another
// attempt (Outcome.Lost) and passes over the node for a while; the other node aborts what ran. An
// attempt is named in a session by a number that the leader gives once: what is said about one that it
// no longer runs is dropped here, and what is said for one that the partition has superseded by its Host.
//
// A node that was restarted is asked for what it had before, by leaders that have heard nothing newer. It runs
// nothing before it has started (Config.Open), which may take long or fail, and gives back what it is asked until then.
//
// # Goroutines
//
// One for each session on each side, and one while there are attempts that no node can run. Close
// ends them.
package remote

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
	invokerv1 "github.com/perdure/perdure/internal/invoker/v1"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
)

// Directory says which nodes have which handlers. Its methods are fast and safe for concurrent use.
type Directory interface {
	// Here reports whether this node is to run a handler: it has it, or has its service and no
	// other node has the handler.
	Here(target invocation.Target) bool
	// Hosts are the other live nodes that can run it, the best first: those of a deployment, if
	// that is not "", before others.
	Hosts(target invocation.Target, deployment string) []uint64
	// Exactly are those of the other live nodes that have it in exactly this deployment and are not about
	// to stop, in any order.
	Exactly(target invocation.Target, deployment string) []uint64
	// Deployment is that of which this node has a service, or if it has not, that of most that have; "" if
	// none is known.
	Deployment(service string) string
	// Changed returns a channel that is closed when any of these may say something else than
	// before it was called.
	Changed() <-chan struct{}
}

// Config of an Invoker. Local, Call and Directory must be set.
type Config struct {
	// Node is this one.
	Node uint64
	// Local runs what this node has handlers for.
	Local invoker.Invoker
	// Open reports whether Local runs what it is given by now. Until then what other nodes ask for is given
	// back to them, for another node may run it at once. nil: always.
	Open func() bool
	// Call takes a request to the Serve of another node and returns the answer, or an error if the
	// request may not have arrived. It must heed ctx.
	Call func(ctx context.Context, to uint64, request []byte) ([]byte, error)
	// Directory says who has which handlers.
	Directory Directory
	Logger    *slog.Logger
	// Beat is how often the sides of a session with attempts make sure of each other. Defaults to 1 s.
	Beat time.Duration
	// Patience is how long an answer may take before a session is given up. Defaults to 5 s.
	Patience time.Duration
	// Avoid is how long a node is passed over after a session with it has ended. Defaults to 1 s.
	Avoid time.Duration
	// Settling: which nodes there are and what they run is not known before Settle. Until then, what is tied
	// to a deployment that no node is known to have waits for one, and does not move on.
	Settling bool
	// HostWait is how long what is not stored waits for a node that has its handlers, before it is
	// unavailable. Defaults to 5 s.
	HostWait time.Duration
}

// Invoker is both halves. Its methods are safe for concurrent use.
type Invoker struct {
	config Config
	ctx    context.Context
	stop   context.CancelCauseFunc
	wake   chan struct{} // has room for one: there are more that wait
	// settled: a deployment that no node is known to have is not there.
	settled atomic.Bool

	running sync.WaitGroup
	mu      struct {
		sync.Mutex
		closed bool
		key    uint64               // the last one given; begins anywhere, so that no two processes share them
		down   map[uint64]*downlink // by node: what this one has others run
		up     map[uint64]*uplink   // by node: what it runs for others
		asked  map[uint64]source    // by key: what others may read
		avoid  map[uint64]time.Time // by node, until when
		// waiting are the attempts that no node can run now, until when; zero: for ever. placing: a
		// goroutine looks after them.
		waiting map[*forwarded]time.Time
		placing bool
	}
}

var _ invoker.Invoker = (*Invoker)(nil)

// New makes an Invoker.
func New(config Config) *Invoker {
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	for _, wait := range []struct {
		value    *time.Duration
		standard time.Duration
	}{{&config.Beat, time.Second}, {&config.Patience, 5 * time.Second}, {&config.Avoid, time.Second}, {&config.HostWait, 5 * time.Second}} {
		if *wait.value <= 0 {
			*wait.value = wait.standard
		}
	}
	if config.Open == nil {
		config.Open = func() bool { return true }
	}
	inv := &Invoker{config: config}
	inv.settled.Store(!config.Settling)
	inv.ctx, inv.stop = context.WithCancelCause(context.Background())
	inv.mu.key = rand.Uint64()
	inv.mu.down, inv.mu.up = map[uint64]*downlink{}, map[uint64]*uplink{}
	inv.mu.asked, inv.mu.avoid = map[uint64]source{}, map[uint64]time.Time{}
	inv.mu.waiting, inv.wake = map[*forwarded]time.Time{}, make(chan struct{}, 1)
	return inv
}

// Settle says that it is known by now what other nodes run, or that nobody will wait longer for it.
func (inv *Invoker) Settle() {
	inv.settled.Store(true)
	inv.lookAgain()
}

// Close ends all sessions, and waits for its goroutines. What this node ran for others is aborted;
// what others ran for it says nothing to its host any more. Local is left alone.
func (inv *Invoker) Close() {
	inv.mu.Lock()
	inv.mu.closed = true
	inv.mu.Unlock()
	inv.stop(errClosed)
	inv.running.Wait()
}

var errClosed = routing.Errorf(routing.CodeUnavailable, "the node is shutting down")

// Start implements invoker.Invoker.
func (inv *Invoker) Start(attempt *invoker.Attempt) invoker.Running {
	if inv.config.Directory.Here(attempt.Target) && !inv.apart(attempt.Target.Service, attempt.Deployment) {
		return inv.config.Local.Start(attempt)
	}
	f := &forwarded{invoker: inv, attempt: attempt}
	if !f.place() {
		inv.await(f)
	}
	return f
}

// apart reports whether a deployment is another than what a service's handlers run on unless they are tied
// to one. "" is what nothing is tied to.
func (inv *Invoker) apart(service, deployment string) bool {
	return deployment != "" && deployment != inv.config.Directory.Deployment(service)
}

// DeploymentOf is the one that the next attempt of an invocation is to run on: the one that it is tied to, as
// long as that can be reached, else what the service's handlers run on otherwise. "" is what it is tied to
// that has no journal.
func (inv *Invoker) DeploymentOf(target invocation.Target, tied string) string {
	if inv.apart(target.Service, tied) && (!inv.settled.Load() || inv.exactly(target, tied) != 0) {
		return tied
	}
	return inv.config.Directory.Deployment(target.Service)
}

// exactly is another node of this deployment that is not to be passed over; 0: there is none.
func (inv *Invoker) exactly(target invocation.Target, deployment string) uint64 {
	hosts := inv.config.Directory.Exactly(target, deployment)
	if len(hosts) == 0 {
		return 0
	}
	now := time.Now()
	inv.mu.Lock()
	defer inv.mu.Unlock()
	for _, host := range hosts {
		if !now.Before(inv.mu.avoid[host]) {
			return host
		}
	}
	return 0
}

// choose is a node that can run a handler and is not to be passed over: one of the deployment, if that is
// not this one's own, then, once that is known not to be there, this one, then others; 0: there is none. When the first of those that are passed
// over may be tried again is again, zero if there are none.
func (inv *Invoker) choose(target invocation.Target, deployment string) (node uint64, again time.Time) {
	if inv.apart(target.Service, deployment) {
		if node := inv.exactly(target, deployment); node != 0 {
			return node, time.Time{}
		}
		if !inv.settled.Load() {
			return 0, time.Time{}
		}
	}
	if inv.config.Directory.Here(target) {
		return inv.config.Node, time.Time{}
	}
	hosts := inv.config.Directory.Hosts(target, deployment)
	now := time.Now()
	inv.mu.Lock()
	defer inv.mu.Unlock()
	for _, host := range hosts {
		until := inv.mu.avoid[host]
		if !now.Before(until) {
			return host, time.Time{}
		}
		if again.IsZero() || until.Before(again) {
			again = until
		}
	}
	return 0, again
}

// unhosted says that no node runs a handler.
func (inv *Invoker) unhosted(target invocation.Target, cause error) *recordv1.Result {
	known := make([]string, 0, 4)
	for _, host := range inv.config.Directory.Hosts(target, "") {
		known = append(known, fmt.Sprintf("%016x", host))
	}
	text := fmt.Sprintf("no live node hosts %s: start one that registers it", target.Service)
	if len(known) > 0 {
		text = fmt.Sprintf("%s is hosted by %s, and none of them answers: see perdure cluster nodes", target.Service, strings.Join(known, ", "))
	}
	if cause != nil {
		text += "; the last failure: " + cause.Error()
	}
	return &recordv1.Result{Error: &recordv1.Error{Code: uint32(routing.CodeUnavailable), Message: text}}
}

// Read implements invoker.Invoker. A node that is lost while it runs the handler is replaced by another.
func (inv *Invoker) Read(ctx context.Context, read *invoker.Read) *recordv1.Result {
	late := time.NewTimer(inv.config.HostWait)
	defer late.Stop()
	var failed error
	for {
		changed := inv.config.Directory.Changed()
		node, again := inv.choose(read.Target, "")
		switch node {
		case inv.config.Node:
			return inv.config.Local.Read(ctx, read)
		case 0:
			if inv.waitForHost(ctx, changed, again, late.C) {
				continue
			}
			if ctx.Err() != nil {
				return interrupted(ctx, read.Target.String())
			}
			refused := inv.unhosted(read.Target, failed).GetError()
			read.Unhosted = &invoker.Unhosted{Cause: routing.Errorf(routing.Code(refused.GetCode()), "%s", refused.GetMessage())}
			return nil
		}
		result, err := inv.readAt(ctx, node, read)
		if err == nil {
			return result
		}
		if ctx.Err() != nil {
			return interrupted(ctx, fmt.Sprintf("%s on node %016x", read.Target, node))
		}
		failed = err
		inv.passOver(node)
	}
}

func interrupted(ctx context.Context, what string) *recordv1.Result {
	code := routing.CodeCanceled
	if ctx.Err() == context.DeadlineExceeded {
		code = routing.CodeDeadlineExceeded
	}
	return &recordv1.Result{Error: &recordv1.Error{Code: uint32(code), Message: fmt.Sprintf("%s: %v", what, context.Cause(ctx))}}
}

// waitForHost reports false if there is no use in looking again.
func (inv *Invoker) waitForHost(ctx context.Context, changed <-chan struct{}, again time.Time, late <-chan time.Time) bool {
	var due <-chan time.Time
	if !again.IsZero() {
		timer := time.NewTimer(time.Until(again))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-changed:
		return true
	case <-due:
		return true
	case <-late:
	case <-ctx.Done():
	case <-inv.ctx.Done():
	}
	return false
}

func (inv *Invoker) passOver(node uint64) {
	inv.mu.Lock()
	inv.mu.avoid[node] = time.Now().Add(inv.config.Avoid)
	inv.mu.Unlock()
}

// offer lets other nodes read what an attempt or a READ handler reads, until withdraw.
func (inv *Invoker) offer(from source) uint64 {
	inv.mu.Lock()
	defer inv.mu.Unlock()
	inv.mu.key++
	inv.mu.asked[inv.mu.key] = from
	return inv.mu.key
}

func (inv *Invoker) withdraw(key uint64) {
	inv.mu.Lock()
	delete(inv.mu.asked, key)
	inv.mu.Unlock()
}

func (inv *Invoker) readAt(ctx context.Context, node uint64, read *invoker.Read) (*recordv1.Result, error) {
	key := inv.offer(source{tables: read.Tables, promise: read.Promise, complete: read.Complete, call: read.Call})
	defer inv.withdraw(key)
	response, err := inv.ask(ctx, node, &invokerv1.Request{Request: &invokerv1.Request_Read{Read: &invokerv1.Read{
		Key: key, Id: read.ID[:], Target: targetRecord(read.Target), Input: read.Input,
		State: read.State, HasState: read.HasState, Traceparent: read.Traceparent, Headers: read.Headers,
	}}})
	if err != nil {
		return nil, err
	}
	if err := failureOf(response.GetFailure()); err != nil {
		return nil, err
	}
	return response.GetResult(), nil
}

// ask calls another node.
func (inv *Invoker) ask(ctx context.Context, node uint64, request *invokerv1.Request) (*invokerv1.Response, error) {
	data, err := proto.Marshal(request)
	if err != nil {
		return nil, err
	}
	if data, err = inv.config.Call(ctx, node, data); err != nil {
		return nil, err
	}
	response := &invokerv1.Response{}
	return response, proto.Unmarshal(data, response)
}

// Serve answers what the Invoker of another node has asked by Config.Call.
func (inv *Invoker) Serve(ctx context.Context, from uint64, data []byte) ([]byte, error) {
	request := &invokerv1.Request{}
	if err := proto.Unmarshal(data, request); err != nil {
		return nil, fmt.Errorf("invoker: %w", err)
	}
	var response *invokerv1.Response
	switch asked := request.GetRequest().(type) {
	case *invokerv1.Request_Down:
		response = &invokerv1.Response{UnknownSession: !inv.serveDown(from, asked.Down)}
	case *invokerv1.Request_Up:
		response = &invokerv1.Response{UnknownSession: !inv.serveUp(from, asked.Up)}
	case *invokerv1.Request_Ask:
		if response = inv.serveAsk(ctx, asked.Ask); response == nil {
			return nil, fmt.Errorf("invoker: node %016x: %w", from, errOlder)
		}
	case *invokerv1.Request_Read:
		response = inv.serveRead(ctx, from, asked.Read)
	default:
		return nil, fmt.Errorf("invoker: node %016x asks for something that this build does not know", from)
	}
	return proto.Marshal(response)
}
