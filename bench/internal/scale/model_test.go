package scale

import (
	"encoding/json"
	"math"
	"os"
	"strings"
	"testing"
)

func load(t *testing.T) Parameters {
	t.Helper()
	encoded, err := os.ReadFile("testdata/parameters.json")
	if err != nil {
		t.Fatal(err)
	}
	var p Parameters
	if err := json.Unmarshal(encoded, &p); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestMeetsWhatWasMeasured holds the model against every measured point, also those that it was
// not made from.
func TestMeetsWhatWasMeasured(t *testing.T) {
	p := load(t)
	for _, r := range p.Raft {
		c := p.Compute(Shape{Nodes: r.Nodes, Partitions: r.Groups, Active: 1})
		near := func(what string, computed, measured, within float64) {
			if math.Abs(computed-measured) > within*measured {
				t.Errorf("%d partitions on %d nodes: %s computed %g, measured %g", r.Groups, r.Nodes, what, computed, measured)
			}
		}
		near("bytes", c.NetworkBytes-c.Frames*HeaderBytesPerFrame, r.FrameBytes, 0.25)
		near("CPU", c.CPU, r.CPU, 0.75) // which the page says
	}
}

// TestUnits computes a cluster by hand.
func TestUnits(t *testing.T) {
	p := Parameters{
		Raft:               []Raft{{Nodes: 3, Groups: 30, FrameBytes: 200 * 40, CPU: 0.01 + 200*1e-5}, {Nodes: 3, Groups: 300, FrameBytes: 2000 * 40, CPU: 0.01 + 2000*1e-5}},
		PartitionHeapBytes: 1000, NodeHeapBytes: 5000, RowBytes: 100, StoredBytes: 150, RowHeapBytes: 2, OpenBytesPerSecond: 1e9,
		CommitBytesPerSecond: BacklogBytes / 2, SnapshotBytesPerSecond: 1e6,
	}
	c := p.Compute(Shape{Nodes: 6, Partitions: 60, Objects: 1e6, RowBytes: 200, Active: 1})
	want := Cost{
		Replicas: 30, Leads: 10, Messages: 10 * 2 * 5 * 2, Frames: 5 * 5 * 2, NetworkBytes: 200*40 + 50*HeaderBytesPerFrame, CPU: 0.01 + 200*1e-5,
		HeapBytes: 5000 + 30*1000, IndexBytes: 5e5 * 2, DiskBytes: 5e5 * 300, RetainBytes: RetainTotalBytes / 60,
		OpenSeconds: 0.15, ReplaySeconds: 2, CopySeconds: 5e5 * 200 / 4e6,
	}
	want.RetainBytes = float64(RetainTotalBytes) / 60
	for _, f := range []struct {
		name      string
		got, want float64
	}{
		{"replicas", c.Replicas, want.Replicas}, {"leads", c.Leads, want.Leads}, {"messages", c.Messages, want.Messages}, {"frames", c.Frames, want.Frames},
		{"network", c.NetworkBytes, want.NetworkBytes}, {"CPU", c.CPU, want.CPU}, {"heap", c.HeapBytes, want.HeapBytes}, {"index", c.IndexBytes, want.IndexBytes},
		{"disk", c.DiskBytes, want.DiskBytes}, {"retained", c.RetainBytes, want.RetainBytes}, {"open", c.OpenSeconds, want.OpenSeconds},
		{"replay", c.ReplaySeconds, want.ReplaySeconds}, {"copy", c.CopySeconds, want.CopySeconds},
	} {
		if math.Abs(f.got-f.want) > 1e-6*math.Abs(f.want) {
			t.Errorf("%s is %g, want %g", f.name, f.got, f.want)
		}
	}
}

// TestMonotone: more partitions or objects never cost less, and more nodes never more of what they share.
func TestMonotone(t *testing.T) {
	p := load(t)
	for _, nodes := range []int{3, 4, 5, 10, 20, 50} {
		for _, partitions := range []int{64, 256, 1024} {
			at := Shape{Nodes: nodes, Partitions: partitions, Objects: 1e8, RowBytes: 132, Active: 1}
			c := p.Compute(at)
			more := at
			more.Partitions *= 2
			if m := p.Compute(more); m.Messages < c.Messages || m.NetworkBytes < c.NetworkBytes || m.CPU < c.CPU || m.HeapBytes < c.HeapBytes || m.RetainBytes > c.RetainBytes {
				t.Errorf("%+v: with twice the partitions %+v after %+v", at, m, c)
			}
			more = at
			more.Objects *= 2
			if m := p.Compute(more); m.DiskBytes <= c.DiskBytes || m.OpenSeconds <= c.OpenSeconds || m.CopySeconds < c.CopySeconds || m.IndexBytes < c.IndexBytes {
				t.Errorf("%+v: with twice the objects %+v after %+v", at, m, c)
			}
			more = at
			more.Nodes++
			if m := p.Compute(more); m.Messages >= c.Messages || m.HeapBytes >= c.HeapBytes || m.DiskBytes >= c.DiskBytes || m.OpenSeconds >= c.OpenSeconds {
				t.Errorf("%+v: with a node more %+v after %+v", at, m, c)
			}
			few := at
			few.Active = 0.05
			if m := p.Compute(few); m.CPU > c.CPU || m.NetworkBytes >= c.NetworkBytes {
				t.Errorf("%+v: with few active partitions %+v, with all %+v", at, m, c)
			}
		}
	}
}

// TestPage sees that docs/scale.md has the tables of the parameters that are kept.
func TestPage(t *testing.T) {
	page, err := os.ReadFile("../../../docs/scale.md")
	if err != nil {
		t.Fatal(err)
	}
	want, err := Replace(string(page), load(t).Tables())
	if err != nil {
		t.Fatal(err)
	}
	if want != string(page) {
		t.Error("docs/scale.md is not what the program makes of the parameters: run go run ./bench/cmd/scale -measure=false -parameters bench/internal/scale/testdata/parameters.json -markdown docs/scale.md")
	}
	if _, err := Replace(strings.ReplaceAll(string(page), begin, ""), ""); err == nil {
		t.Error("a page without marks was replaced")
	}
}
