package cluster_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/cluster"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
	shopv1 "github.com/perdure/perdure/examples/orders/gen/shop/v1"
	shop "github.com/perdure/perdure/examples/orders/gen/shop/v1/shopv1perdure"
)

// transferring moves money in one transaction.
type transferring struct {
	bank.UnimplementedTransferHandler
}

func (transferring) Transfer(ctx actor.Context, req *bankv1.TransferRequest) (*bankv1.TransferResponse, error) {
	if _, err := bank.Account(ctx, req.GetFrom()).Withdraw(ctx, &bankv1.WithdrawRequest{Amount: req.GetAmount()}); err != nil {
		return nil, err
	}
	_, err := bank.Account(ctx, req.GetTo()).Deposit(ctx, &bankv1.DepositRequest{Amount: req.GetAmount()})
	return &bankv1.TransferResponse{}, err
}

// orders takes the price, has it approved, and waits for a courier.
type orders struct {
	shop.UnimplementedOrderHandler
	mailed *mails
}

type mails struct {
	sync.Mutex
	of map[string]int
}

func (m *mails) times(key string) int {
	m.Lock()
	defer m.Unlock()
	return m.of[key]
}

func (o orders) Run(ctx shop.OrderRunContext, req *shopv1.RunRequest) (*shopv1.RunResponse, error) {
	ctx.State().Update(func(s *shopv1.OrderState) { s.SetPhase("paying") })
	if _, err := bank.Account(ctx, req.GetCustomer()).Withdraw(ctx, &bankv1.WithdrawRequest{Amount: req.GetPrice()}); err != nil {
		return nil, err
	}
	if _, err := ctx.Approve().Receive(ctx); err != nil {
		return nil, err
	}
	courier, err := ctx.Courier().Await(ctx)
	if err != nil {
		return nil, err
	}
	err = actor.Do(ctx, "mail", func(context.Context) error {
		o.mailed.Lock()
		defer o.mailed.Unlock()
		o.mailed.of[ctx.Key()]++
		return nil
	})
	ctx.State().Update(func(s *shopv1.OrderState) { s.SetPhase("shipped") })
	return shopv1.RunResponse_builder{Courier: new(courier.GetCourier())}.Build(), err
}

func (orders) AssignCourier(ctx shop.OrderReadContext, req *shopv1.AssignCourierRequest) (*shopv1.AssignCourierResponse, error) {
	return nil, ctx.Courier().Resolve(ctx, shopv1.CourierAssigned_builder{Courier: new(req.GetCourier())}.Build())
}

func (orders) Status(ctx shop.OrderReadContext, _ *shopv1.StatusRequest) (*shopv1.StatusResponse, error) {
	return shopv1.StatusResponse_builder{Phase: new(ctx.State().Get().GetPhase())}.Build(), nil
}

// member is a node of a cluster that hosts what register gives it.
type member struct {
	*cluster.Node
	dir      string
	gossip   string // where it listens; "": anywhere, elsewhere each time
	register func(*cluster.Node)
}

// memberLog is what a node logs. One that was lost may still do so when the test ends.
type memberLog struct {
	mu struct {
		sync.Mutex
		text bytes.Buffer
	}
}

func (l *memberLog) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.text.Write(line)
}

func (l *memberLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.text.String()
}

// build makes the member's node.
func (m *member) build(t *testing.T, join ...string) *cluster.Node {
	log := &memberLog{}
	node := cluster.NewNode(
		cluster.WithDataDir(m.dir), cluster.WithListen("127.0.0.1:0"), cluster.WithPartitions(6),
		cluster.WithLogger(slog.New(slog.NewTextHandler(log, nil))),
		cluster.WithPeers(cluster.Peers{Listen: cmp.Or(m.gossip, "127.0.0.1:0"), TransportListen: "127.0.0.1:0", Join: join}),
	)
	m.register(node)
	dir := m.dir
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of the node in %s:\n%s", dir, log)
		}
	})
	return node
}

// begin starts the member, or starts it again.
func (m *member) begin(t *testing.T, join ...string) {
	t.Helper()
	m.Node = m.build(t, join...)
	if err := m.Start(soon(t)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cutOff(t, m.Node) })
}

// soon is the test's context for a minute, longer than anything here may take. A call has no bound of its own while it is
// answered, so that one that never is would say nothing before the whole package ran out of time.
func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits until do does.
func eventually(t *testing.T, do func() error) {
	t.Helper()
	until := time.Now().Add(30 * time.Second)
	for err := do(); err != nil; err = do() {
		if time.Now().After(until) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond) // polling real nodes, until the deadline above
	}
}

// TestServicesElsewhere: of three nodes one hosts accounts, one orders and transferring, and one nothing.
// Each takes calls of all of them, and what a lost node hosted waits until it is there again.
func TestServicesElsewhere(t *testing.T) {
	mailed := &mails{of: map[string]int{}}
	banks := &member{dir: t.TempDir(), register: func(n *cluster.Node) { bank.RegisterAccountHandler(n, accounts{}) }}
	shops := &member{dir: t.TempDir(), register: func(n *cluster.Node) {
		shop.RegisterOrderHandler(n, orders{mailed: mailed})
		bank.RegisterTransferHandler(n, transferring{})
	}}
	nothing := &member{dir: t.TempDir(), register: func(*cluster.Node) {}}
	banks.begin(t)
	shops.begin(t, banks.PeerAddress())
	nothing.begin(t, banks.PeerAddress())
	members := []*member{banks, shops, nothing}
	replicated := func() error {
		_, body := request(t, nothing.URL()+"/perdure.admin.v1.ClusterService/GetCluster", "{}")
		if voters := strings.Count(strings.ReplaceAll(body, " ", ""), `"votes":6`); voters != 3 {
			return fmt.Errorf("%d nodes vote everywhere: %s", voters, body)
		}
		for _, want := range []string{`"services":["bank.v1.AccountService"]`, `"services":["bank.v1.TransferService","shop.v1.OrderService"]`} {
			if !strings.Contains(strings.ReplaceAll(body, " ", ""), want) {
				return fmt.Errorf("%s lacks %s", body, want)
			}
		}
		return nil
	}
	// What a node has learned of the others it takes calls of.
	for _, m := range members {
		eventually(t, func() error {
			_, body := request(t, m.URL()+"/perdure.admin.v1.AdminService/ListServices", "{}")
			for _, name := range []string{"bank.v1.AccountService", "bank.v1.TransferService", "shop.v1.OrderService"} {
				if !strings.Contains(body, name) {
					return fmt.Errorf("%s does not list %s", body, name)
				}
			}
			return nil
		})
	}

	account := func(n int) string { return fmt.Sprintf("account-%d", n%12) }
	for i, m := range members {
		for n := range 12 { // accounts of all partitions
			path, body := depositPath, fmt.Sprintf(`{"accountId":%q,"amount":"10"}`, account(n))
			eventually(t, func() error { // leaderships still move to the nodes that have come, and a partition may have none
				if status, answer := keyed(t, m.URL()+path, fmt.Sprint(i, " ", n), body); status != http.StatusOK {
					return fmt.Errorf("deposit by way of node %d: %d %s", i, status, answer)
				}
				return nil
			})
		}
		for _, client := range []*actor.Client{m.Client(), cluster.Dial(nil, m.URL())} {
			_, err := bank.Transfer(client).Transfer(soon(t), &bankv1.TransferRequest{TransferId: fmt.Sprintf("%d %p", i, client), From: account(i), To: account(i + 5), Amount: 1})
			if err != nil {
				t.Fatalf("transfer by way of node %d: %v", i, err)
			}
			_, err = bank.Account(client, account(i)).Withdraw(soon(t), &bankv1.WithdrawRequest{Amount: 1000})
			if actor.CodeOf(err) != actor.FailedPrecondition || !strings.Contains(err.Error(), "has only") {
				t.Errorf("a withdrawal that is refused, by way of node %d: %v", i, err)
			}
			key := fmt.Sprintf("order-%d-%p", i, client)
			order := shop.Order(client, key)
			sent, err := order.RunSend(soon(t), shopv1.RunRequest_builder{Customer: new(account(i + 3)), Price: new(int64(2))}.Build())
			if err != nil {
				t.Fatalf("order by way of node %d: %v", i, err)
			}
			if _, err := order.Approve(soon(t), &shopv1.ApproveRequest{}); err != nil {
				t.Fatalf("signal by way of node %d: %v", i, err)
			}
			if _, err := order.AssignCourier(soon(t), shopv1.AssignCourierRequest_builder{Courier: new("c")}.Build()); err != nil {
				t.Fatalf("promise by way of node %d: %v", i, err)
			}
			done, err := sent.Attach(soon(t))
			if err != nil || done.GetCourier() != "c" {
				t.Fatalf("order by way of node %d ended with %v, %v", i, done, err)
			}
			status, err := order.Status(soon(t), &shopv1.StatusRequest{})
			// A Run whose partition has another leader before its result is written runs again, and leaderships still move.
			if err != nil || status.GetPhase() != "shipped" || mailed.times(key) == 0 {
				t.Errorf("order by way of node %d: %v %v, mailed %d times", i, status, err, mailed.times(key))
			}
		}
	}
	status, answer := request(t, nothing.URL()+"/bank.v1.AccountService/Nonsense", `{}`)
	if status == http.StatusOK || !strings.Contains(answer, "has no handler") {
		t.Errorf("a handler that no node has: %d %s", status, answer)
	}
	// 12 accounts of 30, and each of 6 orders took 2.
	total := func(client *actor.Client) (sum int64) {
		for n := range 12 {
			got, err := bank.Account(client, account(n)).Balance(soon(t), &bankv1.BalanceRequest{})
			if err != nil {
				t.Fatal(err)
			}
			sum += got.Balance
		}
		return sum
	}
	for i, m := range members {
		if got := total(m.Client()); got != 12*30-6*2 {
			t.Errorf("by way of node %d the accounts hold %d, not %d", i, got, 12*30-6*2)
		}
	}

	// The node with accounts is gone: orders go on as far as they can.
	eventually(t, replicated)
	cutOff(t, banks.Node)
	sent, err := shop.Order(nothing.Client(), "late").RunSend(soon(t), shopv1.RunRequest_builder{Customer: new(account(0)), Price: new(int64(3))}.Build())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := shop.Order(nothing.Client(), "late").Approve(soon(t), &shopv1.ApproveRequest{}); err != nil {
		t.Fatal(err)
	}
	banks.begin(t, nothing.PeerAddress())
	if _, err := shop.Order(banks.Client(), "late").AssignCourier(soon(t), shopv1.AssignCourierRequest_builder{Courier: new("d")}.Build()); err != nil {
		t.Fatal(err)
	}
	if done, err := sent.Attach(soon(t)); err != nil || done.GetCourier() != "d" {
		t.Fatalf("the order that waited ended with %v, %v", done, err)
	}
	if got := total(nothing.Client()); got != 12*30-6*2-3 {
		t.Errorf("in the end the accounts hold %d, not %d", got, 12*30-6*2-3)
	}
}

// TestServiceThatIsGoneIsKept: a build without a service that there is data of is refused by a node that
// is alone, and not by one with peers, any of which may host the service, now or later.
func TestServiceThatIsGoneIsKept(t *testing.T) {
	m := &member{dir: t.TempDir(), register: func(n *cluster.Node) { bank.RegisterAccountHandler(n, accounts{}) }}
	m.begin(t)
	if _, err := bank.Account(m.Client(), "alice").Deposit(soon(t), &bankv1.DepositRequest{Amount: 5}); err != nil {
		t.Fatal(err)
	}
	hosting := m.register
	m.stop(t)
	alone := cluster.NewNode(cluster.WithDataDir(m.dir), cluster.WithoutListener(), cluster.WithLogger(slog.New(slog.DiscardHandler)))
	if err := alone.Start(soon(t)); err == nil || !strings.Contains(err.Error(), accountService) {
		t.Fatalf("the node that is alone: %v", err)
	}
	m.register = func(*cluster.Node) {}
	m.begin(t)
	_, err := bank.Account(m.Client(), "alice").Deposit(soon(t), &bankv1.DepositRequest{Amount: 5})
	if actor.CodeOf(err) != actor.Unimplemented || !strings.Contains(err.Error(), accountService+" is not registered") {
		t.Errorf("a call of what no node hosts: %v", err)
	}
	m.stop(t)
	m.register = hosting
	m.begin(t)
	got, err := bank.Account(m.Client(), "alice").Deposit(soon(t), &bankv1.DepositRequest{Amount: 5})
	if err != nil || got.Balance != 10 {
		t.Errorf("a call once it is hosted again: %v %v", got, err)
	}
}

const accountService = "bank.v1.AccountService"

func (m *member) stop(t *testing.T) {
	t.Helper()
	stopNode(t, m.Node)
}
