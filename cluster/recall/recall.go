// Package recall notices a node whose data directory is older than what the node has acknowledged.
//
// Raft counts on a voter that forgets nothing it has said. One that starts on an earlier copy of its
// directory (a snapshot of the disk, a backup) has forgotten votes and entries and does not know it; others
// do. All that a node acknowledges is in a frame of its node log first, and frames are numbered without a
// gap over the life of the log. So each process says, with every call and batch of frames, how many frames
// its log had when it began and how many it has now, and the others keep the highest number in a Book. A
// later process that began with less than an earlier one had is refused before anything it says counts.
//
// A process is the earlier one if it began with fewer frames than the later one, for each writes one once
// nobody has refused it. So of two processes on copies of one directory the first to hear of the other's frames is
// refused, whichever it is.
//
// What a Book knows is lost with its process. Therefore the leader of group 0 notes in a node's row what its
// log had (registry.Recall): of each process once, when the node is gone, and from time to time. Note takes it
// from there.
package recall

import (
	"fmt"
	"sync"

	"github.com/perdure/perdure/cluster/transport"
)

// Stale is the error for a node whose data directory is older than what it has acknowledged, or one that
// two processes use copies of.
type Stale struct {
	Node uint64
	// Opened is how many frames its log had when the process that is refused began, and Durable how many
	// another one had.
	Opened, Durable uint64
}

// Error implements error.
func (s *Stale) Error() string {
	return fmt.Sprintf("the data directory of node %016x is older than what this node has acknowledged: its log had %d frames when it was started, and the cluster has heard of %d: "+
		"an earlier copy or snapshot of it was restored, or a copy is in use by another process; start it with an empty directory, whereupon it joins as another node and what it needs is copied, and then: perdure cluster remove %016x --force. "+
		"If too few others are left for that, restore all nodes from copies of one time",
		s.Node, s.Opened, s.Durable, s.Node)
}

// Book is what one node remembers of the logs of others. Its zero value is ready, and its methods are safe
// for concurrent use.
type Book struct {
	mu   sync.Mutex
	said map[uint64]transport.LogClaim
}

// Check takes what a node says of its log; the error is a *Stale, and then nothing is kept of it. It
// implements transport.Config.CheckLog.
func (b *Book) Check(node uint64, said transport.LogClaim) error {
	if said.Process == 0 {
		return nil // its version does not say
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	before, ok := b.said[node]
	switch {
	case ok && before.Process == said.Process:
		said.Durable = max(said.Durable, before.Durable)
	case ok && said.Opened < before.Durable:
		return &Stale{Node: node, Opened: said.Opened, Durable: before.Durable}
	}
	b.keepLocked(node, said)
	return nil
}

// Note takes what others knew of a node.
func (b *Book) Note(node uint64, known transport.LogClaim) {
	if known.Process == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.keepLocked(node, Newest(b.said[node], known))
}

// Newest is what is to be remembered of two claims of one node, which one without a process is not. Of one
// process the most counts, and of two the later one, unless it began with less than the earlier one had: that
// one is stale, whoever believed it.
func Newest(a, b transport.LogClaim) transport.LogClaim {
	switch {
	case a.Process == 0:
		return b
	case b.Process == 0:
		return a
	case a.Process == b.Process:
		return transport.LogClaim{Process: a.Process, Opened: max(a.Opened, b.Opened), Durable: max(a.Durable, b.Durable)}
	case b.Opened >= a.Durable:
		return b
	case a.Opened >= b.Durable:
		return a
	case a.Opened != b.Opened && (a.Opened < b.Opened) || a.Opened == b.Opened && a.Durable >= b.Durable:
		return a
	}
	return b
}

func (b *Book) keepLocked(node uint64, said transport.LogClaim) {
	if b.said == nil {
		b.said = map[uint64]transport.LogClaim{}
	}
	b.said[node] = said
}

// Of is what is known of a node; false: nothing.
func (b *Book) Of(node uint64) (transport.LogClaim, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	said, ok := b.said[node]
	return said, ok
}
