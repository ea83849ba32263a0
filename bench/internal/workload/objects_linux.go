package workload

import (
	"math/rand/v2"

	"github.com/perdure/perdure/bench/internal/load"
	"github.com/perdure/perdure/bench/internal/system"
)

const (
	// Counters is over how many counters the callers spread, and accounts over how many accounts.
	Counters = 1000
	accounts = 1000
	// wide is how many counters a fan-out draws its hundred from.
	wide    = 10_000
	fanned  = 100
	drawn   = 8192 // different calls of one workload
	fewOnes = 256  // the same, where one call is big
)

// Adds adds to one of many counters.
func Adds() Workload {
	return Workload{Name: NameAdd, Calls: anyOf(system.Add, names("k", Counters))}
}

// Hot adds to the same counter always.
func Hot() Workload { return hot }

var hot = Workload{
	Name: NameHot, Calls: anyOf(system.Add, []string{"hot"}), Change: one,
	Ledger: &Ledger{Name: "the hot counter", Read: each(system.Get, []string{"hot"}), Number: load.Value},
}

// one is the change of a call that counts.
func one([]byte) (int64, error) { return 1, nil }

// Gets reads one of many counters. They are made first, so that it finds something.
func Gets() Workload { return gets }

var gets = Workload{
	Name: NameGet, Calls: anyOf(system.Get, names("k", Counters)),
	Ledger: &Ledger{Name: "the counters", Fill: each(system.Add, names("k", Counters)), Change: one},
}

// Steps takes ten durable steps; OneStep, ThreeSteps and NineSteps are the shapes that Restate has published figures of.
func Steps() Workload      { return steps(NameSteps, "10") }
func OneStep() Workload    { return steps(NameOneStep, "1") }
func ThreeSteps() Workload { return steps(NameThreeSteps, "3") }
func NineSteps() Workload  { return steps(NameNineSteps, "9") }

func steps(name, count string) Workload {
	return Workload{Name: name, Calls: func(instance *system.Instance, _ *rand.Rand) []load.Call {
		return load.Single(instance.Request(system.Run10, count))
	}}
}

// Transfers move one between two of many accounts: atomically on Perdure, durably on Restate. However a call ends, the sum
// of all accounts stays.
func Transfers() Workload {
	return Workload{Name: NameTransfer, Ledger: money, Calls: transfers(func(instance *system.Instance, from, to string) []byte {
		return instance.Request(system.Transfer, from, to)
	})}
}

// KeyedTransfers are Transfers with an idempotency key each, so that the node keeps each result.
func KeyedTransfers() Workload {
	return Workload{Name: NameTransferKeyed, System: Perdure, Ledger: money, Calls: transfers(func(instance *system.Instance, from, to string) []byte {
		return instance.Keyed(system.Transfer, from, to)
	})}
}

var money = &Ledger{
	Name: "the accounts together", Fill: each(system.Deposit, names("a", accounts)), Change: field("change"),
	Read: each(system.Balance, names("a", accounts)), Number: field("balance"),
}

func transfers(request func(instance *system.Instance, from, to string) []byte) func(*system.Instance, *rand.Rand) []load.Call {
	return func(instance *system.Instance, random *rand.Rand) []load.Call {
		keys := Keys{Count: accounts, Random: random}
		calls := make([]load.Call, drawn)
		for i := range calls {
			pair := keys.Distinct("a", 2)
			calls[i] = load.Call{request(instance, pair[0], pair[1])}
		}
		return calls
	}
}

// FanOut adds to a hundred counters at once and waits for all, durably.
func FanOut() Workload {
	return Workload{Name: NameFanOut, Ledger: fannedOut, Change: field("change"), Partial: true, Calls: fanOuts("f", func(instance *system.Instance, keys []string) []byte {
		return instance.Request(system.AddAll, keys...)
	})}
}

// FanOutAtomic does the same as one transaction.
func FanOutAtomic() Workload {
	return Workload{Name: NameFanOutAtomic, System: Perdure, Ledger: fannedOutAtomic, Change: field("change"), Calls: fanOuts("g", func(instance *system.Instance, keys []string) []byte {
		return instance.Handler("bench.v1.FanOutService", "", "AddAllOrNone", system.Names(keys))
	})}
}

var (
	// fannedOut is not read back on Restate: there that takes as long as a window.
	fannedOut = &Ledger{
		Name: "the fanned-out counters together", System: Perdure,
		Read: each(system.Get, names("f", wide)), Number: load.Value,
	}
	fannedOutAtomic = &Ledger{
		Name: "the counters of fan-outs in transactions together", System: Perdure,
		Read: each(system.Get, names("g", wide)), Number: load.Value,
	}
)

func fanOuts(prefix string, request func(instance *system.Instance, keys []string) []byte) func(*system.Instance, *rand.Rand) []load.Call {
	return func(instance *system.Instance, random *rand.Rand) []load.Call {
		keys := Keys{Count: wide, Random: random}
		calls := make([]load.Call, fewOnes)
		for i := range calls {
			calls[i] = load.Call{request(instance, keys.Distinct(prefix, fanned))}
		}
		return calls
	}
}
