package gate

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// local counts what it is given.
type local struct{ started, read int }

func (l *local) Start(*invoker.Attempt) invoker.Running { l.started++; return nil }

func (l *local) Read(context.Context, *invoker.Read) *recordv1.Result {
	l.read++
	return &recordv1.Result{}
}

// host notes how attempts end.
type host struct {
	invoker.Host
	ended []*invoker.Outcome
}

func (h *host) Finish(_ *invoker.Attempt, outcome *invoker.Outcome) {
	h.ended = append(h.ended, outcome)
}

func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		behind := &local{}
		g := New(behind)
		durable, stored, aborted := &host{}, &host{}, &host{}
		first := g.Start(&invoker.Attempt{Mode: invocation.ModeDurable, Stored: true, Host: durable})
		second := g.Start(&invoker.Attempt{Mode: invocation.ModeTransaction, Stored: true, Host: stored})
		third := g.Start(&invoker.Attempt{Mode: invocation.ModeDurable, Host: aborted})
		first.Notify(1, nil)
		first.Cancel()
		third.Abort(errors.New("on purpose"))
		waits := func(r invoker.Running) bool { return r.(invoker.Unplaced).Waiting() }
		if !waits(first) || !waits(second) || waits(third) {
			t.Error("the first two wait")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		refused := &invoker.Read{}
		if got := g.Read(ctx, refused); got != nil || refused.Unhosted == nil {
			t.Errorf("a READ whose caller is gone: %v", got)
		}
		done := make(chan *recordv1.Result, 1)
		go func() { done <- g.Read(t.Context(), &invoker.Read{}) }()
		synctest.Wait()
		if behind.started+behind.read != 0 {
			t.Errorf("%+v went through", behind)
		}
		g.Open()
		<-done
		g.Start(&invoker.Attempt{})
		if behind.started != 1 || behind.read != 1 || waits(first) {
			t.Errorf("%+v went through afterwards", behind)
		}
		if len(durable.ended) != 1 || !durable.ended[0].Lost || durable.ended[0].Anew || len(stored.ended) != 1 || !stored.ended[0].Anew || len(aborted.ended) != 0 {
			t.Errorf("ended with %v, %v, %v", durable.ended, stored.ended, aborted.ended)
		}
	})
}
