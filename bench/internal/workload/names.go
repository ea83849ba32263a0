// Package workload is what the callers of the benchmark ask for: which calls on which keys, and how the objects that they
// change can be added up afterwards.
package workload

import (
	"fmt"
	"strconv"
)

// The workloads of the main table.
const (
	NameAdd           = "Add, 1,000 keys"
	NameHot           = "Add, one key"
	NameGet           = "Get (READ)"
	NameSteps         = "10 Run steps (DURABLE)"
	NameOneStep       = "1 Run step (DURABLE)"
	NameThreeSteps    = "3 Run steps (DURABLE)"
	NameNineSteps     = "9 Run steps (DURABLE)"
	NameTransfer      = "transfer, 1,000 accounts"
	NameTransferKeyed = "transfer, Idempotency-Key"
	NameFanOut        = "100 Adds and join (DURABLE)"
	NameFanOutAtomic  = "100 Adds (TRANSACTION)"
)

// OneByOne follows the name of a workload in which the caller calls each object itself, one after the other, so that
// nothing is atomic.
const OneByOne = ", one by one"

const (
	// Customers of the bank, each with two accounts.
	Customers = 10_000
	// Entries is how many keys the mixes are drawn from.
	Entries = 10_000
)

// SmallBankName is the name of SmallBank on customers drawn by choice.
func SmallBankName(choice Choice) string { return "SmallBank, " + choice.String() }

// MixName is the name of the mix of count entries drawn by choice.
func MixName(count int, choice Choice) string {
	return fmt.Sprintf("YCSB-T, %d keys, %s", count, choice)
}

// Choice says how keys are drawn. The zero value draws all alike.
type Choice struct {
	// Zipf is the exponent of a zipfian distribution: key number r is drawn in proportion to 1 / (r+1)^Zipf. 0: all keys
	// alike.
	Zipf float64
}

// String is what the tables call it.
func (c Choice) String() string {
	if c.Zipf == 0 {
		return "uniform"
	}
	return "zipfian " + strconv.FormatFloat(c.Zipf, 'g', -1, 64)
}
