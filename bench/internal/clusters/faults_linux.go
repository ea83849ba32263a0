package clusters

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/perdure/perdure/actor"
	benchv1 "github.com/perdure/perdure/bench/gen/bench/v1"
	"github.com/perdure/perdure/bench/gen/bench/v1/benchv1perdure"
	ycsbv1 "github.com/perdure/perdure/bench/gen/ycsb/v1"
	"github.com/perdure/perdure/bench/gen/ycsb/v1/ycsbv1perdure"
	"github.com/perdure/perdure/bench/internal/histogram"
	"github.com/perdure/perdure/bench/internal/system"
	"github.com/perdure/perdure/cluster"
)

const (
	// pause is between two calls of a caller: the machine must not be saturated, or waits say nothing of failures.
	pause = 10 * time.Millisecond
	// callTimeout ends the calls that nobody is going to answer.
	callTimeout = time.Minute
	// opening is what each account of transfers begins with.
	opening = 1000
)

// work is what callers do, each with objects of its own, so that none waits for another.
type work struct {
	name    string
	callers int
	// begin makes a caller's objects; nil: there is nothing to make.
	begin func(ctx context.Context, client *actor.Client, caller int) error
	// do is one call, after so many that were answered.
	do func(ctx context.Context, client *actor.Client, caller int, done int64) error
	// check looks whether the objects are what so many calls make of them.
	check func(ctx context.Context, client *actor.Client, caller int, done int64) error
}

// adding adds to counters.
var adding = work{
	name: "key", callers: 64,
	do: func(ctx context.Context, client *actor.Client, caller int, _ int64) error {
		_, err := benchv1perdure.Counter(client, fmt.Sprint("key-", caller)).Add(ctx, &benchv1.AddRequest{Amount: 1})
		return err
	},
	check: func(ctx context.Context, client *actor.Client, caller int, done int64) error {
		got, err := benchv1perdure.Counter(client, fmt.Sprint("key-", caller)).Get(ctx, &benchv1.GetRequest{})
		if err == nil && got.GetValue() != done {
			err = fmt.Errorf("it reads %d after %d acknowledged calls", got.GetValue(), done)
		}
		return err
	},
}

// transferring moves money to and fro between two accounts, in one transaction each time: nearly always of
// three partitions, that of the call among them.
var transferring = work{
	name: "transfer", callers: 32,
	begin: func(ctx context.Context, client *actor.Client, caller int) error {
		for side := range 2 {
			if _, err := benchv1perdure.Account(client, account(caller, side)).Deposit(ctx, &benchv1.DepositRequest{Amount: opening}); err != nil {
				return err
			}
		}
		return nil
	},
	do: func(ctx context.Context, client *actor.Client, caller int, done int64) error {
		from := int(done % 2)
		_, err := benchv1perdure.Transfer(client).Transfer(ctx, &benchv1.TransferRequest{From: account(caller, from), To: account(caller, 1-from), Amount: 1})
		return err
	},
	check: func(ctx context.Context, client *actor.Client, caller int, done int64) error {
		for side, want := range []int64{opening - done%2, opening + done%2} {
			got, err := benchv1perdure.Account(client, account(caller, side)).Balance(ctx, &benchv1.BalanceRequest{})
			if err == nil && got.GetBalance() != want {
				err = fmt.Errorf("%s has %d after %d acknowledged transfers, not %d", account(caller, side), got.GetBalance(), done, want)
			}
			if err != nil {
				return err
			}
		}
		return nil
	},
}

func account(caller, side int) string { return fmt.Sprintf("pair-%d-%d", caller, side) }

// callers do their work through the Go stub, which retries.
type callers struct {
	work
	stopping context.CancelFunc
	running  sync.WaitGroup
	done     []atomic.Int64
	mu       struct {
		sync.Mutex
		latency *histogram.Histogram
		problem error
		// back is when each caller was answered first in a call that began or ended after since.
		since time.Time
		back  []time.Time
	}
}

func (g *group) call(ctx context.Context, what work) (*callers, error) {
	c := &callers{work: what, done: make([]atomic.Int64, what.callers)}
	c.mu.latency, c.mu.back = new(histogram.Histogram), make([]time.Time, what.callers)
	clients := make([]*actor.Client, what.callers)
	for caller := range clients {
		clients[caller] = cluster.Dial(nil, g.urls()...)
		if what.begin == nil {
			continue
		}
		if err := what.begin(ctx, clients[caller], caller); err != nil {
			return nil, err
		}
	}
	stopping, stop := context.WithCancel(ctx)
	c.stopping = stop
	for caller, client := range clients {
		c.running.Go(func() {
			for stopping.Err() == nil {
				began := time.Now()
				calling, cancel := context.WithTimeout(ctx, callTimeout)
				err := what.do(calling, client, caller, c.done[caller].Load())
				cancel()
				c.answered(caller, began, err)
				if err != nil {
					return
				}
				_ = sleep(stopping, pause) // stopping is looked at next
			}
		})
	}
	return c, nil
}

func (c *callers) answered(caller int, began time.Time, err error) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.mu.problem = errors.Join(c.mu.problem, fmt.Errorf("%s-%d: a call failed after %s: %w", c.name, caller, now.Sub(began), err))
		return
	}
	c.done[caller].Add(1)
	c.mu.latency.Record(now.Sub(began))
	if c.mu.back[caller].IsZero() {
		c.mu.back[caller] = now
	}
}

// problem is the first call that failed.
func (c *callers) problem() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.problem
}

// phase begins to count anew, and returns what was counted.
func (c *callers) phase() *histogram.Histogram {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.mu.latency
	c.mu.latency = new(histogram.Histogram)
	return was
}

// broken notes that something breaks now.
func (c *callers) broken() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.since = time.Now()
	clear(c.mu.back)
}

// recovered waits until each caller was answered after broken, and returns how long each took.
func (c *callers) recovered(ctx context.Context) ([]time.Duration, error) {
	for {
		c.mu.Lock()
		waits, problem := make([]time.Duration, 0, c.callers), c.mu.problem
		for _, at := range c.mu.back {
			if !at.IsZero() {
				waits = append(waits, at.Sub(c.mu.since))
			}
		}
		c.mu.Unlock()
		if problem != nil || len(waits) == c.callers {
			return waits, problem
		}
		if err := sleep(ctx, 5*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// finish ends the calls and looks at every object.
func (c *callers) finish(ctx context.Context, g *group) error {
	c.stopping()
	c.running.Wait()
	err := c.problem()
	client := cluster.Dial(nil, g.urls()...)
	for caller := range c.callers {
		if wrong := c.check(ctx, client, caller, c.done[caller].Load()); wrong != nil {
			err = errors.Join(err, fmt.Errorf("%s-%d: %w", c.name, caller, wrong))
		}
	}
	return err
}

// loss is how a node is lost, and comes back.
type loss struct {
	name, title, from string
	lose              func(n *system.Node) error
	back              func(ctx context.Context, n *system.Node) error
}

var killed = loss{"failover", "A node of three is killed under load", "SIGKILL",
	func(n *system.Node) error { n.Kill(); return nil },
	func(ctx context.Context, n *system.Node) error { return n.Start(ctx) }}

// stopped breaks no connection, so that callers have to find out.
var stopped = loss{"standstill", "A node of three stands still under load", "SIGSTOP",
	func(n *system.Node) error { return n.Pause() },
	func(_ context.Context, n *system.Node) error { return n.Resume() }}

func (b *Bench) failover(ctx context.Context) error { return b.losses(ctx, killed) }

func (b *Bench) standstill(ctx context.Context) error { return b.losses(ctx, stopped) }

func (b *Bench) losses(ctx context.Context, how loss) error {
	const partitions = 64
	g, err := b.found(ctx, how.name, 3, 3, partitions)
	if err != nil {
		return err
	}
	var kinds []*callers
	waits := map[string][]time.Duration{} // by row
	for _, what := range []work{adding, transferring} {
		c, beginErr := g.call(ctx, what)
		if beginErr != nil {
			return errors.Join(beginErr, g.end())
		}
		kinds = append(kinds, c)
	}
	began := time.Now()
	for kill := 0; kill < b.Kills && time.Since(began) < b.KillsFor && err == nil; kill++ {
		if err = sleep(ctx, time.Second); err != nil {
			break
		}
		n := g.nodes[kill%len(g.nodes)]
		for _, c := range kinds {
			c.broken()
		}
		if err = how.lose(n); err != nil {
			break
		}
		for _, c := range kinds {
			var each []time.Duration
			if each, err = c.recovered(ctx); err != nil {
				break
			}
			waits["the slowest "+c.name] = append(waits["the slowest "+c.name], slices.Max(each))
			waits["each "+c.name] = append(waits["each "+c.name], each...)
		}
		if err != nil {
			break
		}
		if err = how.back(ctx, n); err == nil {
			err = g.settled(ctx, partitions)
		}
	}
	var wrong error
	for _, c := range kinds {
		wrong = errors.Join(wrong, c.finish(ctx, g))
	}
	if wrong != nil {
		b.Wrong = append(b.Wrong, how.name+": "+wrong.Error())
	}
	if err = errors.Join(err, g.end()); err != nil && wrong == nil {
		return err
	}
	page := Page{Title: how.title,
		Header: []string{"what", "times", "median ms", "p90 ms", "max ms", "above 3 s"},
		Notes: []string{
			fmt.Sprintf("%d callers with the Go stub that add to a counter each, and %d that move money to and fro between two accounts each, in one transaction; all pause for %s between calls. From %s until a call is answered, of each caller alone and of the slowest; two thirds of the partitions are led by nodes that go on. A transfer needs three of them. Then the node comes back, and the next one is lost when the cluster has come to rest.", adding.callers, transferring.callers, pause, how.from),
			"No call failed, and each counter and account was what the acknowledged calls say, unless noted below.",
		}}
	for _, c := range kinds {
		for _, name := range []string{"the slowest " + c.name, "each " + c.name} {
			row := waits[name]
			if len(row) == 0 {
				continue
			}
			slices.Sort(row)
			late := 0
			for _, wait := range row {
				if wait > 3*time.Second {
					late++
				}
			}
			at := func(share float64) string {
				return fmt.Sprintf("%.0f", row[int(share*float64(len(row)-1))].Seconds()*1e3)
			}
			page.Rows = append(page.Rows, []string{name, fmt.Sprint(len(row)), at(.5), at(.9), at(1), fmt.Sprint(late)})
		}
	}
	b.Pages = append(b.Pages, page)
	return nil
}

func (b *Bench) rebalance(ctx context.Context) error {
	const partitions = 64
	g, err := b.found(ctx, "rebalance", 4, 3, partitions)
	if err != nil {
		return err
	}
	c, err := g.call(ctx, adding)
	if err != nil {
		return errors.Join(err, g.end())
	}
	phases := []*histogram.Histogram{}
	_ = sleep(ctx, 2*time.Second) // warm-up; whether ctx ended shows below
	c.phase()
	err = sleep(ctx, 2*b.Window)
	phases = append(phases, c.phase())
	began := time.Now()
	if err == nil {
		err = g.nodes[3].Start(ctx)
	}
	if err == nil {
		err = g.settled(ctx, partitions)
	}
	took := time.Since(began)
	phases = append(phases, c.phase())
	err = errors.Join(err, sleep(ctx, 2*b.Window))
	phases = append(phases, c.phase())
	if wrong := c.finish(ctx, g); wrong != nil {
		b.Wrong = append(b.Wrong, "rebalance: "+wrong.Error())
	}
	if err = errors.Join(err, g.end()); err != nil {
		return err
	}
	page := Page{Title: fmt.Sprintf("A fourth node joins under load: %s until copies and leaders are even", took.Round(10*time.Millisecond)),
		Header: []string{"when", "calls", "p50 ms", "p99 ms", "max ms"},
		Notes:  []string{"The callers above that add. 48 of 192 copies and 16 of 64 leaders move; from the start of the process until all is even."}}
	for i, name := range []string{"before", "meanwhile", "after"} {
		h := phases[i]
		page.Rows = append(page.Rows, []string{name, number(float64(h.Count())), ms(h.Quantile(.5)), ms(h.Quantile(.99)), ms(h.Max())})
	}
	b.Pages = append(b.Pages, page)
	return nil
}

// entryBytes is the size of each object of copies.
const entryBytes = 64 << 10

// copies measures how fast a node without data gets copies of all that another has.
func (b *Bench) copies(ctx context.Context) error {
	const partitions = 64
	g, err := b.found(ctx, "copies", 2, 1, partitions)
	if err != nil {
		return err
	}
	if err := b.fill(ctx, g); err != nil {
		return errors.Join(err, g.end())
	}
	before, err := g.use()
	if err != nil {
		return errors.Join(err, g.end())
	}
	began := time.Now()
	if err = g.nodes[1].Start(ctx); err == nil {
		err = g.settled(ctx, partitions)
	}
	took := time.Since(began)
	after, useErr := g.use()
	if err = errors.Join(err, useErr, g.end()); err != nil {
		return err
	}
	carried := float64(after.loopback - before.loopback)
	b.Pages = append(b.Pages, Page{Title: "A node without data gets a copy of everything",
		Header: []string{"state MiB", "s", "state MB/s", "loopback MiB", "CPU of both nodes, s"},
		Rows: [][]string{{fmt.Sprint(b.StateBytes >> 20), fmt.Sprintf("%.1f", took.Seconds()), number(float64(b.StateBytes) / 1e6 / took.Seconds()),
			number(carried / (1 << 20)), number((after.nodes.CPU - before.nodes.CPU).Seconds())}},
		Notes: []string{fmt.Sprintf("Objects of %d KiB in %d partitions. From the start of the process, which has to find the cluster first, until all copies have caught up and leaders are even; nobody calls. At most four partitions are copied at once.", entryBytes>>10, partitions)}})
	return nil
}

func (b *Bench) fill(ctx context.Context, g *group) error {
	client := cluster.Dial(nil, g.urls()[:1]...)
	value := strings.Repeat("x", entryBytes)
	var next atomic.Int64
	var filling sync.WaitGroup
	problems := make(chan error, 16)
	for range cap(problems) {
		filling.Go(func() {
			for ctx.Err() == nil {
				i := next.Add(1) - 1
				if i >= int64(b.StateBytes/entryBytes) {
					return
				}
				// Not the same bytes again and again, lest they compress to nothing where something compresses.
				text := fmt.Sprintf("%016x", i*0x9e3779b97f4a7c1) + value[16:]
				if _, err := ycsbv1perdure.Entry(client, fmt.Sprint("entry-", i)).Update(ctx, &ycsbv1.UpdateRequest{Value: text}); err != nil {
					problems <- err
					return
				}
			}
		})
	}
	filling.Wait()
	close(problems)
	return errors.Join(<-problems, ctx.Err())
}
