// Package cases has handlers that do what they must not, each with what perdurevet says to it.
package cases

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/perdure/perdure/actor"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
)

var paidOut int64

var byKey = map[string]int64{}

// Office has StandingOrder, which is DURABLE, PayRoll and Total, which are TRANSACTIONS.
type Office struct {
	bank.UnimplementedBackOfficeHandler // so that the example may grow

	db *sql.DB
	wg sync.WaitGroup
}

// StandingOrder makes every mistake of a DURABLE handler.
func (o *Office) StandingOrder(ctx actor.Context, req *bankv1.StandingOrderRequest) (*bankv1.StandingOrderResponse, error) {
	began := time.Now()        // want `clock: time.Now in a DURABLE handler: a replay reads another time; use ctx.Now\(\)`
	_ = time.Since(began)      // want `clock: time.Since`
	time.Sleep(time.Second)    // want `clock: time.Sleep in a DURABLE handler: a replay reads another time; use actor.Sleep`
	clock := time.Now          // want `clock: time.Now`
	_ = clock                  //
	_ = mathrand.IntN(3)       // want `random: rand.IntN in a DURABLE handler: a replay draws something else; use ctx.Rand\(\)`
	_, _ = rand.Read(nil)      // want `random: rand.Read`
	_ = uuid.NewString()       // want `random: uuid.NewString in a DURABLE handler: a replay draws something else; use ctx.UUID\(\)`
	_ = ctx.Rand().IntN(3)     // fine
	_ = ctx.Now().Add(1)       // fine
	_ = uuid.MustParse("")     // fine
	_ = time.Unix(0, 0).Date   // fine
	_ = http.StatusOK          // fine
	ready := make(chan int, 1) // fine by itself

	go func() { ready <- 1 }() // want `goroutine: go starts a goroutine in a DURABLE handler`
	o.wg.Go(func() {})         // want `goroutine: WaitGroup.Go starts a goroutine`
	ready <- 1                 // want `channel: send on a channel`
	<-ready                    // want `channel: receive from a channel`
	<-ctx.Done()               // want `channel: a wait for Done in a DURABLE handler: that is the end of the attempt`
	select {                   // want `channel: select in a DURABLE handler`
	case <-ready:
	default:
	}
	for range ready { // want `channel: range over a channel`
	}

	paidOut++                 // want `global: a DURABLE handler writes paidOut, a variable of the package`
	byKey["all"] = paidOut    // want `global: a DURABLE handler writes byKey`
	delete(byKey, "all")      // want `global: a DURABLE handler writes byKey`
	http.DefaultClient = nil  // want `global: a DURABLE handler writes DefaultClient`
	local := map[string]int{} // fine
	local["a"]++

	accounts := map[string]int64{"alice": 1, "bob": 2}
	for id, amount := range accounts { // want `maprange: steps in the order of a map \(line \d+\)`
		_, _ = bank.Account(ctx, id).Deposit(ctx, &bankv1.DepositRequest{Amount: amount})
	}
	for id := range maps.Keys(accounts) { // want `maprange: steps in the order of a map`
		o.pay(ctx, id)
	}
	for _, id := range slices.Sorted(maps.Keys(accounts)) { // fine: in order
		o.pay(ctx, id)
	}
	for _, id := range slices.Collect(maps.Keys(accounts)) { // want `maprange: steps in the order of a map`
		o.pay(ctx, id)
	}
	ids := slices.Collect(maps.Keys(accounts))
	for range len(ids) {
		for _, id := range ids { // want `maprange: steps in the order of a map`
			o.pay(ctx, id)
		}
	}
	ordered := slices.Collect(maps.Keys(accounts))
	slices.Sort(ordered)
	for _, id := range ordered { // fine: whoever it was given to may have sorted it
		o.pay(ctx, id)
	}
	var sum int64
	for _, amount := range accounts { // fine: no step
		sum += amount
	}
	var stubs []bank.AccountStub
	for id := range accounts { // fine for the journal: a stub is no step
		stubs = append(stubs, bank.Account(ctx, id))
	}

	_, _ = http.Get("http://localhost")           // want `io: http.Get in a DURABLE handler: each replay does it again; do it inside actor.Run`
	_, _ = o.db.ExecContext(ctx, "delete from t") // want `io: sql.DB.ExecContext in a DURABLE handler`
	_, _ = os.ReadFile("/etc/hosts")              // want `io: os.ReadFile`
	fmt.Println(sum, stubs)                       // fine: no rule for it
	o.report(ctx)

	_, err := actor.Run(ctx, "pay out", func(c context.Context) (string, error) {
		_ = time.Now()                                   // fine: this runs outside of the journal
		_, _ = o.db.ExecContext(c, "insert", time.Now()) // fine
		_ = ctx.InvocationID()                           // fine
		_, _ = o.db.ExecContext(ctx, "insert")           // want `outerctx: the handler's ctx inside the closure of Run: use the closure's own context`
		_ = actor.Sleep(c, time.Second)                  // want `outerctx: actor.Sleep inside the closure of Run: a closure cannot make steps`
		return "", nil
	})
	limited, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	_ = actor.Do(ctx, "mail", func(c context.Context) error {
		return limited.Err() // want `outerctx: limited comes from outside the closure of Do`
	})
	//perdurevet:ignore clock only for the log
	fmt.Println(time.Now())
	fmt.Println(time.Now()) //perdurevet:ignore clock as above
	fmt.Println(time.Now()) //perdurevet:ignore random another rule // want `clock: time.Now`
	//perdurevet:ignore clock // want `mode: //perdurevet:ignore needs a rule \(clock, random,.*\) and a reason`
	return nil, err
}

// pay makes a step.
func (o *Office) pay(ctx actor.Context, id string) {
	_, _ = bank.Account(ctx, id).Deposit(ctx, &bankv1.DepositRequest{Amount: 1})
}

// report has no ctx of its own to go by: it is read because StandingOrder calls it.
func (o *Office) report(_ context.Context) {
	fmt.Println(stamp())
}

func stamp() time.Time {
	return time.Now() // want `clock: time.Now in a DURABLE handler: .* \(Office.StandingOrder calls Office.report calls stamp\)`
}

// unused is called by no handler and has no handler's context: nothing is said of it.
func unused() time.Time { return time.Now() }

var _ = unused
