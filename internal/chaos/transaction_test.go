//go:build unix

package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/cluster"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
	chaosv1 "github.com/perdure/perdure/internal/chaos/gen/chaos/v1"
	lists "github.com/perdure/perdure/internal/chaos/gen/chaos/v1/chaosv1perdure"
	"github.com/perdure/perdure/internal/history"
)

const (
	listsAtOnce = 6   // the handful that transactions meet on
	listLength  = 150 // about how long they get before the next handful: reads return all of it
	tills       = 7
	float       = 1_000 // what each till begins with
)

// shelf hands out lists and values.
type shelf struct {
	last atomic.Int64
	seen *history.Recorder
}

func (s *shelf) value() int64 { return s.last.Add(1) }

// name is of one of the lists in use.
func (s *shelf) name(i int) string {
	return fmt.Sprintf("%d/%d", s.last.Load()/(listLength*listsAtOnce), i%listsAtOnce)
}

// plan makes up a transaction: what it does, what it may append and what it takes back.
func (s *shelf) plan(random *rand.Rand) (request *chaosv1.RunRequest, ops, undone []history.Op) {
	request = &chaosv1.RunRequest{Together: random.IntN(2) == 0, Fail: random.IntN(12) == 0}
	first, onlyReads := random.IntN(listsAtOnce), random.IntN(4) == 0
	for i := range 2 + random.IntN(3) {
		step := &chaosv1.Step{Name: s.name(first + i)}
		if !request.Together && random.IntN(3) == 0 {
			step.Name = s.name(random.IntN(listsAtOnce)) // perhaps one it has met before
		}
		if !onlyReads && random.IntN(3) > 0 {
			step.Value, step.Fail = s.value(), random.IntN(10) == 0
			if op := history.Append(step.Name, step.Value); step.Fail || request.Fail {
				undone = append(undone, op)
			} else {
				ops = append(ops, op)
			}
		}
		request.Steps = append(request.Steps, step)
	}
	return request, ops, undone
}

// run makes one transaction and notes what came of it.
func (s *shelf) run(ctx context.Context, caller *actor.Client, process int, random *rand.Rand) error {
	request, appends, undone := s.plan(random)
	s.seen.Begin(process).Aborted(undone...)
	call, leave := ctx, context.CancelFunc(func() {})
	if random.IntN(100) == 0 { // a caller that goes away without an answer
		call, leave = context.WithTimeout(ctx, upTo(random, 10*time.Millisecond))
	}
	defer leave()
	pending := s.seen.Begin(process, appends...)
	response, err := lists.Batch(caller).Run(call, request)
	switch {
	case err == nil:
	case request.Fail && actor.CodeOf(err) == actor.Aborted:
		pending.Aborted()
		return nil
	case call.Err() != nil || actor.CodeOf(err) == actor.DeadlineExceeded && call != ctx:
		pending.Unknown(appends...)
		return nil
	default:
		pending.Unknown(appends...)
		return fmt.Errorf("%v: %w", request, err)
	}
	var ops []history.Op
	for i, saw := range response.Saw {
		step := request.Steps[i]
		if saw.Failed != step.Fail {
			return fmt.Errorf("%v: step %d has failed: %t", request, i+1, saw.Failed)
		}
		if step.Fail {
			continue
		}
		if step.Value != 0 {
			ops = append(ops, history.Append(step.Name, step.Value))
		}
		ops = append(ops, history.Read(step.Name, saw.Values))
	}
	pending.Committed(ops...)
	return nil
}

// single is a READ outside of any transaction, or an append.
func (s *shelf) single(ctx context.Context, caller *actor.Client, process int, random *rand.Rand) error {
	name := s.name(random.IntN(listsAtOnce))
	if random.IntN(3) == 0 {
		op := history.Append(name, s.value())
		pending := s.seen.Begin(process, op)
		response, err := lists.List(caller, name).Append(ctx, &chaosv1.AppendRequest{Value: op.Value})
		if err != nil {
			pending.Unknown(op)
			return fmt.Errorf("append to %s: %w", name, err)
		}
		pending.Committed(op, history.Read(name, response.Values))
		return nil
	}
	pending := s.seen.Begin(process)
	values, err := s.get(ctx, caller, name)
	if err != nil {
		return err
	}
	pending.Committed(history.Read(name, values))
	return nil
}

// get reads a list, however often that takes.
func (s *shelf) get(ctx context.Context, caller *actor.Client, name string) ([]int64, error) {
	for {
		response, err := lists.List(caller, name).Get(ctx, &chaosv1.GetRequest{})
		if actor.CodeOf(err) == actor.Unavailable && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		return response.Values, nil
	}
}

func till(i int) string { return fmt.Sprint("till/", i) }

// trade moves money between tills, or counts what is in all of them: at any time the same.
func trade(ctx context.Context, caller *actor.Client, random *rand.Rand, names []string) error {
	if random.IntN(4) == 0 {
		total, err := bank.BackOffice(caller).Total(ctx, &bankv1.TotalRequest{AccountIds: names})
		if err != nil {
			return fmt.Errorf("total: %w", err)
		}
		if total.Sum != tills*float {
			return fmt.Errorf("a transaction counted %d, there is %d", total.Sum, tills*float)
		}
		return nil
	}
	from := random.IntN(tills)
	to := (from + 1 + random.IntN(tills-1)) % tills
	_, err := bank.Transfer(caller).Transfer(ctx, &bankv1.TransferRequest{From: names[from], To: names[to], Amount: 1 + random.Int64N(600)})
	if err != nil && actor.CodeOf(err) != actor.FailedPrecondition { // too little in it
		return fmt.Errorf("transfer: %w", err)
	}
	return nil
}

// TestKillTransactions kills a node in the middle of transactions over several objects and
// proves from what their callers saw that they are strictly serializable: each has happened at
// one instant between its call and its answer, or not at all. Nothing is locked or in doubt
// afterwards, with nobody's help.
func TestKillTransactions(t *testing.T) {
	random := choices(t)
	n := newNode(t, t.TempDir(), nodeSettings{Partitions: 8})
	n.start()
	length := *chaosFor * 2 / 3
	if testing.Short() {
		length = min(length, 4*time.Second)
	}
	transactUnderLoad(t, random, []*node{n}, length, func(ctx context.Context) string {
		kills, pauses, _ := n.torment(ctx, random)
		return fmt.Sprintf("%d kills, %d pauses", kills, pauses)
	})
}

// transactUnderLoad makes transactions through nodes, while they are tormented until its ctx ends,
// and proves what TestKillTransactions says.
func transactUnderLoad(t *testing.T, random *rand.Rand, nodes []*node, length time.Duration, torment func(context.Context) string) {
	patience, giveUp := context.WithTimeout(t.Context(), length+time.Minute)
	defer giveUp()
	var names []string
	for i := range tills {
		names = append(names, till(i))
		if _, err := bank.Account(cluster.Dial(nil, urls(nodes)...), till(i)).Deposit(patience, &bankv1.DepositRequest{Amount: float}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	s := &shelf{seen: history.NewRecorder()}
	var callers sync.WaitGroup
	var done [3]atomic.Int64
	for process := range 24 {
		caller, own := cluster.Dial(nil, urls(nodes)...), rand.New(rand.NewPCG(random.Uint64(), 0))
		kind := min(process%4, 2) // half of them trade
		callers.Go(func() {
			for ctx.Err() == nil {
				var err error
				switch kind {
				case 0:
					err = s.run(patience, caller, process, own)
				case 1:
					if own.IntN(2) == 0 {
						err = s.single(patience, caller, process, own)
					} else {
						err = s.run(patience, caller, process, own)
					}
				default:
					err = trade(patience, caller, own, names)
				}
				if err != nil {
					t.Error(err)
					return
				}
				done[kind].Add(1)
			}
		})
	}
	troubles := torment(ctx)
	callers.Wait()

	caller := cluster.Dial(nil, urls(nodes)...)
	if total, err := bank.BackOffice(caller).Total(patience, &bankv1.TotalRequest{AccountIds: names}); err != nil || total.Sum != tills*float {
		t.Errorf("in the end the tills hold %d, not %d: %v", total.GetSum(), tills*float, err)
	}
	for _, name := range names { // None is locked.
		if _, err := bank.Account(caller, name).Deposit(patience, &bankv1.DepositRequest{Amount: 1}); err != nil {
			t.Error(err)
		}
	}
	nodes[0].noTransactions(patience)
	final := map[string][]int64{}
	recorded := s.seen.History()
	for _, txn := range recorded {
		for _, op := range txn.Ops {
			if _, ok := final[op.Key]; ok {
				continue
			}
			// An append waits for whoever holds the list.
			if _, err := lists.List(caller, op.Key).Append(patience, &chaosv1.AppendRequest{Value: -1, Fail: true}); actor.CodeOf(err) != actor.Aborted {
				t.Fatalf("%s is locked: %v", op.Key, err)
			}
			values, err := s.get(patience, caller, op.Key)
			if err != nil {
				t.Fatal(err)
			}
			final[op.Key] = values
		}
	}
	began := time.Now()
	if found := history.Check(recorded, history.Options{Realtime: true, Final: final}); len(found) > 0 {
		t.Errorf("the history of %d transactions is not strictly serializable:\n%s", len(recorded), history.Format(found))
	}
	t.Logf("%s; %d calls to lists, %d trades; history of %d transactions over %d lists checked in %s",
		troubles, done[0].Load()+done[1].Load(), done[2].Load(), len(recorded), len(final), time.Since(began).Round(time.Millisecond))
	if done[0].Load() == 0 || done[2].Load() == 0 {
		t.Error("nothing was done")
	}
}

// noTransactions waits until no transaction is under way: what callers have left behind ends by
// itself.
func (n *node) noTransactions(ctx context.Context) {
	n.t.Helper()
	client := &http.Client{}
	for deadline := time.Now().Add(10 * time.Second); ; {
		got, err := n.post(ctx, client, "/perdure.admin.v1.AdminService/ListTransactions", "{}")
		switch {
		case err != nil || got.status != http.StatusOK:
			n.t.Errorf("list of transactions: %v %s", err, got.body)
			return
		case !strings.Contains(got.body, "transactions"):
			return
		case time.Now().After(deadline):
			n.t.Errorf("transactions are left: %s", got.body)
			return
		}
		time.Sleep(20 * time.Millisecond) // polling another process
	}
}
