package peer

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/routing"
)

// TestOneHop: once everybody has heard of the leaders, which have moved before, each request made at any node is one
// request between nodes, to the leader, and none where that is led.
func TestOneHop(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { oneHop(t, seed) })
		})
	}
}

func oneHop(t *testing.T, seed uint64) {
	const partitions, nodes = 4, 3
	w := newWorld(t, nodes, partitions, seed)
	// Requests go while leaders move, so that beliefs are of all ages, and some come from answers.
	for i := range 40 {
		unaware := time.Duration(0)
		if w.chance.intn(2) == 0 {
			unaware = w.chance.between(0, 300*time.Millisecond)
		}
		w.groups[w.chance.intn(partitions)].lead(uint64(w.chance.intn(nodes))+1, unaware)
		key := w.keyIn(uint32(i%partitions)+1, 0)
		if _, err := w.nodes[uint64(i%nodes)+1].Call(t.Context(), deposit(key, fmt.Sprint("moving ", i), 1)); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(time.Second) // of the bubble: whoever is unaware hears of it
	w.settle()
	w.until("everybody has heard of the leaders", func() bool {
		for _, g := range w.groups {
			for _, n := range w.nodes {
				if node, _ := n.Leaders().Leader(g.id); node != g.leader() {
					return false
				}
			}
		}
		return true
	})

	var mu sync.Mutex
	var hops []string
	intercept := func(from, to uint64, _ []byte) error {
		mu.Lock()
		defer mu.Unlock()
		hops = append(hops, fmt.Sprint(from, " to ", to))
		return nil
	}
	w.intercept.Store(&intercept)
	ctx := t.Context()
	for _, g := range w.groups {
		for id := uint64(1); id <= nodes; id++ {
			n := w.nodes[id]
			key := w.keyIn(g.id, 1)
			durable := func() invocation.ID {
				in := invoke(bankAccount, key, "CloseOut", invocation.ModeDurable, "", &bankv1.CloseOutRequest{Iban: "wait"})
				if _, err := n.Send(ctx, in); err != nil {
					t.Fatal(err)
				}
				return idFrom(in.InvocationId)
			}
			var waits invocation.ID
			for _, request := range []struct {
				name string
				make func() error
			}{
				{"call", func() error { _, err := n.Call(ctx, deposit(key, "", 1)); return err }},
				{"call with a key", func() error { _, err := n.Call(ctx, deposit(key, fmt.Sprint("k", id), 1)); return err }},
				{"the same again", func() error { _, err := n.Call(ctx, deposit(key, fmt.Sprint("k", id), 1)); return err }},
				{"send", func() error { _, err := n.Send(ctx, deposit(key, fmt.Sprint("s", id), 1)); return err }},
				{"read", func() error { _, err := n.balance(ctx, key); return err }},
				{"state", func() error {
					_, err := n.StatePage(ctx, routing.StateQuery{Object: invocation.Object{Service: bankAccount, Key: key}})
					return err
				}},
				{"send of what waits", func() error { waits = durable(); return nil }},
				{"invocation", func() error { _, err := n.Invocation(ctx, waits); return err }},
				{"cancel", func() error { return n.Cancel(ctx, waits, true) }},
				{"attach", func() error { _, err := n.Attach(ctx, waits); return err }},
				{"purge", func() error { return n.Purge(ctx, waits) }},
				{"attach to nothing", func() error {
					unknown := invocation.NewID(invocation.Target{Service: bankAccount, Key: key}.Hash(), uuid.Must(uuid.NewV7()))
					if _, err := n.Attach(ctx, unknown); code(err) != routing.CodeNotFound {
						return fmt.Errorf("want that it is not found: %w", err)
					}
					return nil
				}},
			} {
				mu.Lock()
				hops = nil
				mu.Unlock()
				if err := request.make(); err != nil {
					t.Errorf("%s at node %d, which node %d leads: %v", request.name, id, g.leader(), err)
				}
				synctest.Wait() // for what it has begun
				var want []string
				if leader := g.leader(); leader != id {
					want = []string{fmt.Sprint(id, " to ", leader)}
				}
				mu.Lock()
				if !slices.Equal(hops, want) {
					t.Errorf("%s at node %d: there went requests from %q, want %q", request.name, id, hops, want)
				}
				mu.Unlock()
			}
		}
	}
}
