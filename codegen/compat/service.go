package compat

import (
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/perdure/perdure/codegen/schema"
	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

func (c *comparison) service(before, after *schema.Service) {
	if after == nil {
		c.removedService(before)
		return
	}
	name := before.Desc.FullName()
	if before.Kind != after.Kind {
		c.report(Breaking, name, after.Desc, schema.KindOption(),
			"kind was %s and is %s: keys, state and running invocations of the old kind would be lost; make a new service and leave this one as it was", before.Kind, after.Kind)
		return // the rest follows from it
	}
	c.state(before, after)
	c.slots(KeptRows, after.Desc, "table", before.Tables, after.Tables, "its rows would be lost", "its stored rows would be misread, unless you raise its version and add a migration")
	c.slots(KeptPromises, after.Desc, "promise", before.Promises, after.Promises, "runs that wait for it would never end", "values already stored would be misread")
	for _, method := range before.Methods {
		c.method(after, method)
	}
}

func (c *comparison) removedService(before *schema.Service) {
	found, err := c.after.files.FindDescriptorByName(before.Desc.FullName())
	if err != nil {
		c.report(Breaking, before.Desc.FullName(), before.Desc, nil,
			"is gone: its running invocations could not go on, and its stored state would be out of reach; keep it until both are no longer needed (option deprecated = true says so to callers)")
		return
	}
	if c.after.unserved[before.Desc.FullName()] {
		c.report(Breaking, before.Desc.FullName(), found, nil,
			"is not registered any more: its running invocations could not go on, and its stored state would be out of reach; register its handler until both are no longer needed")
		return
	}
	c.report(Breaking, before.Desc.FullName(), found, nil,
		"has lost its (perdure.v1.service) option: nodes would no longer run it, and its stored state would be out of reach; put the option back")
}

func (c *comparison) state(before, after *schema.Service) {
	affected := Affected{Service: before.Desc.FullName(), Kept: KeptState}
	switch {
	case before.State == nil: // new state is empty everywhere
	case after.State == nil:
		c.affect(Breaking, affected, after.Desc, schema.ServiceOption(),
			"state was %q and is gone: what is stored would be out of reach; keep it", before.State.FullName())
	case after.StateVersion < before.StateVersion:
		c.affect(Breaking, affected, after.Desc, schema.StateVersionOption(),
			"state_version was %d and is %d: states that were written since could not be read; keep the higher one", before.StateVersion, after.StateVersion)
	case after.StateVersion > before.StateVersion: // the migrations see to it
	case before.State.FullName() != after.State.FullName():
		c.affect(Breaking, affected, after.Desc, schema.StateOption(),
			"state was %q and is %q: what is stored was written as the first and would be misread; keep that message and add fields to it, or raise state_version and add a migration", before.State.FullName(), after.State.FullName())
	default:
		c.message(KeptState, "", before.Desc.FullName(), before.State, after.State)
	}
}

func (c *comparison) slots(kept Kept, desc protoreflect.Descriptor, what string, before, after []schema.Slot, ifGone, ifRetyped string) {
	affected := Affected{Service: desc.FullName(), Kept: kept}
	byName := map[string]schema.Slot{}
	for _, slot := range after {
		byName[slot.Name] = slot
	}
	for _, old := range before {
		slot, ok := byName[old.Name]
		switch {
		case !ok:
			c.affect(Breaking, affected, desc, schema.ServiceOption(), "%s %q is gone: %s; keep it (a renamed one is a new, empty one)", what, old.Name, ifGone)
		case slot.Version < old.Version:
			c.affect(Breaking, affected, desc, slot.Option, "%s %q had version %d and has %d: rows that were written since could not be read; keep the higher one", what, old.Name, old.Version, slot.Version)
		case slot.Version > old.Version: // the migrations see to it
		case slot.Message.FullName() != old.Message.FullName():
			c.affect(Breaking, affected, desc, slot.Option, "%s %q was of type %q and is of type %q: %s; keep the type, or declare a new %s",
				what, old.Name, old.Message.FullName(), slot.Message.FullName(), ifRetyped, what)
		default:
			c.message(kept, "", desc.FullName(), old.Message, slot.Message)
		}
	}
}

func (c *comparison) method(service *schema.Service, before *schema.Method) {
	after := methodByName(service, before.Desc.Name())
	if after == nil {
		c.affect(Breaking, Affected{service.Desc.FullName(), before.Desc.Name(), KeptInvocations}, service.Desc, nil,
			"rpc %s is gone: calls that were accepted and have not ended could not go on; keep it until they have", before.Desc.Name())
		return
	}
	if before.Mode != after.Mode {
		c.report(Breaking, serviceOf(before), after.Desc, schema.ModeOption(), "mode was %s and is %s: %s; add an rpc with the new mode and leave this one as it was",
			before.Mode, after.Mode, modeChange(before.Mode, after.Mode))
		return // other options depend on the mode
	}
	for _, side := range [][2]protoreflect.MessageDescriptor{{before.Desc.Input(), after.Desc.Input()}, {before.Desc.Output(), after.Desc.Output()}} {
		c.message(KeptInvocations, before.Desc.Name(), service.Desc.FullName(), side[0], side[1])
	}
	c.key(before, after)
	c.idempotencyKey(before, after)
	c.retention(before, after)
	c.journalRetention(before, after)
}

func (c *comparison) retention(before, after *schema.Method) {
	now := after.Options.Retention.String()
	switch {
	case after.Options.Retention >= before.Options.Retention:
		return
	case after.Options.Retention == 0:
		now = "the node's default"
	}
	c.report(Warning, serviceOf(before), after.Desc, schema.HandlerOption(),
		"retention was %v and is %s: results can be fetched, and repeated calls recognized, for a shorter time; make sure that no caller retries later than that", before.Options.Retention, now)
}

// journalRetention compares how long journals are kept; 0 is as long as the result.
func (c *comparison) journalRetention(before, after *schema.Method) {
	was, is := before.Options.JournalRetention, after.Options.JournalRetention
	then := was.String()
	if was == 0 {
		was, then = before.Options.Retention, "that of the result"
	}
	if is == 0 || was > 0 && is >= was {
		return
	}
	c.report(Warning, serviceOf(before), after.Desc, schema.HandlerOption(),
		"journal_retention was %s and is %v: invocations that are accepted from now on can be looked into, exported and restarted from an entry for a shorter time after their end", then, is)
}

// modeChange says what goes wrong. Every change of mode breaks something: an accepted invocation
// keeps the mode it was accepted with.
func modeChange(before, after perdurev1.Mode) string {
	switch {
	case before == perdurev1.Mode_DURABLE || before == perdurev1.Mode_RUN:
		return "invocations that are under way have a journal, which the new handler could not go on with"
	case after == perdurev1.Mode_RUN:
		return "the run of a key starts once, and keys that were called already have none"
	case before == perdurev1.Mode_SIGNAL:
		return "signals that were sent and not yet received would be lost"
	case before == perdurev1.Mode_READ:
		return "READ handlers that call it, and clients that use HTTP GET, would fail"
	case after == perdurev1.Mode_READ || after == perdurev1.Mode_SIGNAL:
		return "sends that are waiting to run would have no handler that may write"
	default:
		return "TRANSACTION handlers that call it would fail"
	}
}

func (c *comparison) key(before, after *schema.Method) {
	switch {
	case before.Key == nil || after.Key == nil: // a SERVICE
	case schema.KeyType(before.Key) != schema.KeyType(after.Key):
		c.report(Breaking, serviceOf(before), after.Key, schema.KeyOption(),
			"the key was %s and is %s: objects that exist would be out of reach; keep the type", schema.KeyType(before.Key), schema.KeyType(after.Key))
	case before.Key.Number() != after.Key.Number():
		c.report(Breaking, serviceOf(before), after.Key, schema.KeyOption(),
			"the key was field %s = %d: clients that were not built again would still send it there; keep that field as the key", before.Key.Name(), before.Key.Number())
	}
}

func (c *comparison) idempotencyKey(before, after *schema.Method) {
	old, now := before.IdempotencyKey, after.IdempotencyKey
	switch {
	case old == nil && now == nil:
	case old == nil:
		c.report(Warning, serviceOf(before), now, schema.IdempotencyKeyOption(),
			"is the idempotency_key of %s now: calls with the same value were several and will be one; make sure that callers mean that", after.Desc.FullName())
	case now == nil:
		c.report(Breaking, serviceOf(before), after.Desc, nil,
			"its request no longer has an idempotency_key (it was %s): a call that is retried would be run twice; mark the field again", old.Name())
	case old.Number() != now.Number():
		c.report(Breaking, serviceOf(before), now, schema.IdempotencyKeyOption(),
			"the idempotency_key was field %s = %d: a call that is retried by a client that was not built again would be run twice; keep that field", old.Name(), old.Number())
	}
}

func methodByName(service *schema.Service, name protoreflect.Name) *schema.Method {
	for _, method := range service.Methods {
		if method.Desc.Name() == name {
			return method
		}
	}
	return nil
}

func serviceOf(method *schema.Method) protoreflect.FullName { return method.Desc.Parent().FullName() }
