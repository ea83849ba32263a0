package partition

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/perdure/perdure/cluster/replica"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	"github.com/perdure/perdure/storage"
	"github.com/perdure/perdure/storage/memstore"
)

// fakeGroup is a log that the test is: it says when a record is durable and who leads.
type fakeGroup struct {
	barrier  func(context.Context) error // nil: it has one voter
	t        *testing.T
	store    *memstore.Store
	listener replica.Listener
	refuse   atomic.Pointer[error] // what Propose returns
	proposed atomic.Int64

	mu struct {
		sync.Mutex
		epoch   uint64
		records []fakeRecord
	}
}

type fakeRecord struct {
	epoch, sequence uint64
	payload         []byte
}

func (g *fakeGroup) Propose(epoch, sequence uint64, payload []byte) error {
	if g.proposed.Add(1) > 10_000 {
		g.t.Error("the partition asks without end")
		select {}
	}
	if err := g.refuse.Load(); err != nil {
		return *err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if epoch != g.mu.epoch {
		return replica.ErrNotLeader
	}
	g.mu.records = append(g.mu.records, fakeRecord{epoch, sequence, payload})
	return nil
}

func newFakeGroup(t *testing.T) *fakeGroup {
	return &fakeGroup{t: t, store: memstore.New(memstore.Options{})}
}

func (g *fakeGroup) ReadBarrier(ctx context.Context) error {
	if g.barrier == nil {
		return nil
	}
	return g.barrier(ctx)
}

func (g *fakeGroup) Snapshot() storage.Snapshot { return g.store.Snapshot() }

func (g *fakeGroup) lead() {
	g.mu.Lock()
	g.mu.epoch++
	epoch := g.mu.epoch
	g.mu.records = nil
	g.mu.Unlock()
	g.listener.Lead(epoch)
	synctest.Wait()
}

func (g *fakeGroup) stepDown() {
	g.mu.Lock()
	epoch := g.mu.epoch
	g.mu.Unlock()
	g.listener.StepDown(epoch, errors.New("test"))
}

// commit makes everything proposed durable and puts it into the store.
func (g *fakeGroup) commit() {
	g.mu.Lock()
	records := g.mu.records
	g.mu.records = nil
	g.mu.Unlock()
	for _, r := range records {
		g.listener.Committed(r.epoch, r.sequence)
		var batch storage.Batch
		if err := storage.DecodeBatch(r.payload, func(op storage.Op) {
			if op.Delete {
				batch.Delete(op.Key)
			} else {
				batch.Put(op.Key, op.Value)
			}
		}); err != nil {
			g.t.Error(err)
		}
		if err := g.store.Commit(&batch); err != nil {
			g.t.Error(err)
		}
		g.listener.Applied(r.epoch, r.sequence)
	}
}

// manual is an invoker whose attempts do what the test says.
type manual struct {
	mu struct {
		sync.Mutex
		attempts []*invoker.Attempt
	}
}

func (m *manual) Start(a *invoker.Attempt) invoker.Running {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.attempts = append(m.mu.attempts, a)
	return adder{}
}

func (m *manual) Read(_ context.Context, r *invoker.Read) *recordv1.Result {
	return &recordv1.Result{Value: r.State}
}

func (m *manual) attempt(i int) *invoker.Attempt {
	m.mu.Lock()
	defer m.mu.Unlock()
	if i >= len(m.mu.attempts) {
		return nil
	}
	return m.mu.attempts[i]
}

// withPartition runs a test on one partition over a fakeGroup, in a synctest bubble.
func withPartition(t *testing.T, inv invoker.Invoker, test func(t *testing.T, r *Router, g *fakeGroup), edits ...func(*Config)) {
	synctest.Test(t, func(t *testing.T) {
		g := newFakeGroup(t)
		config := Config{Invoker: inv, Partitions: 1}
		for _, edit := range edits {
			edit(&config)
		}
		router, err := NewRouter(config, func(_ uint32, p *Partition) Group {
			g.listener = p
			return g
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		var all sync.WaitGroup
		all.Go(func() { _ = router.Run(ctx) })
		defer all.Wait()
		defer cancel()
		test(t, router, g)
	})
}

func finish(a *invoker.Attempt, state string) {
	a.Host.Finish(a, &invoker.Outcome{
		Result:  &recordv1.Result{Value: []byte(state)},
		Entries: []*recordv1.Entry{{Entry: &recordv1.Entry_SetState{SetState: &recordv1.SetState{Value: []byte(state)}}}},
	})
}

// TestAttemptOfEarlierLeadershipIsNotHeard: its number is the same as that of the attempt of
// the next leadership, and it computed on state that was lost.
func TestAttemptOfEarlierLeadershipIsNotHeard(t *testing.T) {
	inv := &manual{}
	withPartition(t, inv, func(t *testing.T, r *Router, g *fakeGroup) {
		g.lead()
		in := request("k", 1, invocation.ModeTransaction)
		in.IdempotencyKey = "again"
		call := func() (answer chan string) {
			answer = make(chan string, 1)
			go func() {
				result, err := r.Call(context.Background(), in)
				if err != nil {
					answer <- "error"
					return
				}
				answer <- string(result.Value)
			}()
			synctest.Wait()
			return answer
		}
		first := call()
		old := inv.attempt(0)
		g.stepDown()
		g.lead()
		synctest.Wait()
		if got := <-first; got != "error" {
			t.Errorf("the call was answered %q over a lost leadership", got)
		}
		second := call()
		if a := inv.attempt(1); a == nil || a.Number != old.Number {
			t.Fatalf("the repeated call started %+v, not an attempt with the number of the old one", a)
		}
		finish(old, "stale")
		synctest.Wait()
		g.commit()
		synctest.Wait()
		finish(inv.attempt(1), "fresh")
		synctest.Wait()
		g.commit()
		if got := <-second; got != "fresh" {
			t.Errorf("the call was answered %q by an attempt of an earlier leadership", got)
		}
	})
}

// TestWordThatWaitedOverAChangeOfLeadershipIsNotHeard: it was posted in time and is read after.
func TestWordThatWaitedOverAChangeOfLeadershipIsNotHeard(t *testing.T) {
	inv := &manual{}
	withPartition(t, inv, func(t *testing.T, r *Router, g *fakeGroup) {
		p := r.partitions[0]
		g.lead()
		in := request("k", 1, invocation.ModeDurable)
		in.IdempotencyKey = "durable"
		go func() { _, _ = r.Send(context.Background(), in) }()
		synctest.Wait()
		g.commit()
		synctest.Wait()
		// Twice, since a recovered attempt is not written: the second has the number of the first.
		g.stepDown()
		g.lead()
		synctest.Wait()
		old := inv.attempt(1)
		// All three are in the mailbox before the partition looks.
		p.mailbox.Lock()
		epoch := p.leading.Load().epoch
		p.mailbox.items = append(p.mailbox.items, item{control: controlStepDown, epoch: epoch, cause: errors.New("test")})
		g.mu.Lock()
		g.mu.epoch++
		p.mailbox.items = append(p.mailbox.items, item{control: controlLead, epoch: g.mu.epoch})
		g.mu.Unlock()
		p.mailbox.Unlock()
		finish(old, "stale")
		synctest.Wait()
		again := inv.attempt(2)
		if again == nil || again.Number != old.Number {
			t.Fatalf("the new leadership started %+v", again)
		}
		g.commit()
		finish(again, "fresh")
		time.Sleep(time.Second) // Nobody waits for it: its record may stay open for a while.
		g.commit()
		id, _ := invocation.IDFromBytes(in.InvocationId)
		state, err := r.State(context.Background(), invocation.Object{Service: in.Target.Service, Key: in.Target.Key})
		if err != nil || string(state.State) != "fresh" {
			t.Errorf("%s left the state %q, %v", id, state.State, err)
		}
	})
}

// TestFullLogIsNotAskedWithoutEnd: while the log takes nothing, time must be able to pass.
func TestFullLogIsNotAskedWithoutEnd(t *testing.T) {
	withPartition(t, adder{}, func(t *testing.T, r *Router, g *fakeGroup) {
		g.lead()
		synctest.Wait()
		backlog := error(replica.ErrBacklog)
		g.refuse.Store(&backlog)
		answer := make(chan string, 1)
		go func() {
			result, err := r.Call(context.Background(), request("k", 1, invocation.ModeTransaction))
			answer <- string(result.GetValue()) + strconv.FormatBool(err == nil)
		}()
		time.Sleep(10 * time.Second)
		g.refuse.Store(nil)
		time.Sleep(time.Second)
		g.commit()
		if got := <-answer; got != "1true" {
			t.Errorf("answered %s", got)
		}
		if n := g.proposed.Load(); n > 1000 {
			t.Errorf("the log was asked %d times in 10 s", n)
		}
	})
}

// TestReplyWaitsForTheLog is the output gate.
func TestReplyWaitsForTheLog(t *testing.T) {
	withPartition(t, adder{}, func(t *testing.T, r *Router, g *fakeGroup) {
		g.lead()
		synctest.Wait()
		answer := make(chan string, 1)
		go func() {
			result, _ := r.Call(context.Background(), request("k", 1, invocation.ModeTransaction))
			answer <- string(result.GetValue())
		}()
		read := func() string {
			result, err := r.Read(context.Background(), request("k", 0, invocation.ModeRead))
			if err != nil {
				t.Fatal(err)
			}
			return string(result.Value)
		}
		time.Sleep(time.Minute)
		select {
		case got := <-answer:
			t.Fatalf("answered %q before the record was durable", got)
		default:
		}
		if got := read(); got != "" {
			t.Errorf("READ saw %q before it was durable", got)
		}
		g.commit()
		if got := <-answer; got != "1" || read() != "1" {
			t.Errorf("answered %q, READ %q", got, read())
		}
	})
}

// TestRefusedRecordDoesNotEndThePartition: a record that the log can't take costs a leadership,
// not the partition.
func TestRefusedRecordDoesNotEndThePartition(t *testing.T) {
	log, store := openMemLog(t), memstore.New(memstore.Options{MaxBatchBytes: 32 << 10})
	n := startOn(t, log, store, 2, adder{}, func() {})
	defer n.stop()
	big := request("k", 1, invocation.ModeTransaction)
	big.IdempotencyKey, big.RetentionMs = "x", 1000
	big.Mode, big.Input = uint32(invocation.ModeDurable), []byte(strings.Repeat("x", 64<<10))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err := n.Send(ctx, big)
	var coded *routing.Error
	if !errors.As(err, &coded) || coded.Code != routing.CodeUnavailable {
		t.Errorf("a request that no record holds: %v", err)
	}
	for {
		result, err := n.Call(ctx, request("k", 1, invocation.ModeTransaction))
		if err == nil {
			if string(result.Value) != "1" {
				t.Errorf("the sum is %s", result.Value)
			}
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the partition has no leader any more: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// TestCallsEndWithTheNode: whoever calls while the node stops is answered.
func TestCallsEndWithTheNode(t *testing.T) {
	for range 30 {
		log, store := openMemLog(t), memstore.New(memstore.Options{})
		n := startOn(t, log, store, 1, adder{}, func() {})
		var callers sync.WaitGroup
		for range 4 {
			callers.Go(func() {
				for {
					if _, err := n.Call(context.Background(), request("k", 1, invocation.ModeTransaction)); err != nil {
						return
					}
				}
			})
		}
		n.stop()
		ended := make(chan struct{})
		go func() { callers.Wait(); close(ended) }()
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Fatal("a call hangs after the node has stopped")
		}
	}
}
