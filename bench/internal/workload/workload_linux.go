package workload

import (
	"fmt"
	"math/rand/v2"

	"github.com/perdure/perdure/bench/internal/load"
	"github.com/perdure/perdure/bench/internal/system"
)

// Workload is one kind of call.
type Workload struct {
	// Name is what the tables call it.
	Name string
	// System is the name of the one system that has such calls; empty: all have.
	System string
	// Calls are drawn from at random, each as likely as any other.
	Calls func(*system.Instance, *rand.Rand) []load.Call
	// Refusal is what an answer holds by which a handler declines; see load.Plan.
	Refusal string
	// Ledger has the objects that the calls work on; nil when nobody needs to make them or to add them up.
	Ledger *Ledger
	// Change reads from an answer by how much the call changed the ledger's sum; nil: no call changes it, however it ends.
	Change func(answer []byte) (int64, error)
	// Partial says that a request may have changed something although it failed for a reason of its own.
	Partial bool
}

// Ledger is objects that hold a number each. Several workloads can share one.
type Ledger struct {
	// Name says what the sum of the numbers is.
	Name string
	// System is the name of the one system on which the sum is checked; empty: all.
	System string
	// Fill is done once on a fresh server, before the first workload that has this ledger; nil: nothing. Change reads its
	// answers.
	Fill   func(*system.Instance) []load.Call
	Change func(answer []byte) (int64, error)
	// Read reads each object once; nil: the sum is not checked. Number reads the number from an answer.
	Read   func(*system.Instance) []load.Call
	Number func(answer []byte) (int64, error)
}

// Perdure is the name of the system that has workloads of its own.
var Perdure = system.Perdure{}.Name()

// field reads the field of that name from an answer.
func field(name string) func([]byte) (int64, error) {
	return func(answer []byte) (int64, error) { return load.Number(answer, name) }
}

// each is one call of op for each key.
func each(op system.Op, keys []string) func(*system.Instance) []load.Call {
	return func(instance *system.Instance) []load.Call {
		calls := make([]load.Call, len(keys))
		for i, key := range keys {
			calls[i] = load.Call{instance.Request(op, key)}
		}
		return calls
	}
}

// anyOf draws from one call of op for each key.
func anyOf(op system.Op, keys []string) func(*system.Instance, *rand.Rand) []load.Call {
	return func(instance *system.Instance, _ *rand.Rand) []load.Call { return each(op, keys)(instance) }
}

// names are prefix0 to prefix(count-1).
func names(prefix string, count int) []string {
	all := make([]string, count)
	for i := range all {
		all[i] = fmt.Sprintf("%s%d", prefix, i)
	}
	return all
}
