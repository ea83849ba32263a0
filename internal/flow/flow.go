// Package flow turns the limits that a .proto declares, and what a caller says of one call, into
// what an invocation is recorded with. What becomes of it is decided by internal/limit.
package flow

import (
	"cmp"
	"slices"

	"github.com/perdure/perdure/actor"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// Given is what a caller says of a call.
type Given struct {
	LimitKey, Tenant string
	Priority         int
	PrioritySet      bool
}

// GivenOf is what the options of a call in Go say.
func GivenOf(call actor.CallRequest) Given {
	return Given{call.LimitKey, call.Tenant, call.Priority, call.PrioritySet}
}

// Of is the flow of a call of method with an object's key. What the caller does not say, it has
// from parent, the flow of the handler that calls; nil for a caller outside. The result is nil if
// there is nothing to say, which is the rule and costs nothing.
func Of(method *actor.MethodDesc, key string, given Given, parent *recordv1.Flow) *recordv1.Flow {
	if method.Mode == actor.ModeRead || method.Mode == actor.ModeSignal {
		return nil // It waits for nothing.
	}
	limits := method.Options.Limits
	if len(limits) == 0 && parent == nil && given == (Given{}) {
		return nil
	}
	f := &recordv1.Flow{
		Tenant:   cmp.Or(given.Tenant, parent.GetTenant()),
		LimitKey: cmp.Or(given.LimitKey, parent.GetLimitKey()),
		Priority: parent.GetPriority(),
	}
	if given.PrioritySet {
		f.Priority = int32(given.Priority)
	}
	if len(limits) == 0 && f.Tenant == "" && f.LimitKey == "" && f.Priority == 0 {
		return nil
	}
	if len(limits) > 0 {
		f.Limits = limitsOf(method, key, f)
	}
	return f
}

// limitsOf puts limits into the order in which every invocation asks for their permits. Those
// that are kept while others are given back come first: nobody ever asks for an earlier one with
// a later one held. Then the narrower before the wider: whoever waits for a narrow one is in
// nobody's way with the place it has in a wide one.
func limitsOf(method *actor.MethodDesc, key string, f *recordv1.Flow) []*recordv1.Limit {
	declared := slices.Clone(method.Options.Limits)
	slices.SortStableFunc(declared, func(a, b actor.Limit) int {
		return cmp.Or(-compareBool(a.UntilDone, b.UntilDone), cmp.Compare(width(a.By), width(b.By)), cmp.Compare(a.Name, b.Name))
	})
	limits := make([]*recordv1.Limit, len(declared))
	for i, d := range declared {
		limits[i] = &recordv1.Limit{
			Name: name(method, key, f, d), Concurrency: uint32(d.Concurrency), MaxQueue: int32(d.MaxQueue),
			UntilDone: d.UntilDone, Local: d.By == actor.ByKey,
		}
		if d.Rate.Count > 0 {
			limits[i].RateCount, limits[i].RatePerMs = int64(d.Rate.Count), max(d.Rate.Per.Milliseconds(), 1)
			limits[i].Burst = int64(cmp.Or(d.Rate.Burst, d.Rate.Count))
		}
	}
	return limits
}

// width is how much a limit counts together.
func width(by actor.LimitBy) int {
	switch by {
	case actor.ByKey:
		return 0
	case actor.ByLimitKey:
		return 1
	case actor.ByTenant:
		return 2
	case actor.ByHandler:
		return 3
	}
	return 4
}

// name is what all that counts together has in common. Names of services, handlers and limits
// have neither "/" nor "=", so no two are the same by accident.
func name(method *actor.MethodDesc, key string, f *recordv1.Flow, d actor.Limit) string {
	switch d.By {
	case actor.ByHandler:
		return method.Service + "/" + method.Name + "/" + d.Name
	case actor.ByKey:
		return method.Service + "/" + d.Name + "=" + key
	case actor.ByLimitKey:
		return method.Service + "/" + d.Name + "=" + f.LimitKey
	case actor.ByTenant:
		return method.Service + "/" + d.Name + "=" + f.Tenant
	}
	return method.Service + "/" + d.Name
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}
