package actortest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
)

// observe is desc with handlers that the node looks over the shoulder of.
func (n *Node) observe(desc *actor.ServiceDesc) *actor.ServiceDesc {
	observed := *desc
	observed.Methods = make([]*actor.MethodDesc, len(desc.Methods))
	for i, method := range desc.Methods {
		m := *method
		if handle := method.Handle; handle != nil {
			m.Handle = func(ctx actor.Context, handler any, request proto.Message) (proto.Message, error) {
				return n.handle(ctx, &m, handle, handler, request)
			}
		}
		observed.Methods[i] = &m
	}
	return &observed
}

type handleFunc = func(actor.Context, any, proto.Message) (proto.Message, error)

func (n *Node) handle(ctx actor.Context, m *actor.MethodDesc, handle handleFunc, handler any, request proto.Message) (proto.Message, error) {
	runtime := actor.RuntimeOf(ctx)
	described := runtime.Invocation()
	if err := n.faults.call(ctx, described); err != nil {
		return nil, err
	}
	watched := &watcher{Runtime: runtime, node: n, lane: n.laneOf(described)}
	response, err := handle(actor.NewContext(ctx, watched), handler, request)
	if err == nil && m.Mode != actor.ModeRead {
		n.copies.check(watched)
	}
	return response, err
}

// watcher is the runtime of a handler, with faults, that knows which copies it gave out.
type watcher struct {
	actor.Runtime
	node   *Node
	lane   string
	runs   int
	copies []copied
	set    map[string]bool
}

// copied is a copy of state or of a row that a handler was given.
type copied struct {
	what    string
	message proto.Message
	given   []byte
}

// GaveCopy is called by actor for each copy of the state, table being "", or of a row.
func (w *watcher) GaveCopy(table, key string, message proto.Message) {
	what := "State().Get"
	if table != "" {
		what = fmt.Sprintf("Get(%q) of table %s", key, table)
	}
	w.copies = append(w.copies, copied{what, message, encode(message)})
}

func (w *watcher) SetState(value []byte, clear bool) {
	w.wrote(value)
	w.Runtime.SetState(value, clear)
}

func (w *watcher) TablePut(table, key string, value []byte, remove bool) {
	w.wrote(value)
	w.Runtime.TablePut(table, key, value, remove)
}

func (w *watcher) wrote(value []byte) {
	if w.set == nil {
		w.set = map[string]bool{}
	}
	w.set[string(value)] = true
}

// Run makes a move of each return of a closure: those that return at one instant would otherwise
// race for who is heard first.
func (w *watcher) Run(ctx context.Context, name string, policy actor.RunPolicy, async bool, fn func(context.Context) ([]byte, error)) (uint32, error) {
	w.runs++
	lane := fmt.Sprintf("%s run %d returns", w.lane, w.runs)
	return w.Runtime.Run(ctx, name, policy, async, func(ctx context.Context) ([]byte, error) {
		value, err := []byte(nil), w.node.faults.run(name)
		if err == nil {
			value, err = fn(ctx)
		}
		turn := make(chan struct{})
		w.node.agenda.post(&move{kind: kindCompletion, lane: lane, text: fmt.Sprintf("Run %q returns", name), do: func() { close(turn) }})
		select {
		case <-turn:
		case <-ctx.Done():
		}
		return value, err
	})
}

func encode(message proto.Message) []byte {
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(message)
	if err != nil {
		return nil // Set says what is wrong with it.
	}
	return data
}

// copies finds copies that were changed in vain, and fails the test once for each mistake.
type copies struct {
	node *Node
	mu   sync.Mutex
	told map[string]bool
}

func (c *copies) check(w *watcher) {
	for _, given := range w.copies {
		now := encode(given.message)
		if string(now) == string(given.given) || w.set[string(now)] {
			continue
		}
		described := w.Invocation()
		text := fmt.Sprintf("%s changed a copy that %s gave it and did not set it: the change is lost; use Set, Put or Update", described.Method.FullName(), given.what)
		c.once(text, text)
	}
}

// once fails the test with text, unless it did about this already.
func (c *copies) once(about, text string) {
	c.mu.Lock()
	told := c.told[about]
	if c.told == nil {
		c.told = map[string]bool{}
	}
	c.told[about] = true
	c.mu.Unlock()
	if !told {
		c.node.t.Error(text)
	}
}

// faults are the failures that a test asked for.
type faults struct {
	mu      sync.Mutex
	runs    map[string][]*fault
	calls   map[string][]*fault
	crashed map[string][]*fault
	// targets and lanes are those of the newest attempt at an invocation.
	targets map[invocation.ID][]string
	lanes   map[string]string
}

// fault strikes the nth time, or each time if that is 0.
type fault struct {
	nth   int
	err   error
	delay time.Duration
	entry uint32
	times int
	seen  map[string]bool // invocations, with whether it strikes them
}

func (f *fault) strikes() bool {
	f.times++
	return f.nth == 0 || f.times == f.nth
}

// strikesInvocation decides once for each invocation.
func (f *fault) strikesInvocation(id string) bool {
	if struck, known := f.seen[id]; known {
		return struck
	}
	if f.seen == nil {
		f.seen = map[string]bool{}
	}
	f.seen[id] = f.strikes()
	return f.seen[id]
}

// FailRun makes the n-th execution of a Run closure of that name, of whatever invocation, fail
// with err without being called; 0 is every one. An err with a code is the result of the Run;
// any other is tried again as its policy says.
func (n *Node) FailRun(name string, nth int, err error) {
	n.faults.mu.Lock()
	defer n.faults.mu.Unlock()
	if n.faults.runs == nil {
		n.faults.runs = map[string][]*fault{}
	}
	n.faults.runs[name] = append(n.faults.runs[name], &fault{nth: nth, err: err})
}

// FailCall makes the n-th invocation of target end with err without its handler being called; 0
// is every one. Target is "bank.v1.AccountService/Deposit" or, for one object,
// "bank.v1.AccountService/alice/Deposit". An err without a code fails attempts of a DURABLE
// handler, which are tried again, until the policy is used up.
func (n *Node) FailCall(target string, nth int, err error) {
	n.faults.addCall(target, &fault{nth: nth, err: err})
}

// DelayCall makes the first attempt at the n-th invocation of target begin d later; 0 is every one.
func (n *Node) DelayCall(target string, nth int, d time.Duration) {
	n.faults.addCall(target, &fault{nth: nth, delay: d})
}

// CrashAttempt aborts the n-th attempt at target that records entry (from 1), right after it did,
// as if its node had died; 0 is every attempt that records it.
func (n *Node) CrashAttempt(target string, nth int, entry uint32) {
	n.faults.mu.Lock()
	defer n.faults.mu.Unlock()
	if n.faults.crashed == nil {
		n.faults.crashed = map[string][]*fault{}
	}
	n.faults.crashed[target] = append(n.faults.crashed[target], &fault{nth: nth, entry: entry})
}

func (f *faults) addCall(target string, added *fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.calls == nil {
		f.calls = map[string][]*fault{}
	}
	f.calls[target] = append(f.calls[target], added)
}

func (f *faults) run(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, injected := range f.runs[name] {
		if injected.strikes() {
			return injected.err
		}
	}
	return nil
}

func (f *faults) call(ctx context.Context, described actor.RuntimeInvocation) error {
	method := described.Method
	var delay time.Duration
	var failure error
	f.mu.Lock()
	for _, target := range []string{method.FullName(), method.Service + "/" + described.Key + "/" + method.Name} {
		for _, injected := range f.calls[target] {
			switch struck := injected.strikesInvocation(described.ID); {
			case !struck:
			case injected.err != nil && failure == nil:
				failure = injected.err
			case described.Attempt == 1:
				delay += injected.delay
			}
		}
	}
	f.mu.Unlock()
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
		}
	}
	return failure
}

// laneOf begins the lanes of the attempt that runs.
func (n *Node) laneOf(described actor.RuntimeInvocation) string {
	n.faults.mu.Lock()
	defer n.faults.mu.Unlock()
	return n.faults.lanes[described.ID]
}

// attemptStarts remembers what an invocation is, for those who know its id only.
func (n *Node) attemptStarts(a *invoker.Attempt, lane string) {
	n.faults.mu.Lock()
	defer n.faults.mu.Unlock()
	if n.faults.targets == nil {
		n.faults.targets, n.faults.lanes = map[invocation.ID][]string{}, map[string]string{}
	}
	n.faults.lanes[a.ID.String()] = lane
	n.faults.targets[a.ID] = []string{a.Target.Service + "/" + a.Target.Handler, a.Target.Service + "/" + a.Target.Key + "/" + a.Target.Handler}
}

func (f *faults) crashes(id invocation.ID, entry uint32) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	crashed := false
	for _, target := range f.targets[id] {
		for _, injected := range f.crashed[target] {
			if injected.entry == entry && injected.strikes() {
				crashed = true
			}
		}
	}
	return crashed
}
