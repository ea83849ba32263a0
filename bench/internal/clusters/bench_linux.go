package clusters

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"time"

	"github.com/perdure/perdure/bench/internal/floor"
	"github.com/perdure/perdure/bench/internal/histogram"
	"github.com/perdure/perdure/bench/internal/load"
	"github.com/perdure/perdure/bench/internal/system"
)

// Bench is one run. All fields must be set but Pages.
type Bench struct {
	Perdure system.Perdure
	HTTP    system.HTTP
	// Dir is on the disk to be measured.
	Dir string
	// Window is how long each window of calls takes, Kills how many nodes are killed and as many stopped, KillsFor for how long at most
	// each, and StateBytes how much a new node is sent.
	Window     time.Duration
	Kills      int
	KillsFor   time.Duration
	StateBytes int
	Progress   io.Writer
	// Only chooses among the parts of Do by name; nil: all.
	Only *regexp.Regexp

	// Pages are the tables, in order, and Wrong what must not be.
	Pages []Page
	Wrong []string
}

// Page is a table with what has to be said about it.
type Page struct {
	Title  string
	Header []string
	Rows   [][]string
	Notes  []string
}

// Do measures everything. What was measured before an error is in Pages.
func (b *Bench) Do(ctx context.Context) error {
	for _, part := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"floors", b.floors}, {"calls", b.calls}, {"failover", b.failover}, {"standstill", b.standstill}, {"rebalance", b.rebalance}, {"idle", b.idle}, {"copies", b.copies},
	} {
		if b.Only != nil && !b.Only.MatchString(part.name) {
			continue
		}
		began := time.Now()
		fmt.Fprintf(b.Progress, "%s …\n", part.name)
		if err := part.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
		fmt.Fprintf(b.Progress, "%s: %s\n", part.name, time.Since(began).Round(time.Second))
	}
	return nil
}

func (b *Bench) floors(ctx context.Context) error {
	appends, latency, err := floor.Append(ctx, b.Dir, b.Window)
	if err != nil {
		return err
	}
	page := Page{Title: "Floor: what this machine can do at all", Header: []string{"what", "per second", "p50 ms", "p99 ms"}}
	page.Rows = append(page.Rows, []string{"256-byte append + fdatasync, one after the other", number(appends), ms(latency.Quantile(.5)), ms(latency.Quantile(.99))})
	server, err := b.HTTP.Start(ctx, b.Dir)
	if err != nil {
		return err
	}
	defer server.Stop()
	for _, callers := range []int{1, 64} {
		generator, err := load.Start(load.Plan{Addr: server.Addr, Calls: load.Single(server.Request(system.Get, "x")), Callers: callers})
		if err != nil {
			return err
		}
		generator.Record(true)
		began := time.Now()
		err = sleep(ctx, b.Window)
		result := generator.Stop()
		if err != nil {
			return err
		}
		page.Rows = append(page.Rows, []string{fmt.Sprintf("empty HTTP call over loopback, %d callers", callers),
			number(float64(result.Completed) / time.Since(began).Seconds()), ms(result.Latency.Quantile(.5)), ms(result.Latency.Quantile(.99))})
	}
	b.Pages = append(b.Pages, page)
	return nil
}

// counters is how many objects are called.
const counters = 10_000

func (b *Bench) calls(ctx context.Context) error {
	page := Page{Title: "One node against three, on the same cores",
		Header: []string{"call", "callers", "nodes", "calls/s", "p50 ms", "p99 ms", "CPU µs/call", "written B/call", "flushes/call", "loopback B/call", "packets/call", "other cores"},
		Notes: []string{
			"Callers are spread evenly over the nodes, so of three nodes two thirds of the calls are passed on once. CPU and bytes written are of all nodes together.",
			"flushes/call: how often the disk's write cache was flushed for each call, by all nodes and whatever else runs; loopback has the callers' own bytes and packets too, two of them for each call.",
			"Rounds: a call to a node that does not lead is passed on once. An Add then waits for one round from the leader to the nearer of its followers, which others share, with a flush on both at the same time. A Get waits for one round without a flush, in which the leader learns that it still leads; those that wait share it.",
		}}
	for _, nodes := range []int{1, 3} {
		g, err := b.found(ctx, "calls", nodes, nodes, 64)
		if err != nil {
			return err
		}
		for _, call := range []string{"Add", "Get"} {
			for _, callers := range []int{1, 63} {
				row, err := b.window(ctx, g, call, callers)
				if err != nil {
					return errors.Join(err, g.end())
				}
				page.Rows = append(page.Rows, append([]string{call, fmt.Sprint(callers), fmt.Sprint(nodes)}, row...))
			}
		}
		if err := g.end(); err != nil {
			return err
		}
	}
	b.Pages = append(b.Pages, page)
	return nil
}

func (b *Bench) window(ctx context.Context, g *group, call string, callers int) ([]string, error) {
	random := rand.New(rand.NewPCG(1, uint64(callers)))
	var generators []*load.Generator
	stop := func() (latency histogram.Histogram, failed uint64) {
		for _, generator := range generators {
			result := generator.Stop()
			latency.Merge(result.Latency)
			failed += result.Failed
		}
		return latency, failed
	}
	for i, n := range g.nodes {
		own := callers / len(g.nodes)
		if own == 0 && i > 0 { // a single caller has one node
			break
		}
		addr, err := netip.ParseAddrPort(n.Addr)
		if err != nil {
			return nil, err
		}
		requests := make([][]byte, 256)
		for r := range requests {
			body := fmt.Sprintf(`{"name":"c%d","amount":"1"}`, random.IntN(counters))
			if call == "Get" {
				body = fmt.Sprintf(`{"name":"c%d"}`, random.IntN(counters))
			}
			requests[r] = load.Post(n.Addr, "/bench.v1.CounterService/"+call, body)
		}
		generator, err := load.Start(load.Plan{Addr: addr, Calls: load.Single(requests...), Callers: max(own, 1)})
		if err != nil {
			stop()
			return nil, err
		}
		generators = append(generators, generator)
	}
	completed := func() (sum uint64) {
		for _, generator := range generators {
			sum += generator.Completed()
		}
		return sum
	}
	record := func(on bool) {
		for _, generator := range generators {
			generator.Record(on)
		}
	}
	err := sleep(ctx, b.Window/4)
	before, useErr := g.use()
	first := completed()
	record(true)
	err = errors.Join(err, useErr, sleep(ctx, b.Window))
	record(false)
	after, useErr := g.use()
	calls := float64(completed() - first)
	latency, failed := stop()
	if err = errors.Join(err, useErr); err != nil {
		return nil, err
	}
	if failed > 0 || calls == 0 {
		b.Wrong = append(b.Wrong, fmt.Sprintf("%d calls of %s failed while nothing was broken, and %.0f did not", failed, call, calls))
		calls = max(calls, 1)
	}
	elapsed := after.at.Sub(before.at).Seconds()
	cpu := (after.nodes.CPU - before.nodes.CPU).Seconds()
	flushes := "–"
	if !before.noDevice && !after.noDevice {
		flushes = number(float64(after.device.Flushes-before.device.Flushes) / calls)
	}
	return []string{number(calls / elapsed), ms(latency.Quantile(.5)), ms(latency.Quantile(.99)), number(cpu * 1e6 / calls),
		number(float64(after.nodes.WrittenBytes-before.nodes.WrittenBytes) / calls), flushes, number(float64(after.loopback-before.loopback) / calls), number(float64(after.packets-before.packets) / calls),
		number(others(before, after))}, nil
}

// others is how many cores everything but the nodes took, the callers included.
func others(before, after use) float64 {
	return max(0, (after.host.Busy-before.host.Busy-(after.nodes.CPU-before.nodes.CPU)).Seconds()/after.at.Sub(before.at).Seconds())
}

// idle measures what partitions cost that nobody calls.
func (b *Bench) idle(ctx context.Context) error {
	page := Page{Title: "Three nodes that nobody calls", Header: []string{"partitions", "CPU of all nodes, % of a core", "written B/s", "loopback B/s", "flushes/s", "RSS MiB, all nodes", "other cores"},
		Notes: []string{"Ten seconds after the cluster has come to rest, until which groups that have nothing to do fall asleep."}}
	for _, partitions := range []int{64, 256} {
		g, err := b.found(ctx, "idle", 3, 3, partitions)
		if err != nil {
			return err
		}
		err = sleep(ctx, 10*time.Second)
		before, useErr := g.use()
		err = errors.Join(err, useErr, sleep(ctx, 2*b.Window))
		after, useErr := g.use()
		if err = errors.Join(err, useErr, g.end()); err != nil {
			return err
		}
		elapsed := after.at.Sub(before.at).Seconds()
		per := func(before, after int64) string { return number(float64(after-before) / elapsed) }
		flushes := "–"
		if !before.noDevice && !after.noDevice {
			flushes = per(before.device.Flushes, after.device.Flushes)
		}
		page.Rows = append(page.Rows, []string{fmt.Sprint(partitions), number(100 * (after.nodes.CPU - before.nodes.CPU).Seconds() / elapsed),
			per(before.nodes.WrittenBytes, after.nodes.WrittenBytes), per(before.loopback, after.loopback), flushes,
			number(float64(after.nodes.ResidentBytes) / (1 << 20)), number(others(before, after))})
	}
	b.Pages = append(b.Pages, page)
	return nil
}
