package cases

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/perdure/perdure/actor"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
)

// Desk keeps in itself what belongs into state: one Desk serves all objects and all attempts.
type Desk struct {
	bank.UnimplementedBackOfficeHandler
	limits // has a method of its own, which counts as one of Desk

	orders  int
	names   []string
	cache   map[string]int
	inner   struct{ last string }
	lines   [3]int
	next    *Desk
	mu      sync.Mutex
	once    sync.Once
	client  *int
	seen    atomic.Int64
	known   sync.Map
	plain   int64
	metrics counter
}

type limits struct{ highest int64 }

func (l *limits) raise(to int64) {
	l.highest = max(l.highest, to) // want `global: a DURABLE handler writes l.highest, which .* \(Desk.StandingOrder calls limits.raise\)`
}

// counter has its lock itself.
type counter struct {
	mu sync.Mutex
	n  int
}

func (c *counter) add() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++ // fine: what a field's methods do is its own business
}

// StandingOrder is DURABLE.
func (d *Desk) StandingOrder(ctx actor.Context, req *bankv1.StandingOrderRequest) (*bankv1.StandingOrderResponse, error) {
	d.orders++                          // want `global: a DURABLE handler writes d.orders, which all objects of the process share: each replay writes it again, and a restart forgets it; keep it in the object's state`
	d.orders += 2                       // want `global: a DURABLE handler writes d.orders`
	d.cache["a"] = 1                    // want `global: a DURABLE handler writes d.cache\["a"\]`
	d.names = append(d.names, "a")      // want `global: a DURABLE handler writes d.names`
	d.inner.last, d.lines[1] = "a", 1   // want `global: a DURABLE handler writes d.inner.last` `global: a DURABLE handler writes d.lines\[1\]`
	d.next.orders = 1                   // want `global: a DURABLE handler writes d.next.orders`
	d.highest = 2                       // want `global: a DURABLE handler writes d.highest`
	delete(d.cache, "a")                // want `global: a DURABLE handler writes d.cache, which`
	clear(d.cache)                      // want `global: a DURABLE handler writes d.cache, which`
	copy(d.names, []string{"a"})        // want `global: a DURABLE handler writes d.names, which`
	clear(byKey)                        // want `global: a DURABLE handler writes byKey, a variable`
	_ = func() { (*d).orders = 1 }      // want `global: a DURABLE handler writes \(\*d\).orders`
	d.mu.Lock()                         // A lock does not make state of it.
	d.plain++                           // want `global: a DURABLE handler writes d.plain`
	d.mu.Unlock()                       //
	d.note("a")                         //
	d.raise(3)                          //
	d.seen.Add(1)                       // fine: somebody thought of what it is
	d.known.Store("a", 1)               // fine
	atomic.AddInt64(&d.plain, 1)        // fine
	d.metrics.add()                     // fine
	orders, names := d.orders, d.names  // fine
	orders, names = orders+1, names[:0] // fine: variables of the attempt
	own := *d                           // a copy
	own.orders++                        // fine
	own.tally()                         // fine
	d = &own                            // fine: the variable only
	_, _ = names, orders
	d.once.Do(func() { d.client = new(int) }) // fine: once in the process, whoever comes first

	_, err := actor.Run(ctx, "pay", func(context.Context) (int, error) {
		d.orders++ // fine, like all that a closure does outside of the journal
		return d.orders, nil
	})
	return nil, err
}

// note is come to from a handler.
func (d *Desk) note(name string) {
	d.inner.last = name // want `global: a DURABLE handler writes d.inner.last, .* \(Desk.StandingOrder calls Desk.note\)`
}

// tally is called on a copy only.
func (d *Desk) tally() { d.orders++ }

// PayRoll is a TRANSACTION.
func (d *Desk) PayRoll(ctx actor.Context, req *bankv1.PayRollRequest) (*bankv1.PayRollResponse, error) {
	d.orders++ // want `global: a TRANSACTION handler writes d.orders, which all objects of the process share: a try that is rolled back has written it all the same; keep it in the object's state`
	run := &payRoll{}
	run.pay(ctx)
	return nil, nil
}

// later is called by nobody here, but belongs to a type that has handlers.
func (d *Desk) later(ctx bank.AccountDurableContext) {
	d.orders-- // want `global: a DURABLE handler writes d.orders`
}

// payRoll is made for each attempt.
type payRoll struct{ paid int }

func (p *payRoll) pay(ctx actor.Context) {
	p.paid++ // fine
	p.more()
}

func (p *payRoll) more() { p.paid++ }

// plan has no handlers: who has it is not known.
type plan struct{ steps int }

func (p *plan) add(ctx bank.AccountDurableContext) { p.steps++ }

// Count is copied for each call.
type Count struct {
	n       int
	last    [2]struct{ id string }
	byKey   map[string]int
	list    []int
	pointer *struct{ n int }
}

// Transfer is a TRANSACTION.
func (c Count) Transfer(ctx actor.Context, req *bankv1.TransferRequest) (*bankv1.TransferResponse, error) {
	c.n++                   // fine: a copy
	c.last[0].id = "a"      // fine
	c.list = append(c.list) // fine
	c.byKey["a"] = 1        // want `global: a TRANSACTION handler writes c.byKey\["a"\]`
	c.list[0]++             // want `global: a TRANSACTION handler writes c.list\[0\]`
	c.pointer.n = 1         // want `global: a TRANSACTION handler writes c.pointer.n`
	delete(c.byKey, "a")    // want `global: a TRANSACTION handler writes c.byKey, which`
	return nil, nil
}

var (
	_ bank.BackOfficeHandler = (*Desk)(nil)
	_ bank.TransferHandler   = Count{}
	_                        = (*Desk).later
	_                        = (*plan).add
)
