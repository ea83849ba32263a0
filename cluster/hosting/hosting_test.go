package hosting

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/perdure/perdure/actor"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
	counter "github.com/perdure/perdure/examples/counter/gen/counter/v1/counterv1perdure"
	shop "github.com/perdure/perdure/examples/orders/gen/shop/v1/shopv1perdure"
	chaos "github.com/perdure/perdure/internal/chaos/gen/chaos/v1/chaosv1perdure"
	"github.com/perdure/perdure/internal/deployment"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// registered collects descriptions as a node does.
type registered []*actor.ServiceDesc

func (r *registered) RegisterService(desc *actor.ServiceDesc, _ any) { *r = append(*r, desc) }

func services(register ...func(actor.Registrar)) registered {
	var r registered
	for _, do := range register {
		do(&r)
	}
	return r
}

func withAccounts(r actor.Registrar) {
	bank.RegisterAccountHandler(r, bank.UnimplementedAccountHandler{})
}
func withTransfers(r actor.Registrar) {
	bank.RegisterTransferHandler(r, bank.UnimplementedTransferHandler{})
}
func withOrders(r actor.Registrar) {
	shop.RegisterOrderHandler(r, shop.UnimplementedOrderHandler{})
}

func buildOf(t *testing.T, name string, from registered) *deployment.Build {
	t.Helper()
	var list []deployment.Service
	for _, desc := range from {
		list = append(list, deployment.Service{Name: desc.Name, File: desc.File})
	}
	b, err := deployment.Describe(name, "", "devel", list)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// world is some directories that hear each other.
type world struct {
	t       *testing.T
	mu      sync.Mutex
	nodes   map[uint64]*Directory
	fetches int
	answer  func(from uint64) ([]byte, error) // nil: what the node serves
	log     bytes.Buffer
}

func (w *world) join(node uint64, name string, from registered) *Directory {
	w.t.Helper()
	d := New(Config{
		Node: node, Logger: slog.New(slog.NewTextHandler(&w.log, nil)),
		Share: func(value []byte) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			for id, other := range w.nodes {
				if id != node {
					other.Heard(node, value)
				}
			}
			return nil
		},
		Fetch: func(_ context.Context, from uint64) ([]byte, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.fetches++
			if w.answer != nil {
				return w.answer(from)
			}
			return w.nodes[from].Serve()
		},
	})
	w.mu.Lock()
	others := w.nodes
	w.nodes = map[uint64]*Directory{node: d}
	for id, other := range others {
		if id != node {
			w.nodes[id] = other
		}
	}
	w.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = d.Run(ctx) })
	w.t.Cleanup(func() { cancel(); running.Wait() })
	if err := d.Announce(buildOf(w.t, name, from), from); err != nil {
		w.t.Fatal(err)
	}
	return d
}

func at(service, handler string) invocation.Target {
	return invocation.Target{Service: service, Key: "k", Handler: handler}
}

const (
	accounts = "bank.v1.AccountService"
	orders   = "shop.v1.OrderService"
)

// TestForeignDescriptionIsTheGeneratedOne: what a node makes of another one's descriptors is what
// generated code says there, but for the handlers and the types in Go.
func TestForeignDescriptionIsTheGeneratedOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := services(withAccounts, withTransfers, withOrders, func(r actor.Registrar) {
			bank.RegisterBackOfficeHandler(r, bank.UnimplementedBackOfficeHandler{})
			counter.RegisterCounterHandler(r, counter.UnimplementedCounterHandler{})
			shop.RegisterInventoryHandler(r, shop.UnimplementedInventoryHandler{})
			chaos.RegisterLimitedHandler(r, chaos.UnimplementedLimitedHandler{})
			chaos.RegisterListHandler(r, chaos.UnimplementedListHandler{})
			chaos.RegisterBatchHandler(r, chaos.UnimplementedBatchHandler{})
		})
		w := &world{t: t}
		d := w.join(1, "none", nil)
		w.join(2, "all", all)
		d.SetMembers([]Member{{Node: 1}, {Node: 2}})
		synctest.Wait()
		got := d.Elsewhere()
		if len(got) != len(all) {
			t.Fatalf("%d services are known, not %d; the log says %s", len(got), len(all), &w.log)
		}
		for _, desc := range got {
			want := all[slices.IndexFunc(all, func(s *actor.ServiceDesc) bool { return s.Name == desc.Name })]
			if got, want := outline(desc), outline(want); got != want {
				t.Errorf("described as\n%s\nand generated as\n%s", got, want)
			}
		}
	})
}

// outline is all of a description that is not Go code.
func outline(desc *actor.ServiceDesc) string {
	var text strings.Builder
	name := func(of func() proto.Message) string {
		if of == nil {
			return "-"
		}
		return string(of().ProtoReflect().Descriptor().FullName())
	}
	fmt.Fprintf(&text, "%s kind %d state %s %d file %s\n", desc.Name, desc.Kind, name(desc.StateType), desc.StateVersion, desc.File.Path())
	for _, table := range desc.Tables {
		fmt.Fprintf(&text, "table %s %s %d\n", table.Name, name(table.New), table.Version)
	}
	for _, promise := range desc.Promises {
		fmt.Fprintf(&text, "promise %s %s\n", promise.Name, name(promise.New))
	}
	for _, m := range desc.Methods {
		fmt.Fprintf(&text, "%s kind %d mode %s key %d idempotency %d %s %s %s %+v\n", m.FullName(), m.Kind, m.Mode, m.KeyField, m.IdempotencyField,
			name(m.NewRequest), name(m.NewResponse), m.Schema().FullName(), m.Options)
	}
	return text.String()
}

func TestWhoHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t}
		d := w.join(1, "own", services(withAccounts))
		changed := d.Changed()
		for _, node := range []uint64{2, 3} {
			w.join(node, "v1", services(withOrders))
		}
		w.join(4, "v2", services(withOrders, withTransfers))
		everybody := []Member{{Node: 4}, {Node: 1}, {Node: 2}, {Node: 3, Leaving: true}}
		d.SetMembers(everybody)
		if err := d.Settled(t.Context(), []uint64{2}); err != nil {
			t.Fatal(err)
		}
		select {
		case <-changed:
		default:
			t.Error("nobody was told that something has changed")
		}
		if w.fetches != 2 {
			t.Errorf("fetched %d times, not once for each build", w.fetches)
		}
		if !d.Here(at(accounts, "Deposit")) || d.Here(at(orders, "Run")) {
			t.Error("accounts are here, and orders are not")
		}
		if !d.Here(at(accounts, "Gone")) {
			t.Error("of a handler that nobody has, the node with the service is to say so")
		}
		for range 8 { // whichever of equals is first
			if got := d.Hosts(at(orders, "Run"), "v2"); got[0] != 4 || len(got) != 3 {
				t.Errorf("hosts of orders, of v2 first: %d", got)
			}
			if got := d.Hosts(at(orders, "Run"), ""); got[2] != 3 {
				t.Errorf("hosts of orders, the one that leaves last: %d", got)
			}
		}
		for deployment, want := range map[string]string{"v1": "[2]", "v2": "[4]", "own": "[]"} { // node 3 leaves
			if got := d.Exactly(at(orders, "Run"), deployment); fmt.Sprint(got) != want {
				t.Errorf("orders of exactly %s: %d, not %s", deployment, got, want)
			}
			if !d.Runs(deployment) {
				t.Errorf("nobody runs %s", deployment)
			}
		}
		if got := d.Exactly(at(orders, "Gone"), "v2"); len(got) != 0 || d.Runs("v3") {
			t.Errorf("a handler that nobody has is at %d", got)
		}
		if got := d.Deployment(orders); got != "v1" || d.Deployment(accounts) != "own" || d.Deployment("x.Y") != "" {
			t.Errorf("orders run on %s, which two of three nodes have", got)
		}
		var names []string
		for _, desc := range d.Elsewhere() {
			names = append(names, desc.Name)
		}
		if fmt.Sprint(names) != "[bank.v1.TransferService shop.v1.OrderService]" {
			t.Errorf("elsewhere: %v", names)
		}
		if id, hosted := d.Of(4); id != "v2" || len(hosted) != 2 {
			t.Errorf("node 4 hosts %v of %s", hosted, id)
		}

		// Node 4 comes back without orders, the others are lost.
		w.join(4, "v3", services(withTransfers))
		d.SetMembers([]Member{{Node: 4}, {Node: 1}})
		synctest.Wait()
		if got := d.Hosts(at(orders, "Run"), ""); len(got) != 0 {
			t.Errorf("orders are hosted by %d", got)
		}
		if got := d.Elsewhere(); len(got) != 2 {
			t.Errorf("calls of what was hosted are not taken any more: %v", got)
		}
	})
}

func TestWhatCanNotBeFetched(t *testing.T) {
	for name, test := range map[string]struct {
		answer func(good []byte) ([]byte, error)
		says   string
	}{
		"no answer":     {func([]byte) ([]byte, error) { return nil, errors.New("on purpose") }, "on purpose"},
		"another build": {func(good []byte) ([]byte, error) { return good[1:], nil }, "not what the node said"},
		"too large":     {func([]byte) ([]byte, error) { return make([]byte, MaxBuildBytes+1), nil }, "more than 16777216"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &world{t: t}
				d := w.join(1, "own", services(withAccounts))
				other := w.join(2, "v1", services(withOrders))
				w.answer = func(uint64) ([]byte, error) {
					good, err := other.Serve()
					if err != nil {
						return nil, err
					}
					return test.answer(good)
				}
				d.SetMembers([]Member{{Node: 2}})
				settling, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if err := d.Settled(settling, nil); err == nil {
					t.Error("it is known what can't be fetched")
				}
				w.mu.Lock()
				if tries := w.fetches; tries < 5 || tries > 20 {
					t.Errorf("fetched %d times in a minute", tries)
				}
				if got := strings.Count(w.log.String(), test.says); got != 1 {
					t.Errorf("the log says %q %d times, not once: %s", test.says, got, &w.log)
				}
				w.answer = nil
				w.mu.Unlock()
				if err := d.Settled(t.Context(), []uint64{2}); err != nil || len(d.Hosts(at(orders, "Run"), "")) != 1 {
					t.Errorf("afterwards: %v", err)
				}
			})
		})
	}
}

// TestForeignDescriptorsThatCanNotBeUsed: the services are hosted all the same, and attempts go there.
func TestForeignDescriptorsThatCanNotBeUsed(t *testing.T) {
	good, err := buildOf(t, "v1", services(withOrders)).Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*descriptorpb.FileDescriptorSet){
		"a type is missing": func(set *descriptorpb.FileDescriptorSet) { set.File[len(set.File)-1].MessageType = nil },
		"an option is wrong": func(set *descriptorpb.FileDescriptorSet) {
			file := set.File[len(set.File)-1]
			file.Service[1].Method = file.Service[1].Method[1:] // a workflow without its run
		},
	} {
		t.Run(name, func(t *testing.T) {
			told, err := deployment.Decode(good)
			if err != nil {
				t.Fatal(err)
			}
			spoil(told.Schema)
			b, problems := foreignBuild(told)
			service, handler := b.hosts(at(orders, "Run"))
			if !service || !handler || len(b.descs) != 0 || len(problems) != 1 {
				t.Errorf("hosted %t %t, described %v, problems %v", service, handler, b.descs, problems)
			}
		})
	}
	for name, encoded := range map[string][]byte{"nothing": nil, "noise": []byte("noise"), "two": encodeRecord(t, 2)} {
		if _, err := deployment.Decode(encoded); err == nil {
			t.Errorf("%s is a build", name)
		}
	}
}

func encodeRecord(t *testing.T, count int) []byte {
	t.Helper()
	encoded, err := proto.Marshal(&recordv1.Deployments{Deployments: slices.Repeat([]*recordv1.Deployment{{Id: "v"}}, count)})
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}

// TestEndsWhileItFetches: a directory whose node stops asks no more for what it did not get.
func TestEndsWhileItFetches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		d := New(Config{
			Node: 1, Share: func([]byte) error { return nil }, Logger: slog.New(slog.DiscardHandler),
			Fetch: func(ctx context.Context, _ uint64) ([]byte, error) {
				if asked++; asked > 2 {
					t.Error("it asks again and again")
					runtime.Goexit()
				}
				<-ctx.Done()
				return nil, ctx.Err()
			},
		})
		d.SetMembers([]Member{{Node: 1}, {Node: 2}})
		d.Heard(2, append([]byte{factFormat}, make([]byte, len(sum{}))...))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if err := d.Run(ctx); err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait()
		cancel()
		<-ended
		if asked != 1 {
			t.Errorf("it asked %d times", asked)
		}
	})
}

func TestNothingHeard(t *testing.T) {
	d := New(Config{Node: 1})
	d.Heard(2, nil)
	d.Heard(3, []byte("short"))
	d.SetMembers([]Member{{Node: 1}})
	if d.Here(at(orders, "Run")) || len(d.Hosts(at(orders, "Run"), "")) != 0 || len(d.Elsewhere()) != 0 {
		t.Error("something is hosted")
	}
	if err := d.Unknown([]uint64{1}); err != nil {
		t.Errorf("of a node that is alone: %v", err)
	}
	if err := d.Unknown([]uint64{1, 5}); err == nil || !strings.Contains(err.Error(), "what node 0000000000000005 hosts") {
		t.Errorf("of a node that is down: %v", err)
	}
	if _, err := d.Serve(); err == nil {
		t.Error("a node that has not announced itself serves what it is")
	}
	if !reflect.DeepEqual(d.view.Load().others, []host(nil)) {
		t.Error("there are hosts")
	}
}
