package remote_test

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
	"github.com/perdure/perdure/internal/invoker/gate"
	"github.com/perdure/perdure/internal/invoker/remote"
)

// startOf makes node 2 one that is starting: it is taken for a host, and its gate is closed.
func (w *world) startOf(gives bool) *gate.Gate {
	g := gate.New(w.locals[2])
	config := remote.Config{Node: 2, Local: g, Logger: slog.New(slog.DiscardHandler), Directory: directory{w, 2}, Call: w.callFrom(2)}
	if gives {
		config.Open = g.IsOpen
	}
	w.nodes[2].Close()
	w.nodes[2] = remote.New(config)
	return g
}

// TestStartingNodeGivesBack: a node that is known to host a service, from before it was restarted, may take long to
// start, or not get there at all. What it is asked meanwhile runs elsewhere, or here later.
func TestStartingNodeGivesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		g, durable, stored := w.startOf(true), &host{}, &host{}
		w.nodes[1].Start(attempt(durable, invocation.ModeDurable))
		sent := attempt(stored, invocation.ModeTransaction)
		sent.Stored = true
		w.nodes[1].Start(sent)
		synctest.Wait()
		if durable.ended() != 1 || !durable.outcomes[0].Lost || stored.ended() != 1 || !stored.outcomes[0].Lost {
			t.Fatalf("ended with %v and %v; want both lost, so that the partition starts them again", durable.outcomes, stored.outcomes)
		}
		if got := w.begun(); got != [3]int{} {
			t.Errorf("begun: %v", got)
		}
		// READ handlers go on elsewhere, too.
		w.host(2, 3)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		time.Sleep(2 * time.Second) // of the bubble: until node 2 is not passed over any more
		if got := w.nodes[1].Read(ctx, &invoker.Read{Target: sent.Target, Tables: table{}}); got == nil || got.GetError() != nil || len(w.locals[3].reads) != 1 {
			t.Errorf("a READ: %v", got)
		}
		w.host(2)
		time.Sleep(2 * time.Second) // of the bubble: likewise
		g.Open()
		w.nodes[1].Start(attempt(durable, invocation.ModeDurable))
		synctest.Wait()
		if got := w.begun(); got != [3]int{0, 1, 0} {
			t.Errorf("begun once it has started: %v", got)
		}
	})
}

// TestLostOutcomeIsHeard: what the invoker of another node says was lost there is lost, and no failure.
func TestLostOutcomeIsHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, h := newWorld(t, 2), &host{}
		g := w.startOf(false)
		w.nodes[1].Start(attempt(h, invocation.ModeTransaction))
		synctest.Wait()
		g.Open()
		synctest.Wait()
		if h.ended() != 1 || !h.outcomes[0].Lost {
			t.Errorf("ended with %+v", h.outcomes)
		}
	})
}
