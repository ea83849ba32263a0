package partition

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/engine"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	"github.com/perdure/perdure/internal/table"
	"github.com/perdure/perdure/internal/transaction"
	"github.com/perdure/perdure/storage"
	"github.com/perdure/perdure/storage/memstore"
)

// promising is a partition, the first of two, that has promised to write "new" to an object that
// holds "old". The transaction's coordinator is the other one, which nobody leads.
type promising struct {
	*Router
	group  *fakeGroup
	target *recordv1.Target
	id     transaction.ID
}

func withPromise(t *testing.T, inv invoker.Invoker, test func(t *testing.T, w *promising)) {
	synctest.Test(t, func(t *testing.T) {
		g := &fakeGroup{t: t, store: memstore.New(memstore.Options{})}
		router, err := NewRouter(Config{Invoker: inv, Partitions: 2}, func(id uint32, p *Partition) Group {
			if id != 1 {
				return &fakeGroup{t: t, store: memstore.New(memstore.Options{})}
			}
			g.listener = p
			return g
		})
		if err != nil {
			t.Fatal(err)
		}
		w := &promising{Router: router, group: g, id: transaction.ID{Root: invocation.NewID(1<<63, [16]byte{1}), Sequence: 1<<32 | 1}}
		w.target = request(w.keyIn(1, "a"), 1, invocation.ModeRead).Target
		w.promise(t)
		ctx, cancel := context.WithCancel(context.Background())
		var all sync.WaitGroup
		all.Go(func() { _ = router.Run(ctx) })
		defer all.Wait()
		defer cancel()
		g.lead()
		test(t, w)
	})
}

// keyIn is a key in a partition.
func (w *promising) keyIn(partition uint32, key string) string {
	for w.ofObject(invocation.Object{Service: "bench.v1.CounterService", Key: key}).id != partition {
		key += "a"
	}
	return key
}

// promise puts the promise into the store, and the state before it.
func (w *promising) promise(t *testing.T) {
	t.Helper()
	p := transaction.NewParticipant(w.id, transaction.Age{At: 1, Root: w.id.Root}, 1)
	p.Want(w.target, false).Write("", []*recordv1.Entry{{Entry: &recordv1.Entry_SetState{SetState: &recordv1.SetState{Value: []byte("new")}}}})
	row, err := proto.Marshal(p.Record(w.id.Record()))
	if err != nil {
		t.Fatal(err)
	}
	var batch storage.Batch
	batch.Put(table.Prepared(w.id.Root, w.id.Sequence), append([]byte{0}, row...))
	batch.Put(table.State(invocation.Object{Service: w.target.Service, Key: w.target.Key}), append([]byte{0}, "old"...))
	if err := w.group.store.Commit(&batch); err != nil {
		t.Fatal(err)
	}
}

// commit tells the partition that the transaction has committed, and makes what it writes durable.
func (w *promising) commit() {
	w.partitions[0].postEvent(&engine.Told{Peer: &recordv1.Peer{
		Id: w.id.Record(), Message: &recordv1.Peer_Commit{Commit: &recordv1.Commit{}},
	}})
	time.Sleep(2 * lazyDelay)
	w.group.commit()
	synctest.Wait()
}

type answered struct {
	value string
	err   error
}

// fromOutside marks the context of the READ that a test makes: the partition asks the group too.
type fromOutside struct{}

// read calls a READ handler of the object. meanwhile, if any, happens when the partition has found
// that it leads, and before it looks at anything.
func (w *promising) read(meanwhile func()) chan answered {
	if meanwhile != nil {
		w.group.barrier = func(ctx context.Context) error {
			if ctx.Value(fromOutside{}) != nil {
				meanwhile()
			}
			return nil
		}
	}
	in := request(w.target.Key, 1, invocation.ModeRead)
	answer := make(chan answered, 1)
	go func() {
		result, err := w.Read(context.WithValue(context.Background(), fromOutside{}, true), in)
		answer <- answered{string(result.GetValue()), err}
	}()
	return answer
}

func (a answered) unavailable() bool {
	var coded *routing.Error
	return errors.As(a.err, &coded) && coded.Code == routing.CodeUnavailable
}

// TestReadLooksOnceItsObjectIsShown: the promise has been kept since the READ began, and its caller
// may have its answer.
func TestReadLooksOnceItsObjectIsShown(t *testing.T) {
	withPromise(t, adder{}, func(t *testing.T, w *promising) {
		if got := <-w.read(w.commit); got.err != nil || got.value != "new" {
			t.Errorf("it sees %q, %v; want what was promised and is durable", got.value, got.err)
		}
	})
	withPromise(t, adder{}, func(t *testing.T, w *promising) {
		answer := w.read(nil)
		synctest.Wait()
		select {
		case got := <-answer:
			t.Fatalf("it sees %q, %v before the promise is kept", got.value, got.err)
		default:
		}
		w.commit()
		if got := <-answer; got.err != nil || got.value != "new" {
			t.Errorf("it sees %q, %v; want what was promised", got.value, got.err)
		}
	})
}

// TestReadAcrossTwoLeaderships: the partition loses its leader while a READ is on its way, and the
// next one keeps the promise, before or after the READ goes on.
func TestReadAcrossTwoLeaderships(t *testing.T) {
	for name, kept := range map[string]bool{"the promise is kept before": true, "and after": false} {
		t.Run(name, func(t *testing.T) {
			withPromise(t, adder{}, func(t *testing.T, w *promising) {
				followed := make(chan struct{})
				answer := w.read(func() {
					w.group.stepDown()
					w.group.lead()
					if kept {
						w.commit()
					}
					close(followed)
				})
				if <-followed; !kept {
					synctest.Wait()
					w.commit()
				}
				if got := <-answer; !got.unavailable() {
					t.Errorf("it sees %q, %v; want it to be called again", got.value, got.err)
				}
			})
		})
	}
}

// lingerer is an invoker whose attempts take their time when they are aborted.
type lingerer struct {
	adder
	aborted chan struct{}
}

func (l lingerer) Start(*invoker.Attempt) invoker.Running { return l }

func (l lingerer) Abort(error) { <-l.aborted }

// TestReadWhenItsLeadershipEnds: what was hidden is hidden no more, and the snapshot that is still
// there knows nothing of the promise, which may have been kept elsewhere.
func TestReadWhenItsLeadershipEnds(t *testing.T) {
	inv := lingerer{aborted: make(chan struct{})}
	withPromise(t, inv, func(t *testing.T, w *promising) {
		go func() { _, _ = w.Call(context.Background(), request(w.keyIn(1, "b"), 1, invocation.ModeTransaction)) }()
		answer := w.read(nil)
		synctest.Wait() // It waits for the object to be shown.
		w.group.stepDown()
		if got := <-answer; !got.unavailable() {
			t.Errorf("it sees %q, %v; want it to be called again", got.value, got.err)
		}
		close(inv.aborted)
	})
}
