package deployment

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/perdure/perdure/codegen/compat"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// Difference is a change from one deployment to another that is started after it.
type Difference struct {
	compat.Change
	// From is the deployment that had it otherwise.
	From string
	// Found is what is kept that the change would break, for people. Empty: that was not asked,
	// or nothing is.
	Found string
}

// String is "bank.v1.AccountService.Deposit: message (2 invocations have not ended)".
func (d Difference) String() string {
	text := d.Change.String()
	if d.File != "" && d.Line == 0 {
		// Descriptors in a program have no lines.
		text = string(d.Symbol) + ": " + d.Message
	}
	if d.Found != "" {
		text += " (" + d.Found + ")"
	}
	return text
}

// Changes are the differences of a build to what has run before it: to the deployment that was
// started last and, in services that the last one did not have, to the last that had them, since
// what that left may still be there; and to used, which nodes run now. With elsewhere, other nodes may host
// the services that b lacks, and those are left out.
func (c *Catalog) Changes(b *Build, elsewhere bool, used ...string) ([]Difference, error) {
	c.mu.Lock()
	kept := c.mu.kept
	c.mu.Unlock()
	next, err := schemaOf(b.record, b.files)
	if err != nil {
		return nil, err
	}
	var all []Difference
	covered := map[string]bool{}
	for i, old := range newestFirst(kept) {
		// Those that nodes run may have left something since the last one was started.
		if old.GetFingerprint() == b.record.GetFingerprint() && i == 0 && len(used) == 0 {
			return nil, nil
		}
		wanted := slices.DeleteFunc(slices.Clone(old.GetServices()), func(name string) bool {
			return covered[name] && !slices.Contains(used, old.GetId()) || (i > 0 || elsewhere) && !slices.Contains(b.record.GetServices(), name)
		})
		for _, name := range old.GetServices() {
			covered[name] = true
		}
		if len(wanted) == 0 {
			continue
		}
		schema, err := schemaOf(old, kept.GetFiles())
		if err != nil {
			return nil, err
		}
		found, err := differences(old.GetId(), schema, wanted, next, b.record.GetServices())
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

func differences(from string, old *descriptorpb.FileDescriptorSet, oldServices []string, next *descriptorpb.FileDescriptorSet, services []string) ([]Difference, error) {
	changes, err := compat.CompareServed(compat.Side{Set: old, Services: oldServices}, compat.Side{Set: next, Services: services})
	if err != nil {
		return nil, fmt.Errorf("deployment %s can't be compared with this one: %w", from, err)
	}
	found := make([]Difference, len(changes))
	for i, change := range changes {
		found[i] = Difference{Change: change, From: from}
	}
	return found, nil
}

// Compare returns what has changed from one deployment to another, whatever is kept.
func (c *Catalog) Compare(from, to string) ([]Difference, error) {
	c.mu.Lock()
	kept := c.mu.kept
	c.mu.Unlock()
	old, next := find(kept, from), find(kept, to)
	if old == nil || next == nil {
		return nil, ErrUnknown
	}
	oldSchema, err := schemaOf(old, kept.GetFiles())
	if err != nil {
		return nil, err
	}
	nextSchema, err := schemaOf(next, kept.GetFiles())
	if err != nil {
		return nil, err
	}
	return differences(from, oldSchema, old.GetServices(), nextSchema, next.GetServices())
}

// Before is the deployment that was started last before another one was for the first time; nil
// if there is none.
func (c *Catalog) Before(id string) *recordv1.Deployment {
	list := c.List()
	at := slices.IndexFunc(list, func(d *recordv1.Deployment) bool { return d.GetId() == id })
	if at < 0 {
		return nil
	}
	var before *recordv1.Deployment
	for _, d := range list {
		if d.GetId() != id && d.GetFirstSeenAt() < list[at].GetFirstSeenAt() && d.GetFirstSeenAt() > before.GetFirstSeenAt() {
			before = d
		}
	}
	return before
}

// Breaking leaves the breaking ones.
func Breaking(found []Difference) []Difference {
	return slices.DeleteFunc(slices.Clone(found), func(d Difference) bool { return d.Severity != compat.Breaking })
}

// Kept is what there is of a service's data.
type Kept struct {
	// States, Rows, Promises and Signals say whether there are any.
	States, Rows, Promises, Signals bool
	// InFlight counts, by handler, the invocations that have not ended, and calls to it that are
	// on their way.
	InFlight map[string]int
	// Schedules counts, by handler, the schedules that call it and that no .proto declares: those
	// are made and removed with the build.
	Schedules map[string]int
	// Prepared counts the objects that have promised a transaction to write state or rows if it
	// commits: what is written then has the shape of the build that promised.
	Prepared int
}

// Census is what there is of all services. It belongs to one goroutine.
type Census map[string]*Kept

// Of is never nil.
func (c Census) Of(service string) *Kept {
	if c[service] == nil {
		c[service] = &Kept{InFlight: map[string]int{}, Schedules: map[string]int{}}
	}
	return c[service]
}

// Misfits are those of the breaking differences that break something that is kept, each with what
// it breaks.
func Misfits(breaking []Difference, census Census) []Difference {
	var misfits []Difference
	for _, d := range breaking {
		var found []string
		for _, affected := range d.Affected {
			kept := census.Of(string(affected.Service))
			if text := kept.describe(affected.Kept, affected.Handler); text != "" && !slices.Contains(found, text) {
				found = append(found, text)
			}
		}
		if len(found) > 0 {
			d.Found = strings.Join(found, "; ")
			misfits = append(misfits, d)
		}
	}
	return misfits
}

// describe is empty if there is nothing that such a change breaks. A handler that has not ended
// has state, rows and promises in its journal.
func (k *Kept) describe(what compat.Kept, handler protoreflect.Name) string {
	var parts []string
	say := func(is bool, text string) {
		if is {
			parts = append(parts, text)
		}
	}
	all := what == compat.KeptAnything
	say(k.States && (all || what == compat.KeptState), "there are states")
	say(k.Rows && (all || what == compat.KeptRows), "there are rows")
	say(k.Promises && (all || what == compat.KeptPromises), "there are promises")
	say(k.Signals && (all || what == compat.KeptInvocations), "there are signals that were not received")
	of := func(counts map[string]int) (sum int) {
		for name, count := range counts {
			if what != compat.KeptInvocations || name == string(handler) {
				sum += count
			}
		}
		return sum
	}
	some := func(count int, one, several string) {
		say(count == 1, one)
		say(count > 1, fmt.Sprintf(several, count))
	}
	some(of(k.InFlight), "1 invocation has not ended", "%d invocations have not ended")
	if what == compat.KeptInvocations || all { // what a schedule keeps is a handler and its request
		some(of(k.Schedules), "1 schedule calls it", "%d schedules call it")
	}
	if what == compat.KeptState || what == compat.KeptRows || all {
		some(k.Prepared, "1 object waits for the outcome of a transaction", "%d objects wait for the outcome of transactions")
	}
	return strings.Join(parts, ", ")
}
