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

	benchv1 "github.com/perdure/perdure/bench/gen/bench/v1"
	"github.com/perdure/perdure/bench/gen/bench/v1/benchv1perdure"
	ycsbv1 "github.com/perdure/perdure/bench/gen/ycsb/v1"
	"github.com/perdure/perdure/bench/gen/ycsb/v1/ycsbv1perdure"
	"github.com/perdure/perdure/bench/internal/histogram"
	"github.com/perdure/perdure/cluster"
)

const (
	// keys are called by one caller each, so that none waits for another.
	keys = 64
	// pause is between two calls of a caller: the machine must not be saturated, or waits say nothing of failures.
	pause = 10 * time.Millisecond
	// callTimeout ends the calls that nobody is going to answer.
	callTimeout = time.Minute
)

// callers add to counters through the Go stub, which retries.
type callers struct {
	stopping context.CancelFunc
	running  sync.WaitGroup
	added    [keys]atomic.Int64
	mu       struct {
		sync.Mutex
		latency *histogram.Histogram
		problem error
		// back is when each key was answered first in a call that began or ended after since.
		since time.Time
		back  [keys]time.Time
	}
}

func (g *group) call(ctx context.Context) *callers {
	c := &callers{}
	c.mu.latency = new(histogram.Histogram)
	stopping, stop := context.WithCancel(ctx)
	c.stopping = stop
	for key := range keys {
		client := cluster.Dial(nil, g.urls()...)
		c.running.Go(func() {
			for stopping.Err() == nil {
				began := time.Now()
				calling, cancel := context.WithTimeout(ctx, callTimeout)
				_, err := benchv1perdure.Counter(client, fmt.Sprint("key-", key)).Add(calling, &benchv1.AddRequest{Amount: 1})
				cancel()
				c.answered(key, began, err)
				if err != nil {
					return
				}
				_ = sleep(stopping, pause) // stopping is looked at next
			}
		})
	}
	return c
}

func (c *callers) answered(key int, began time.Time, err error) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.mu.problem = errors.Join(c.mu.problem, fmt.Errorf("key-%d: a call failed after %s: %w", key, now.Sub(began), err))
		return
	}
	c.added[key].Add(1)
	c.mu.latency.Record(now.Sub(began))
	if c.mu.back[key].IsZero() {
		c.mu.back[key] = now
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
	c.mu.since, c.mu.back = time.Now(), [keys]time.Time{}
}

// recovered waits until each key was answered after broken, and returns how long each took.
func (c *callers) recovered(ctx context.Context) ([]time.Duration, error) {
	for {
		c.mu.Lock()
		waits, problem := make([]time.Duration, 0, keys), c.mu.problem
		for _, at := range c.mu.back {
			if !at.IsZero() {
				waits = append(waits, at.Sub(c.mu.since))
			}
		}
		c.mu.Unlock()
		if problem != nil || len(waits) == keys {
			return waits, problem
		}
		if err := sleep(ctx, 5*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// finish ends the calls and reads every counter back.
func (c *callers) finish(ctx context.Context, g *group) error {
	c.stopping()
	c.running.Wait()
	err := c.problem()
	client := cluster.Dial(nil, g.urls()...)
	for key := range keys {
		got, readErr := benchv1perdure.Counter(client, fmt.Sprint("key-", key)).Get(ctx, &benchv1.GetRequest{})
		if want := c.added[key].Load(); readErr != nil || got.GetValue() != want {
			err = errors.Join(err, readErr, fmt.Errorf("key-%d reads %d after %d acknowledged calls", key, got.GetValue(), want))
		}
	}
	return err
}

func (b *Bench) failover(ctx context.Context) error {
	const partitions = 64
	g, err := b.found(ctx, "failover", 3, 3, partitions)
	if err != nil {
		return err
	}
	c := g.call(ctx)
	var slowest, all []time.Duration
	began := time.Now()
	for kill := 0; kill < b.Kills && time.Since(began) < b.KillsFor && err == nil; kill++ {
		if err = sleep(ctx, time.Second); err != nil {
			break
		}
		n := g.nodes[kill%len(g.nodes)]
		c.broken()
		n.Kill()
		var waits []time.Duration
		if waits, err = c.recovered(ctx); err != nil {
			break
		}
		slowest, all = append(slowest, slices.Max(waits)), append(all, waits...)
		if err = n.Start(ctx); err == nil {
			err = g.settled(ctx, partitions)
		}
	}
	wrong := c.finish(ctx, g)
	if wrong != nil {
		b.Wrong = append(b.Wrong, "failover: "+wrong.Error())
	}
	if err = errors.Join(err, g.end()); err != nil && wrong == nil {
		return err
	}
	page := Page{Title: "A node of three is killed under load",
		Header: []string{"what", "times", "median ms", "p90 ms", "max ms", "above 3 s"},
		Notes: []string{
			fmt.Sprintf("%d callers with the Go stub, one for each of as many keys, which pause for %s between calls. From SIGKILL until a call is answered, of each key alone and of the slowest; two thirds of the keys are led by nodes that go on. The next node is killed when the cluster has come to rest.", keys, pause),
			"No call failed and each counter was what the acknowledged calls say, unless noted below.",
		}}
	for _, row := range []struct {
		name  string
		waits []time.Duration
	}{{"the slowest of all keys", slowest}, {"each key", all}} {
		if len(row.waits) == 0 {
			continue
		}
		slices.Sort(row.waits)
		late := 0
		for _, wait := range row.waits {
			if wait > 3*time.Second {
				late++
			}
		}
		at := func(share float64) string {
			return fmt.Sprintf("%.0f", row.waits[int(share*float64(len(row.waits)-1))].Seconds()*1e3)
		}
		page.Rows = append(page.Rows, []string{row.name, fmt.Sprint(len(row.waits)), at(.5), at(.9), at(1), fmt.Sprint(late)})
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
	c := g.call(ctx)
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
		Notes:  []string{"Callers as above. 48 of 192 copies and 16 of 64 leaders move; from the start of the process until all is even."}}
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
