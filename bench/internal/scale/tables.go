package scale

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

const (
	begin = "<!-- tables: begin -->\n"
	end   = "<!-- tables: end -->\n"
)

// Replace puts tables between the two marks of a page.
func Replace(page, tables string) (string, error) {
	before, rest, ok := strings.Cut(page, begin)
	_, after, ended := strings.Cut(rest, end)
	if !ok || !ended {
		return "", errors.New("the page lacks the marks " + strings.TrimSpace(begin) + " and " + strings.TrimSpace(end))
	}
	return before + begin + tables + end + after, nil
}

// Tables are the tables of docs/scale.md.
func (p Parameters) Tables() string {
	var out strings.Builder
	p.measured(&out)
	p.idle(&out)
	p.holds(&out)
	p.recovers(&out)
	return out.String()
}

func table(out *strings.Builder, title string, header ...string) func(cells ...string) {
	fmt.Fprintf(out, "\n### %s\n\n| %s |\n|%s\n", title, strings.Join(header, " | "), strings.Repeat(" --: |", len(header)))
	return func(cells ...string) { fmt.Fprintf(out, "| %s |\n", strings.Join(cells, " | ")) }
}

func (p Parameters) measured(out *strings.Builder) {
	add := table(out, "Gossip, simulated, for each node and second",
		"nodes", "partitions", "packets", "B in packets", "B in exchanges", "CPU ms", "all know all after s", "all know a death after s")
	for _, g := range p.Gossip {
		add(strconv.Itoa(g.Nodes), strconv.Itoa(g.Partitions), number(g.Packets), number(g.PacketBytes), number(g.StreamBytes), number(g.CPU*1000), number(g.AgreedInSeconds), number(g.DeadSeconds))
	}
	add = table(out, "Raft groups in which nothing happens, simulated, for each node and second",
		"nodes", "partitions", "frames", "B in frames", "computed", "CPU ms", "computed", "heap KiB a replica", "a dead node's leaders replaced after s")
	for _, r := range p.Raft {
		c := p.Compute(Shape{Nodes: r.Nodes, Partitions: r.Groups, Active: 1})
		add(strconv.Itoa(r.Nodes), strconv.Itoa(r.Groups), number(r.Frames), number(r.FrameBytes), number(c.NetworkBytes-c.Frames*HeaderBytesPerFrame), number(r.CPU*1000), number(c.CPU*1000), number(r.HeapBytes/1024), number(r.ElectedSeconds))
	}
	add = table(out, "Placement, simulated",
		"nodes", "partitions", "a plan, ms at most", "copies made when a node joins", "and when one is lost", "most copies minus fewest", "most leaders minus fewest")
	for _, w := range p.Plans {
		add(strconv.Itoa(w.Nodes), strconv.Itoa(w.Partitions), number(w.Milliseconds), strconv.Itoa(w.Joined), strconv.Itoa(w.Lost), strconv.Itoa(w.UnevenCopies), strconv.Itoa(w.UnevenLeaders))
	}
	add = table(out, "A partition and a row, measured", "what", "measured")
	add("heap of a node, without partitions", bytes(p.NodeHeapBytes))
	add("heap of a partition that the node leads", bytes(p.PartitionHeapBytes))
	add("key and value of the row", bytes(p.RowBytes))
	add("the row in the store's files", bytes(p.StoredBytes))
	add("the row's share of the store's heap", bytes(p.RowHeapBytes))
	add("a record with the row alone, in the log", bytes(p.LogBytes))
	add("rows written to the store, a second", bytes(p.CommitBytesPerSecond))
	add("a store read through when it is opened, a second, from the page cache", bytes(p.OpenBytesPerSecond))
	add("rows copied from one store to another, a second", bytes(p.SnapshotBytesPerSecond))
}

// shapes of the computed tables.
var shapes = [][2]int{{3, 64}, {3, 256}, {3, 1024}, {10, 256}, {10, 1024}, {50, 256}, {50, 1024}}

func (p Parameters) idle(out *strings.Builder) {
	add := table(out, "Heartbeats, computed, for each node and second; the last two columns if 5 % of partitions exchange them",
		"nodes", "partitions", "replicas", "messages", "frames", "network", "CPU ms", "network", "CPU ms")
	for _, s := range shapes {
		all := p.Compute(Shape{Nodes: s[0], Partitions: s[1], Active: 1})
		few := p.Compute(Shape{Nodes: s[0], Partitions: s[1], Active: 0.05})
		add(strconv.Itoa(s[0]), strconv.Itoa(s[1]), number(all.Replicas), number(all.Messages), number(all.Frames), bytes(all.NetworkBytes), number(all.CPU*1000), bytes(few.NetworkBytes), number(few.CPU*1000))
	}
}

// billion objects.
func (p Parameters) billion(s [2]int) Cost {
	return p.Compute(Shape{Nodes: s[0], Partitions: s[1], Objects: 1e9, RowBytes: p.RowBytes, Active: 1})
}

func (p Parameters) holds(out *strings.Builder) {
	add := table(out, "A billion objects, computed, for each node", "nodes", "partitions", "heap of node and partitions", "heap of the store's indexes", "disk", "a partition's rows")
	for _, s := range shapes {
		c := p.billion(s)
		add(strconv.Itoa(s[0]), strconv.Itoa(s[1]), bytes(c.HeapBytes), bytes(c.IndexBytes), bytes(c.DiskBytes), bytes(1e9*p.RowBytes/float64(s[1])))
	}
}

func (p Parameters) recovers(out *strings.Builder) {
	add := table(out, "Recovery with a billion objects, computed",
		"nodes", "partitions", "store opened in", "log replayed in, at most", "log kept for a member that was away", "copies of a lost node made in")
	for _, s := range shapes {
		c := p.billion(s)
		copied := "–"
		if c.CopySeconds > 0 {
			copied = seconds(c.CopySeconds)
		}
		add(strconv.Itoa(s[0]), strconv.Itoa(s[1]), seconds(c.OpenSeconds), seconds(c.ReplaySeconds), bytes(c.RetainBytes), copied)
	}
}

// number has three digits that count.
func number(x float64) string {
	if x == 0 {
		return "0"
	}
	digits := max(0, 2-int(math.Floor(math.Log10(math.Abs(x)))))
	return strconv.FormatFloat(x, 'f', min(digits, 4), 64)
}

func bytes(x float64) string {
	for _, unit := range []struct {
		name string
		size float64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if x >= unit.size {
			return number(x/unit.size) + " " + unit.name
		}
	}
	return number(x) + " B"
}

func seconds(x float64) string {
	switch {
	case x >= 3600:
		return number(x/3600) + " h"
	case x >= 120:
		return number(x/60) + " min"
	}
	return number(x) + " s"
}
