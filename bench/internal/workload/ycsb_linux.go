package workload

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/perdure/perdure/bench/internal/load"
	"github.com/perdure/perdure/bench/internal/system"
)

// valueBytes is the size of what an update writes.
const valueBytes = 100

// written is what every update writes; that it changed shows in the entry's version.
var written = strings.Repeat("v", valueBytes)

// Mix is a transaction over count entries drawn by choice, each read or, as often, read and written. On Restate it is one
// call of a durable handler, which is not atomic.
func Mix(count int, choice Choice) Workload {
	return mixes(count, choice, "", "", func(instance *system.Instance, operations []operation) load.Call {
		phrased := make([]string, len(operations))
		for i, o := range operations {
			phrased[i] = o.body()
		}
		return load.Call{instance.Handler("ycsb.v1.MixService", "", "Mix", `{"operations":[`+strings.Join(phrased, ",")+`]}`)}
	})
}

// MixOneByOne is the same work by calls of single entries.
func MixOneByOne(count int, choice Choice) Workload {
	return mixes(count, choice, OneByOne, Perdure, func(instance *system.Instance, operations []operation) load.Call {
		var call load.Call
		for _, o := range operations {
			call = append(call, o.request(instance))
		}
		return call
	})
}

func mixes(count int, choice Choice, suffix, only string, phrase func(*system.Instance, []operation) load.Call) Workload {
	return Workload{
		Name:   MixName(count, choice) + suffix,
		System: only, Ledger: versions, Change: field("change"),
		Calls: func(instance *system.Instance, random *rand.Rand) []load.Call {
			keys := Keys{Count: Entries, Choice: choice, Random: random}
			calls := make([]load.Call, drawn)
			for i := range calls {
				operations := make([]operation, 0, count)
				for _, key := range keys.Distinct("e", count) {
					operations = append(operations, operation{key: key, write: random.IntN(2) == 0})
				}
				calls[i] = phrase(instance, operations)
			}
			return calls
		},
	}
}

var versions = &Ledger{
	Name: "the versions of the entries together", Change: field("change"), Number: field("version"),
	Fill: func(instance *system.Instance) []load.Call { return entries(instance, true) },
	Read: func(instance *system.Instance) []load.Call { return entries(instance, false) },
}

func entries(instance *system.Instance, write bool) []load.Call {
	calls := make([]load.Call, 0, Entries)
	for _, key := range names("e", Entries) {
		o := operation{key: key, write: write}
		calls = append(calls, load.Call{o.request(instance)})
	}
	return calls
}

// operation is one operation of a mix.
type operation struct {
	key   string
	write bool
}

func (o operation) request(instance *system.Instance) []byte {
	handler := "Read"
	if o.write {
		handler = "Update"
	}
	return instance.Handler("ycsb.v1.EntryService", o.key, handler, o.body())
}

// body is the same as part of a mix and as request of its own.
func (o operation) body() string {
	if o.write {
		return fmt.Sprintf(`{"key":%q,"value":%q}`, o.key, written)
	}
	return fmt.Sprintf(`{"key":%q}`, o.key)
}
