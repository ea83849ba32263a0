package sim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"github.com/perdure/perdure/internal/history"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	"github.com/perdure/perdure/storage/memstore"
	"github.com/perdure/perdure/storage/vfs"
)

// world is a node, its disks, its callers and the outside.
type world struct {
	t     *testing.T
	seed  uint64
	load  load
	disk  *chance // how long syncs and commits take
	plan  *chance // which fault strikes when
	back  *chance // when a node of a cluster is up again
	began time.Time

	route   *chance     // which node a call goes to
	network *chance     // what becomes of messages between partitions, and between nodes
	calm    atomic.Bool // they arrive at once
	lists   lists
	clocks  [8]atomic.Int64 // by how much a node's wall clock is wrong, in nanoseconds
	latest  int64           // the most that any was, of whoever drives
	events  events

	mu struct {
		sync.Mutex
		nodes     []*node       // those that calls can go to, in any order
		changed   chan struct{} // closed when nodes change
		failed    string
		trace     []string
		acked     map[string]*acked // by idempotency key
		executed  map[execution][]string
		appended  map[execution]string // the attempt that made the entry of a closure that ran
		restarted []*restarted
		runs      int
		highest   map[string]int64    // sum that a reader of that key must at least see
		notes     map[string][]string // what the seed alone decides, by who was told
	}
}

// acked is a call that was answered.
type acked struct {
	id     invocation.ID
	target invocation.Target
	amount int64
	result string
	oneWay bool
}

// execution is a Run step of an invocation.
type execution struct {
	id   invocation.ID
	step uint32
}

// Bounds of a simulation, in fake time.
const (
	longest  = 10 * time.Minute
	funds    = 1000
	accounts = 6
	counters = 4
)

// load is who works in a simulation, and how the node is treated.
type load struct {
	workers, transactors, watchers int
	// calls that each of them makes.
	calls int
	// kinds of what a transactor does: 20 are all, 14 those with lists.
	kinds int
	// schedules is how many there are.
	schedules int
	// lists are the keys of the lists.
	lists      []string
	partitions int
	// nodes of a cluster; 0 is one node alone.
	nodes int
	// hosting is how many of them have handlers; 0 is all, -1 all or two, as the seed wants.
	hosting int
	// pause is the most time between two strikes, and cuts how many of 18 are power cuts.
	pause time.Duration
	cuts  int
	// brisk makes all that lasts in a cluster shorter, by so much; 0 is 1. What passes while
	// nothing can be done finds nothing.
	brisk time.Duration
}

// longest is how long a simulation may take: many times what any takes whose calls are all answered.
func (l load) longest() time.Duration { return max(l.brief(longest), 150*time.Second) }

// brief is a time that something lasts.
func (l load) brief(d time.Duration) time.Duration { return d / max(l.brisk, 1) }

var (
	// ordinary has something of everything.
	ordinary = load{partitions: 4, workers: 10, transactors: 8, watchers: 2, calls: 25, kinds: 20, pause: 250 * time.Millisecond, cuts: 4, schedules: 3,
		lists: []string{"l0", "l1", "l2", "l3", "l4", "l5"}}
	// crowded has transactions over four lists, the fewest there can be, and many that look
	// at those from outside, so that somebody looks wherever a transaction stands. The power fails
	// so often that half of the time is the time after.
	crowded = load{partitions: 4, transactors: 6, watchers: 6, calls: 25, kinds: 14, pause: 60 * time.Millisecond, cuts: 9,
		lists: []string{"l0", "l1", "l3", "l4"}}
	// clustered has nodes that come and go, and links between them that break.
	clustered = load{partitions: 4, workers: 8, transactors: 6, watchers: 3, calls: 20, kinds: 20, pause: 400 * time.Millisecond, nodes: 4,
		lists: []string{"l0", "l1", "l2", "l3", "l4", "l5"}}
	// few is clustered with one call of each of many callers, all at once and in the middle of faults: a seed takes a twentieth of the
	// time of a long one, most of which is time in which nothing can be done.
	few = load{partitions: 2, workers: 16, transactors: 12, watchers: 2, calls: 1, kinds: 20, pause: 250 * time.Millisecond, nodes: 4, hosting: -1, brisk: 8,
		lists: []string{"l0", "l1", "l2", "l3"}}
	// apart is clustered with handlers on two nodes.
	apart = load{partitions: 4, workers: 8, transactors: 6, watchers: 3, calls: 20, kinds: 20, pause: 400 * time.Millisecond, nodes: 4, hosting: 2,
		lists: []string{"l0", "l1", "l2", "l3", "l4", "l5"}}
)

func newWorld(t *testing.T, seed uint64, load load) *world {
	w := &world{t: t, seed: seed, load: load, disk: newChance(seed, 1), plan: newChance(seed, 2), back: newChance(seed, 5), network: newChance(seed, 3), route: newChance(seed, 4), began: time.Now()}
	w.calm.Store(seed%4 == 0)
	if load.hosting < 0 {
		w.load.hosting = 0
		if seed%3 == 0 {
			w.load.hosting = 2
		}
	}
	w.events.began, w.events.kept = w.began, replays || *twice || *oneSeed != 0
	w.lists.history = history.NewRecorder()
	w.lists.mu.acked = map[string][]int64{}
	w.mu.notes = map[string][]string{}
	w.mu.changed = make(chan struct{})
	w.mu.acked, w.mu.executed, w.mu.highest = map[string]*acked{}, map[execution][]string{}, map[string]int64{}
	w.mu.appended = map[execution]string{}
	return w
}

func (w *world) trace(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	w.events.text(line, 0, 0)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.trace = append(w.mu.trace, fmt.Sprintf("%9s  ", time.Since(w.began).Round(time.Microsecond))+line)
}

// note keeps what who was told to do, which must be the same each time a seed is run.
func (w *world) note(who, what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.notes[who] = append(w.mu.notes[who], what)
}

// fail notes the first violation.
func (w *world) fail(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.failed == "" {
		w.mu.failed = fmt.Sprintf(format, args...)
	}
}

func (w *world) failure() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.failed
}

func (w *world) setNodes(nodes ...*node) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.nodes = nodes
	close(w.mu.changed)
	w.mu.changed = make(chan struct{})
}

// execute is the outside world: it notes that a closure ran, unless the process is dead. Its entry is in the
// journal that its attempt began with, or this attempt has made it: of those that do there is one, since an entry
// must be there for good before its closure runs.
func (w *world) execute(n *node, a *invoker.Attempt, step uint32, name string) (said string, heard bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n.dead.Load() {
		return "", false
	}
	w.mu.runs++
	said = fmt.Sprintf("%s-%d", name, w.mu.runs)
	e := execution{a.ID, step}
	w.mu.executed[e] = append(w.mu.executed[e], said)
	if int(step) > len(a.Journal) {
		by := fmt.Sprintf("attempt %d on node %d", a.Number, n.id())
		if before := w.mu.appended[e]; before != "" && w.mu.failed == "" {
			w.mu.failed = fmt.Sprintf("entry %d of %s was made by %s, and its closure ran; then %s made it again: it was not durable", step, a.ID, before, by)
		}
		w.mu.appended[e] = by
	}
	return said, true
}

// pick returns a node that calls can go to, or nil, and what is closed when others can.
func (w *world) pick() (*node, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch len(w.mu.nodes) {
	case 0:
		return nil, w.mu.changed
	case 1:
		return w.mu.nodes[0], w.mu.changed
	}
	return w.mu.nodes[w.route.intn(len(w.mu.nodes))], w.mu.changed
}

// call repeats a request until it is answered, by whichever process there is.
func (w *world) call(do func(ctx context.Context, n *node) (*recordv1.Result, error)) (*recordv1.Result, bool) {
	for time.Since(w.began) < w.load.longest() && w.failure() == "" {
		n, changed := w.pick()
		if n == nil {
			select {
			case <-changed:
			case <-time.After(w.load.longest() - time.Since(w.began)):
			}
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), w.load.brief(5*time.Second))
		result, err := do(ctx, n)
		cancel()
		w.events.text("answer", n.number+1, 0, text(result), err)
		if n.dead.Load() {
			time.Sleep(5 * time.Millisecond)
			continue // The answer went to nobody.
		}
		if err == nil {
			return result, true
		}
		var coded *routing.Error
		if !errors.Is(err, context.DeadlineExceeded) && !(errors.As(err, &coded) && (coded.Code == routing.CodeUnavailable || coded.Code == routing.CodeResourceExhausted)) {
			w.fail("a call failed with %v", err)
			return nil, false
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil, false
}

// worker makes one caller's calls, one after another.
func (w *world) worker(number int) {
	for i := range w.load.calls {
		random := newCallChance(w.seed, 100+number, i)
		key := fmt.Sprintf("w%d-%d", number, i)
		kind := random.intn(10)
		w.note(fmt.Sprint("worker ", number), fmt.Sprint(key, " kind ", kind))
		switch {
		case kind < 4:
			w.add(key, counter(random.intn(counters)), "Add", random)
		case kind < 6:
			w.add(key, counter(random.intn(counters)), "AddAndSend", random)
		case kind < 7:
			w.read(counter(random.intn(counters)))
		case kind < 8:
			w.sendOne(key, random)
		default:
			from := random.intn(accounts)
			to := (from + 1 + random.intn(accounts-1)) % accounts
			amount := 1 + random.intn(300)
			input := fmt.Sprintf("a%d a%d %d", from, to, amount)
			w.request(key, invocation.Target{Service: "sim.Transfers", Handler: "Transfer"}, invocation.ModeDurable, []byte(input), random)
			if random.intn(3) == 0 {
				w.restart(key, amount, random)
			}
		}
		time.Sleep(random.between(0, 30*time.Millisecond))
	}
}

func (w *world) add(key, counter, handler string, random *chance) {
	result := w.request(key, invocation.Target{Service: "sim.Counter", Key: counter, Handler: handler}, invocation.ModeTransaction, value(1), random)
	if result == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.highest[counter] = max(w.mu.highest[counter], number(result.Value))
}

// request calls with an idempotency key, and sometimes asks again: the answer stays the same.
func (w *world) request(key string, t invocation.Target, mode invocation.Mode, input []byte, random *chance) *recordv1.Result {
	return w.requestThis(key, func() *recordv1.Invoke { return invoke(t, mode, input, key) }, random)
}

// requestThis is request for something that is made anew each time.
func (w *world) requestThis(key string, in func() *recordv1.Invoke, random *chance) *recordv1.Result {
	first := in()
	who, _, _ := strings.Cut(key, "-")
	w.note("requests of "+who, fmt.Sprint(key, " ", first.Target))
	id, _ := invocation.IDFromBytes(first.InvocationId)
	t := target(first.Target.Service, first.Target.Key, first.Target.Handler)
	result, ok := w.call(func(ctx context.Context, n *node) (*recordv1.Result, error) { return n.Call(ctx, in()) })
	if !ok {
		return nil
	}
	w.mu.Lock()
	w.mu.acked[key] = &acked{id: id, target: t, amount: number(first.Input), result: text(result)}
	w.mu.Unlock()
	again := random.intn(6)
	if again > 1 {
		return result
	}
	time.Sleep(random.between(0, 100*time.Millisecond))
	second, ok := w.call(func(ctx context.Context, n *node) (*recordv1.Result, error) {
		if again == 0 {
			return n.Attach(ctx, id)
		}
		return n.Call(ctx, in())
	})
	if ok && text(second) != text(result) {
		w.fail("%s answered %s, and later %s", key, text(result), text(second))
	}
	return result
}

func text(r *recordv1.Result) string {
	if r.GetError() != nil {
		return fmt.Sprintf("error %d %s", r.Error.Code, r.Error.Message)
	}
	return string(r.GetValue())
}

// sendOne asks for an Add one-way.
func (w *world) sendOne(key string, random *chance) {
	t := invocation.Target{Service: "sim.Counter", Key: oneWayCounter(random.intn(2)), Handler: "Add"}
	in := func() *recordv1.Invoke { return invoke(t, invocation.ModeTransaction, value(1), key) }
	id, _ := invocation.IDFromBytes(in().InvocationId)
	_, ok := w.call(func(ctx context.Context, n *node) (*recordv1.Result, error) {
		_, err := n.Send(ctx, in())
		return nil, err
	})
	if ok {
		w.mu.Lock()
		w.mu.acked[key] = &acked{id: id, target: t, amount: 1, oneWay: true}
		w.mu.Unlock()
	}
}

// read checks that a READ sees every write that was acknowledged before it began.
func (w *world) read(counter string) {
	w.mu.Lock()
	least := w.mu.highest[counter]
	w.mu.Unlock()
	t := invocation.Target{Service: "sim.Counter", Key: counter, Handler: "Get"}
	result, ok := w.call(func(ctx context.Context, n *node) (*recordv1.Result, error) {
		return n.look(ctx, t)
	})
	if ok && number(result.Value) < least {
		w.fail("READ of %s saw %d after %d was acknowledged", counter, number(result.Value), least)
	}
}

// drive runs the node and breaks it until the callers are done.
func (w *world) drive(done <-chan struct{}) {
	at := disks{vfs.NewMem(), memstore.New(memstore.Options{})}
	for first := true; ; first = false {
		n, err := w.open(0, at, nil)
		if errors.Is(err, syscall.EIO) { // A fault that was still to come: start again.
			w.trace("%v", err)
			at.log.ClearFaults()
			n, err = w.open(0, at, nil)
		}
		if err != nil {
			w.fail("the node does not open: %v", err)
			return
		}
		ready, stopWaiting := context.WithTimeout(context.Background(), 20*time.Second)
		err = n.Ready(ready)
		stopWaiting()
		if err != nil {
			select {
			case <-n.ended: // A fault that was still to come.
				at = n.stop()
				continue
			default:
			}
			w.fail("the node does not get ready: %v", err)
			n.stop()
			return
		}
		w.trace("ready")
		n.local.ReleaseSchedules()
		if !first {
			w.checkExecuted(n)
		}
		w.setNodes(n)
		at, err = w.strike(n, done)
		w.setNodes()
		if err == nil {
			continue
		}
		// The callers are done: on good disks all that is left must end by itself.
		at = n.stop()
		at.log.ClearFaults()
		w.calm.Store(true)
		if n, err = w.open(0, at, nil); err != nil {
			w.fail("the node does not open: %v", err)
			return
		}
		n.local.ReleaseSchedules()
		w.settle(n)
		n.stop()
		return
	}
}

var errDone = errors.New("callers are done")

// strike waits, does something bad, and returns the disks to go on with.
func (w *world) strike(n *node, done <-chan struct{}) (disks, error) {
	for {
		select {
		case <-done:
			return disks{}, errDone
		case <-n.ended:
			w.trace("the node ended by itself")
			return n.stop(), nil
		case <-time.After(w.plan.between(time.Millisecond, w.load.pause)):
		}
		if w.failure() != "" {
			return disks{}, errDone
		}
		fault := w.plan.intn(18)
		if fault < w.load.cuts {
			w.trace("power cut")
			return n.crash(uint64(w.plan.intn(1 << 30))), nil
		}
		switch fault {
		case 4:
			w.trace("restart")
			return n.stop(), nil
		case 5:
			w.trace("sync fails")
			n.disks.log.Inject(vfs.Fault{Op: vfs.OpSync, After: w.plan.intn(4), Err: syscall.EIO, LosesDirty: w.plan.intn(2) == 0})
		case 6:
			w.trace("write fails")
			n.disks.log.Inject(vfs.Fault{Op: vfs.OpWrite, After: w.plan.intn(4), Err: syscall.EIO, Written: w.plan.intn(64)})
		case 7:
			w.trace("commit fails")
			n.disks.store.FailCommit(1+w.plan.intn(3), memstore.Outcome(1+w.plan.intn(3)))
		case 8:
			w.trace("the log's disk is full")
			n.disks.log.SetCapacity(1)
			w.pause(n)
			n.disks.log.SetCapacity(-1)
			w.trace("there is space again")
		case 9:
			w.trace("the store's disk is full")
			n.disks.store.NoSpace(true)
			w.pause(n)
			n.disks.store.NoSpace(false)
			w.trace("there is space again")
		default:
			partition := w.plan.intn(w.load.partitions)
			w.trace("partition %d loses its leader", partition+1)
			n.loseLeader(partition, w.plan)
		}
	}
}

func (w *world) pause(n *node) {
	select {
	case <-n.ended:
	case <-time.After(w.plan.between(10*time.Millisecond, 400*time.Millisecond)):
	}
}

// checkExecuted: a closure that ran has its entry on disk, whatever happened since.
func (w *world) checkExecuted(n *node) {
	w.mu.Lock()
	executed := slices.Collect(maps.Keys(w.mu.executed))
	w.mu.Unlock()
	for _, e := range executed {
		detail, err := n.Invocation(context.Background(), e.id)
		if coded, ok := errors.AsType[*routing.Error](err); ok && coded.Code == routing.CodeUnavailable {
			return // A fault that was still to come has ended the leadership: the next restart shows it.
		}
		if err != nil {
			w.fail("a closure of %s ran and after a restart: %v", e.id, err)
			return
		}
		if len(detail.Journal) < int(e.step) || detail.Journal[e.step-1].GetRun() == nil {
			w.fail("entry %d of %s ran before it was durable: the journal has %d", e.step, e.id, len(detail.Journal))
		}
	}
}

// settle waits until nothing is left to do, and checks what there is.
func (w *world) settle(n *node) {
	w.pauseSchedules(n)
	deadline := time.Now().Add(max(w.load.brief(2*time.Minute), 40*time.Second))
	var late time.Time // for what is on its way while no invocation is left
	// What is on its way to a partition is in no row of it yet, so that one look may miss what it becomes.
	for quiet := 0; quiet < 2 && w.failure() == ""; time.Sleep(50 * time.Millisecond) {
		running, left := w.unfinished(n), w.unacknowledged(n)
		switch now := time.Now(); {
		case running != "":
			if quiet, late = 0, (time.Time{}); now.After(deadline) {
				w.fail("something hangs: %s", running)
			}
		case left == "":
			quiet++
		case late.IsZero():
			// What is lost, be it because its receiver has another leader, is sent again within 2 s.
			quiet, late = 0, now.Add(2500*time.Millisecond)
		case now.After(late):
			w.fail("not all messages arrive: %s", left)
		}
	}
	if w.failure() == "" {
		w.checkNothingIsHeld(n)
	}
	if w.failure() == "" {
		w.check(n)
		w.checkLists(n)
		w.checkSchedules(n)
	}
}

// unfinished says which invocations have not ended, or "".
func (w *world) unfinished(n *node) string {
	statuses := []recordv1.Status{
		recordv1.Status_STATUS_SCHEDULED, recordv1.Status_STATUS_QUEUED, recordv1.Status_STATUS_RUNNING,
		recordv1.Status_STATUS_SUSPENDED, recordv1.Status_STATUS_BACKING_OFF, recordv1.Status_STATUS_PAUSED,
	}
	active, err := n.Invocations(context.Background(), routing.Filter{Statuses: statuses})
	if err != nil {
		return err.Error()
	}
	var left []string
	for _, a := range active {
		left = append(left, fmt.Sprintf("%s %s %s attempt %d", a.ID, a.Row.GetTarget().GetHandler(), a.Row.GetStatus(), a.Row.GetAttempt()))
	}
	return strings.Join(left, "; ")
}

// runWorld is one simulation, which is over.
func runWorld(t *testing.T, seed uint64, load load) (w *world) {
	// Elections wait for so long as this says, and logs have its ids.
	cryptotest.SetGlobalRandom(t, seed)
	replayArm(seed)
	synctest.Test(t, func(t *testing.T) {
		w = newWorld(t, seed, load)
		done := make(chan struct{})
		var all sync.WaitGroup
		if load.nodes > 0 {
			all.Go(func() { newMembers(w).drive(done) })
		} else {
			all.Go(func() { w.drive(done) })
		}
		var callers sync.WaitGroup
		callers.Go(w.fund)
		callers.Go(w.fundSchedules)
		callers.Wait()
		for number := range load.workers {
			callers.Go(func() { w.worker(number) })
		}
		for number := range load.transactors {
			callers.Go(func() { w.transactor(number) })
		}
		for number := range load.watchers {
			callers.Go(func() { w.watcher(load.transactors + number) })
		}
		callers.Wait()
		close(done)
		all.Wait()
		if time.Since(w.began) > load.longest() {
			w.fail("not all calls were answered in %s of fake time", load.longest())
		}
		w.events.chosen, w.events.choices = replayDigest()
	})
	return w
}
