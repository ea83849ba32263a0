// Package scale computes what a cluster of some size costs and how long it takes to recover, from
// parameters that bench/cmd/scale measures. It is arithmetic, without clock or disk.
package scale

import "math"

// Parameters were measured on one machine. CPU is in seconds of one core.
type Parameters struct {
	Gossip []Gossip `json:"gossip"`
	Raft   []Raft   `json:"raft"`
	Plans  []Plan   `json:"plans"`

	// PartitionHeapBytes is the heap of a partition that this node leads, replica, owner and all.
	PartitionHeapBytes float64 `json:"partition_heap_bytes"`
	// NodeHeapBytes is the heap of a node without any.
	NodeHeapBytes float64 `json:"node_heap_bytes"`
	// RowBytes are key and value of the row that was stored; StoredBytes is what the store's files have for it.
	RowBytes    float64 `json:"row_bytes"`
	StoredBytes float64 `json:"stored_bytes"`
	// RowHeapBytes is the heap of an open store for each row.
	RowHeapBytes float64 `json:"row_heap_bytes"`
	// LogBytes is what one record with one row takes in the log.
	LogBytes float64 `json:"log_bytes"`
	// OpenBytesPerSecond is how fast a store is read through and checked when it is opened, from
	// the page cache; CommitBytesPerSecond how fast rows get into it, SnapshotBytesPerSecond how
	// fast they get from one store into another.
	OpenBytesPerSecond     float64 `json:"open_bytes_per_second"`
	CommitBytesPerSecond   float64 `json:"commit_bytes_per_second"`
	SnapshotBytesPerSecond float64 `json:"snapshot_bytes_per_second"`
}

// Gossip is what each node of an idle cluster sends in a second, measured with Nodes of them.
type Gossip struct {
	Nodes           int     `json:"nodes"`
	Partitions      int     `json:"partitions"`
	Packets         float64 `json:"packets"`
	PacketBytes     float64 `json:"packet_bytes"`
	StreamBytes     float64 `json:"stream_bytes"`
	CPU             float64 `json:"cpu"`
	DeadSeconds     float64 `json:"dead_seconds"`
	AgreedInSeconds float64 `json:"agreed_in_seconds"`
}

// Raft is what each node does in a second for groups in which nothing happens.
type Raft struct {
	Nodes      int     `json:"nodes"`
	Groups     int     `json:"groups"`
	Frames     float64 `json:"frames"`
	FrameBytes float64 `json:"frame_bytes"`
	CPU        float64 `json:"cpu"`
	// HeapBytes of each replica.
	HeapBytes float64 `json:"heap_bytes"`
	// ElectedSeconds is when all partitions that a node led had a leader again after it had died.
	ElectedSeconds float64 `json:"elected_seconds"`
}

// Plan is what placement does with a cluster.
type Plan struct {
	Nodes      int `json:"nodes"`
	Partitions int `json:"partitions"`
	// Milliseconds is what one plan takes.
	Milliseconds float64 `json:"milliseconds"`
	// Joined and Lost are the copies made when one more node comes, or one goes.
	Joined int `json:"joined"`
	Lost   int `json:"lost"`
	// Uneven is by how many copies and leaders the fullest node has more than the emptiest.
	UnevenCopies  int `json:"uneven_copies"`
	UnevenLeaders int `json:"uneven_leaders"`
}

// What the code says: replica.Config, balance.Config.
const (
	Replicas            = 3
	HeartbeatsPerSecond = 5
	RetainTotalBytes    = 64 << 20
	RetainBytes         = 4 << 20
	BacklogBytes        = 64 << 20
	CopiesAtOnce        = 4
	CopyBytesPerSecond  = 64 << 20
	SnapshotsPerNode    = 2
	HeaderBytesPerFrame = 100 // TCP, IP, HTTP/2
)

// Shape is a cluster.
type Shape struct {
	Nodes, Partitions int
	Objects           float64
	// RowBytes are key and value of an object's row.
	RowBytes float64
	// Active is the share of partitions in which something happens, from 0 to 1, if those in which
	// nothing does exchange no heartbeats; 1 is what it costs when all do.
	Active float64
}

// Cost is of one node of a shape, per second where it is a rate.
type Cost struct {
	Replicas, Leads float64
	// Messages are Raft's, heartbeats and their answers.
	Messages, Frames, NetworkBytes, CPU float64
	HeapBytes, IndexBytes               float64
	DiskBytes                           float64
	// RetainBytes of a partition's log are kept for a member that was away.
	RetainBytes float64
	// OpenSeconds is the check of the store, ReplaySeconds the log's rest, at most.
	OpenSeconds, ReplaySeconds float64
	// CopySeconds is how long it takes to make the copies of a lost node anew.
	CopySeconds float64
}

// copies of each partition.
func (s Shape) copies() float64 { return math.Min(Replicas, float64(s.Nodes)) }

// Compute says what a shape costs. Raft's rates are a line through the two measured points with
// the smallest and the largest number of groups on three nodes.
func (p Parameters) Compute(s Shape) Cost {
	n, partitions := float64(s.Nodes), float64(s.Partitions)
	c := Cost{Replicas: partitions * s.copies() / n, Leads: partitions / n}
	active := partitions * s.Active
	c.Messages = active / n * (s.copies() - 1) * HeartbeatsPerSecond * 2
	// A frame goes to each node that this one shares a partition with, one for heartbeats and one for answers.
	pairs := math.Min(n-1, active/n*(s.copies()-1))
	c.Frames = pairs * HeartbeatsPerSecond * 2
	least, most := p.ends()
	perMessage := slope(least.messages(), most.messages(), least.FrameBytes, most.FrameBytes)
	c.NetworkBytes = c.Messages*perMessage + c.Frames*HeaderBytesPerFrame
	perMessageCPU := slope(least.messages(), most.messages(), least.CPU, most.CPU)
	c.CPU = math.Max(0, least.CPU-least.messages()*perMessageCPU) + c.Messages*perMessageCPU
	c.HeapBytes = p.NodeHeapBytes + c.Replicas*p.PartitionHeapBytes
	rows := s.Objects * s.copies() / n
	c.IndexBytes = rows * p.RowHeapBytes
	c.DiskBytes = rows * s.RowBytes * p.StoredBytes / p.RowBytes
	c.RetainBytes = math.Min(RetainBytes, RetainTotalBytes/partitions)
	c.OpenSeconds = c.DiskBytes / p.OpenBytesPerSecond
	c.ReplaySeconds = BacklogBytes / p.CommitBytesPerSecond
	if s.Nodes > Replicas {
		streams := math.Min(CopiesAtOnce, (n-1)*SnapshotsPerNode)
		one := math.Min(p.SnapshotBytesPerSecond, CopyBytesPerSecond)
		c.CopySeconds = rows * s.RowBytes / (streams * one)
	}
	return c
}

func (r Raft) messages() float64 {
	return float64(r.Groups) / float64(r.Nodes) * (Replicas - 1) * HeartbeatsPerSecond * 2
}

// ends are the measured points on three nodes with the fewest and the most groups.
func (p Parameters) ends() (least, most Raft) {
	for _, r := range p.Raft {
		if r.Nodes != Replicas {
			continue
		}
		if least.Groups == 0 || r.Groups < least.Groups {
			least = r
		}
		if r.Groups > most.Groups {
			most = r
		}
	}
	return least, most
}

func slope(x1, x2, y1, y2 float64) float64 {
	if x2 == x1 {
		return 0
	}
	return (y2 - y1) / (x2 - x1)
}
