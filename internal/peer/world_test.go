package peer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/actor"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker/inprocess"
	"github.com/perdure/perdure/internal/partition"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/storage/memstore"
)

// chance is a seeded source that goroutines share.
type chance struct {
	mu struct {
		sync.Mutex
		rand *rand.Rand
	}
}

func (c *chance) intn(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.rand.IntN(n)
}

func (c *chance) between(low, high time.Duration) time.Duration {
	return low + time.Duration(c.intn(int(high-low)+1))
}

// world is a cluster in one process: nodes, what lies between them, and the groups.
type world struct {
	t          testing.TB
	partitions uint32
	chance     *chance
	nodes      map[uint64]*node
	groups     []*group // of partition i+1
	// faults of the network, in thousandths: requests that are not delivered, answers that get
	// lost, frames that get lost, come twice, or late.
	unreachable, unanswered, lost, doubled, late atomic.Int64
	// leadAfter is how long after it was elected a leader begins to lead.
	leadAfter atomic.Int64
	// cut are nodes that nobody reaches.
	cut sync.Map
	// intercept, if set, sees each request before it is delivered.
	intercept atomic.Pointer[func(from, to uint64, request []byte) error]
	sent      atomic.Int64 // requests
	frames    atomic.Int64
	ctx       context.Context
	all       sync.WaitGroup
	stop      func()
}

type node struct {
	*Router
	world  *world
	id     uint64
	server *Server
	local  *partition.Router
	inv    *inprocess.Invoker
}

// newWorld starts nodes 1 to n; partition i is led by node i mod n + 1.
func newWorld(t testing.TB, nodes int, partitions uint32, seed uint64) *world {
	t.Helper()
	return startWorld(t, nodes, make([]*group, partitions), seed)
}

// newWorldOn starts nodes with the data that other groups have.
func newWorldOn(t testing.TB, nodes int, data []*group) *world {
	t.Helper()
	return startWorld(t, nodes, data, 1)
}

func startWorld(t testing.TB, nodes int, data []*group, seed uint64) *world {
	t.Helper()
	partitions := uint32(len(data))
	w := &world{t: t, partitions: partitions, chance: &chance{}, nodes: map[uint64]*node{}}
	w.chance.mu.rand = rand.New(rand.NewPCG(seed, 1))
	for id, from := range data {
		store := memstore.New(memstore.Options{})
		if from != nil {
			store = from.store
		}
		w.groups = append(w.groups, &group{
			world: w, id: uint32(id) + 1, store: store, durable: make(chan proposal, 1000), replicas: map[uint64]*replicated{},
		})
	}
	logger := slog.New(slog.DiscardHandler)
	if os.Getenv("PEER_LOG") != "" {
		logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.ctx = ctx
	for i := range nodes {
		n := &node{world: w, id: uint64(i) + 1}
		n.inv = inprocess.New(inprocess.Config{Logger: logger, InactivityTimeout: 100 * time.Millisecond})
		reg := registrar{t, n.inv}
		bank.RegisterAccountHandler(reg, accounts{})
		bank.RegisterTransferHandler(reg, transfers{})
		bank.RegisterBackOfficeHandler(reg, backOffice{})
		var network Network
		if nodes > 1 {
			network = link{w, n.id}
		}
		var err error
		n.Router, err = New(Config{Node: n.id, Partitions: partitions, Network: network}, func(elsewhere partition.Elsewhere) (*partition.Router, error) {
			return partition.NewRouter(partition.Config{
				Invoker: n.inv, Logger: logger, Partitions: partitions, Node: n.id, Elsewhere: elsewhere,
			}, func(id uint32, p *partition.Partition) partition.Group { return w.groups[id-1].attach(n.id, p) })
		})
		if err != nil {
			t.Fatal(err)
		}
		n.local, n.server = n.Router.local(), NewServer(n.Router)
		w.nodes[n.id] = n
	}
	for _, n := range w.nodes {
		w.all.Go(func() { _ = n.local.Run(ctx) })
	}
	for _, g := range w.groups {
		w.all.Go(func() { g.commit(ctx) })
		for _, r := range g.replicas {
			w.all.Go(func() { r.run(ctx) })
		}
		g.lead(uint64(g.id)%uint64(nodes)+1, 0)
	}
	w.stop = sync.OnceFunc(func() {
		cancel()
		w.all.Wait()
		for _, n := range w.nodes {
			_ = n.inv.Close(context.Background())
		}
	})
	t.Cleanup(w.stop)
	ready, done := context.WithTimeout(ctx, 10*time.Second)
	defer done()
	for _, n := range w.nodes {
		if err := n.Ready(ready); err != nil {
			t.Fatal(err)
		}
	}
	w.settle()
	return w
}

// settle waits until every partition is led by whom its group has elected.
func (w *world) settle() {
	w.t.Helper()
	w.until("the leaders lead", func() bool {
		for _, g := range w.groups {
			leader := g.leader()
			if !w.nodes[leader].local.Leads(g.id) {
				return false
			}
			for _, n := range w.nodes {
				if n.id != leader && n.local.Leads(g.id) {
					return false
				}
			}
		}
		return true
	})
}

func (w *world) until(what string, done func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("in 20 s it did not happen that %s", what)
		}
	}
}

// after calls a function later, unless the world has ended.
func (w *world) after(delay time.Duration, do func()) {
	w.all.Go(func() {
		select {
		case <-time.After(delay):
			do()
		case <-w.ctx.Done():
		}
	})
}

// at is a node that leads a partition, or one that does not.
func (w *world) at(partition uint32, leads bool) *node {
	for id := uint64(1); id <= uint64(len(w.nodes)); id++ {
		if (w.groups[partition-1].leader() == id) == leads {
			return w.nodes[id]
		}
	}
	w.t.Fatalf("no node leads partition %d: %t", partition, leads)
	return nil
}

// keyIn is a key of the n-th account that lives in a partition.
func (w *world) keyIn(partition uint32, n int) string {
	for i := 0; ; i++ {
		key := fmt.Sprint("a", i)
		if invocation.PartitionOf(invocation.Target{Service: bankAccount, Key: key}.Hash(), w.partitions) == partition {
			if n == 0 {
				return key
			}
			n--
		}
	}
}

// link is a node's way to the others.
type link struct {
	world *world
	from  uint64
}

var errBroken = errors.New("the connection broke")

func (l link) hits(rate *atomic.Int64) bool { return int64(l.world.chance.intn(1000)) < rate.Load() }

// Call implements Network.
func (l link) Call(ctx context.Context, to uint64, method string, request []byte) ([]byte, error) {
	w := l.world
	w.sent.Add(1)
	if method != Method {
		w.t.Errorf("method %q", method)
	}
	if intercept := w.intercept.Load(); intercept != nil {
		if err := (*intercept)(l.from, to, request); err != nil {
			return nil, err
		}
	}
	if _, cut := w.cut.Load(to); cut || l.hits(&w.unreachable) {
		return nil, fmt.Errorf("%w: node %d", ErrUnreachable, to)
	}
	time.Sleep(w.chance.between(10*time.Microsecond, time.Millisecond))
	type answer struct {
		data []byte
		err  error
	}
	answers := make(chan answer, 1)
	within, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(w.ctx, cancel)
	w.all.Go(func() {
		defer cancel()
		defer stop()
		data, err := w.nodes[to].server.Call(within, l.from, append([]byte{}, request...))
		answers <- answer{data, err}
	})
	if l.hits(&w.unanswered) {
		if w.chance.intn(2) == 0 { // before the other side has done anything, or when it has
			<-answers
		}
		return nil, errBroken
	}
	select {
	case a := <-answers:
		time.Sleep(w.chance.between(10*time.Microsecond, time.Millisecond))
		if _, cut := w.cut.Load(to); cut {
			return nil, errBroken
		}
		return a.data, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Send implements Network.
func (l link) Send(to uint64, frame []byte) {
	w := l.world
	w.frames.Add(1)
	_, cut := w.cut.Load(to)
	if _, from := w.cut.Load(l.from); cut || from || l.hits(&w.lost) {
		return
	}
	times := 1
	if l.hits(&w.doubled) {
		times = 2
	}
	for range times {
		delay := w.chance.between(10*time.Microsecond, time.Millisecond)
		if l.hits(&w.late) {
			delay = w.chance.between(0, 2*time.Second)
		}
		w.after(delay, func() {
			if err := w.nodes[to].server.Frame(l.from, frame); err != nil {
				w.t.Errorf("frame: %v", err)
			}
		})
	}
}

type registrar struct {
	t   testing.TB
	inv *inprocess.Invoker
}

func (r registrar) RegisterService(desc *actor.ServiceDesc, handler any) {
	if err := r.inv.Register(desc, handler); err != nil {
		r.t.Fatal(err)
	}
}

const (
	bankAccount  = "bank.v1.AccountService"
	bankTransfer = "bank.v1.TransferService"
	bankOffice   = "bank.v1.BackOfficeService"
)

// accounts, transfers and backOffice are what the nodes run.
type accounts struct {
	bank.UnimplementedAccountHandler
}

func (accounts) Deposit(ctx bank.AccountTxContext, req *bankv1.DepositRequest) (*bankv1.DepositResponse, error) {
	balance := ctx.State().Get().GetBalance() + req.Amount
	ctx.Ledger().Put(fmt.Sprint(balance), &bankv1.LedgerEntry{Amount: req.Amount})
	ctx.State().Set(&bankv1.AccountState{Balance: balance})
	return &bankv1.DepositResponse{Balance: balance}, nil
}

func (accounts) Withdraw(ctx bank.AccountTxContext, req *bankv1.WithdrawRequest) (*bankv1.WithdrawResponse, error) {
	balance := ctx.State().Get().GetBalance() - req.Amount
	if balance < 0 {
		return nil, actor.Errorf(actor.FailedPrecondition, "there are %d less", -balance)
	}
	ctx.State().Set(&bankv1.AccountState{Balance: balance})
	return &bankv1.WithdrawResponse{Balance: balance}, nil
}

func (accounts) Balance(ctx bank.AccountReadContext, _ *bankv1.BalanceRequest) (*bankv1.BalanceResponse, error) {
	return &bankv1.BalanceResponse{Balance: ctx.State().Get().GetBalance()}, nil
}

// CloseOut takes three seconds, or waits for its first entry, an awakeable.
func (accounts) CloseOut(ctx bank.AccountDurableContext, req *bankv1.CloseOutRequest) (*bankv1.CloseOutResponse, error) {
	if req.Iban == "wait" {
		_, err := actor.NewAwakeable[string](ctx).Await(ctx)
		return &bankv1.CloseOutResponse{}, err
	}
	return &bankv1.CloseOutResponse{}, actor.Sleep(ctx, 3*time.Second)
}

type transfers struct {
	bank.UnimplementedTransferHandler
}

func (transfers) Transfer(ctx actor.Context, req *bankv1.TransferRequest) (*bankv1.TransferResponse, error) {
	if _, err := bank.Account(ctx, req.To).Deposit(ctx, &bankv1.DepositRequest{Amount: req.Amount}); err != nil {
		return nil, err
	}
	_, err := bank.Account(ctx, req.From).Withdraw(ctx, &bankv1.WithdrawRequest{Amount: req.Amount})
	return nil, err
}

type backOffice struct {
	bank.UnimplementedBackOfficeHandler
}

func (backOffice) Total(ctx actor.Context, req *bankv1.TotalRequest) (*bankv1.TotalResponse, error) {
	total := &bankv1.TotalResponse{}
	for _, id := range req.AccountIds {
		balance, err := bank.Account(ctx, id).Balance(ctx, &bankv1.BalanceRequest{})
		if err != nil {
			return nil, err
		}
		total.Sum += balance.Balance
	}
	return total, nil
}

// StandingOrder transfers, or deposits if it is from nowhere.
func (backOffice) StandingOrder(ctx actor.Context, req *bankv1.StandingOrderRequest) (*bankv1.StandingOrderResponse, error) {
	order := &bankv1.StandingOrderResponse{}
	for range req.Times {
		if req.From == "" {
			if _, err := bank.Account(ctx, req.To).Deposit(ctx, &bankv1.DepositRequest{Amount: req.Amount}); err != nil {
				return nil, err
			}
			order.Made++
			continue
		}
		if _, err := bank.Transfer(ctx).Transfer(ctx, &bankv1.TransferRequest{From: req.From, To: req.To, Amount: req.Amount}); err != nil {
			return nil, err
		}
		order.Made++
	}
	return order, nil
}

// invoke makes a request. Without an idempotency key its id is its own.
func invoke(service, key, handler string, mode invocation.Mode, idempotency string, request proto.Message) *recordv1.Invoke {
	input, err := proto.MarshalOptions{Deterministic: true}.Marshal(request)
	if err != nil {
		panic(err)
	}
	t := invocation.Target{Service: service, Key: key, Handler: handler}
	in := &recordv1.Invoke{
		Target: &recordv1.Target{Service: service, Key: key, Handler: handler}, Mode: uint32(mode), Input: input, IdempotencyKey: idempotency,
	}
	var id invocation.ID
	if idempotency != "" {
		id, in.RetentionMs = invocation.DerivedID(t, "idempotency", idempotency), (24 * time.Hour).Milliseconds()
	} else {
		hash := t.Hash()
		if key == "" {
			hash = rand.Uint64()
		}
		id = invocation.NewID(hash, uuid.Must(uuid.NewV7()))
	}
	if mode == invocation.ModeDurable {
		in.RetentionMs = (24 * time.Hour).Milliseconds()
	}
	in.InvocationId = id[:]
	return in
}

func deposit(key, idempotency string, amount int64) *recordv1.Invoke {
	return invoke(bankAccount, key, "Deposit", invocation.ModeTransaction, idempotency, &bankv1.DepositRequest{AccountId: key, Amount: amount})
}

// balance reads an account.
func (n *node) balance(ctx context.Context, key string) (int64, error) {
	result, err := n.Read(ctx, invoke(bankAccount, key, "Balance", invocation.ModeRead, "", &bankv1.BalanceRequest{AccountId: key}))
	if err != nil {
		return 0, err
	}
	if result.Error != nil {
		return 0, errors.New(result.Error.Message)
	}
	response := &bankv1.BalanceResponse{}
	err = proto.Unmarshal(result.Value, response)
	return response.Balance, err
}
