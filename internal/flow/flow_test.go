package flow_test

import (
	"strings"
	"testing"
	"time"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/flow"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

func method(mode actor.Mode, limits ...actor.Limit) *actor.MethodDesc {
	return &actor.MethodDesc{Service: "a.v1.S", Name: "H", Mode: mode, Options: actor.HandlerOptions{Limits: limits}}
}

// TestNothingToSay: a call under no limit costs nothing.
func TestNothingToSay(t *testing.T) {
	plain, limited := method(actor.ModeDurable), method(actor.ModeRead, actor.Limit{Name: "x", Concurrency: 1})
	allocations := testing.AllocsPerRun(100, func() {
		if flow.Of(plain, "k", flow.Given{}, nil) != nil || flow.Of(plain, "k", flow.Given{PrioritySet: true}, nil) != nil ||
			flow.Of(plain, "k", flow.Given{}, &recordv1.Flow{}) != nil || flow.Of(limited, "k", flow.Given{Tenant: "t"}, nil) != nil {
			t.Error("something was said")
		}
	})
	if allocations > 2 { // of the two that had something given
		t.Errorf("%v allocations", allocations)
	}
	if n := testing.AllocsPerRun(100, func() { flow.Of(plain, "k", flow.Given{}, nil) }); n != 0 {
		t.Errorf("a plain call allocates %v times", n)
	}
}

// TestNamesAndOrder: permits are asked for in one order, whatever the order of declaration, and
// nothing counts together that should not.
func TestNamesAndOrder(t *testing.T) {
	m := method(actor.ModeDurable,
		actor.Limit{Name: "service", Concurrency: 1}, actor.Limit{Name: "b", By: actor.ByHandler, Concurrency: 1},
		actor.Limit{Name: "a", By: actor.ByHandler, Concurrency: 1}, actor.Limit{Name: "tenant", By: actor.ByTenant, Concurrency: 1},
		actor.Limit{Name: "lk", By: actor.ByLimitKey, Rate: actor.Rate{Count: 3, Per: time.Minute}, MaxQueue: actor.NoQueue},
		actor.Limit{Name: "key", By: actor.ByKey, Rate: actor.Rate{Count: 2, Per: time.Second, Burst: 9}},
		actor.Limit{Name: "whole", Concurrency: 1, UntilDone: true},
	)
	f := flow.Of(m, "k/1", flow.Given{LimitKey: "x=y", Tenant: "t"}, nil)
	var names []string
	for _, limit := range f.Limits {
		names = append(names, limit.Name)
	}
	const want = "a.v1.S/whole a.v1.S/key=k/1 a.v1.S/lk=x=y a.v1.S/tenant=t a.v1.S/H/a a.v1.S/H/b a.v1.S/service"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("asked for in the order\n     %s\nwant %s", got, want)
	}
	if key := f.Limits[1]; !key.Local || key.RateCount != 2 || key.RatePerMs != 1000 || key.Burst != 9 {
		t.Errorf("the limit by key is %v", key)
	}
	if lk := f.Limits[2]; lk.Local || lk.RatePerMs != 60_000 || lk.Burst != 3 || lk.MaxQueue != -1 {
		t.Errorf("the limit by limit key is %v", lk)
	}
}

// TestPassedOn: what the call does not say it has from the handler that calls.
func TestPassedOn(t *testing.T) {
	m := method(actor.ModeDurable)
	parent := &recordv1.Flow{Tenant: "t", LimitKey: "l", Priority: 7, Held: 3, Ask: 9, Firm: true, Limits: []*recordv1.Limit{{Name: "x"}}}
	f := flow.Of(m, "k", flow.Given{}, parent)
	if f.Tenant != "t" || f.LimitKey != "l" || f.Priority != 7 || f.Held != 0 || f.Ask != 0 || f.Firm || len(f.Limits) != 0 {
		t.Errorf("passed on: %v", f)
	}
	f = flow.Of(m, "k", flow.Given{Tenant: "u", PrioritySet: true}, parent)
	if f.Tenant != "u" || f.LimitKey != "l" || f.Priority != 0 {
		t.Errorf("with a tenant and a priority of its own: %v", f)
	}
}
