package peer

import "sync"

// Leaders is what a node believes about who leads each partition: from its own replicas, from
// hints of other nodes, from gossip. It is safe for concurrent use.
type Leaders struct {
	of []leader // of partition i+1

	mu struct {
		sync.Mutex
		onChange []func(partition uint32, node, term uint64)
		any      chan struct{} // closed and replaced at each change; nil as long as nobody waits
	}
}

type leader struct {
	sync.Mutex
	node, term uint64
	changed    chan struct{} // closed at the next change; nil as long as nobody waits
}

// NewLeaders knows of no leader yet.
func NewLeaders(partitions uint32) *Leaders { return &Leaders{of: make([]leader, partitions)} }

func (l *Leaders) at(partition uint32) *leader {
	if partition < 1 || partition > uint32(len(l.of)) {
		return nil
	}
	return &l.of[partition-1]
}

// Leader is who leads a partition, and in which term. node is 0 if that is not known.
func (l *Leaders) Leader(partition uint32) (node, term uint64) {
	if p := l.at(partition); p != nil {
		p.Lock()
		defer p.Unlock()
		return p.node, p.term
	}
	return 0, 0
}

// Learned takes anybody's word that a node leads a partition, be it late: an older term's is
// ignored. Node 0 is ignored too: that somebody sees no leader says nothing about whether others
// have one, and who has forgotten a leader may not hear of it again before the next term.
func (l *Leaders) Learned(partition uint32, node, term uint64) {
	l.change(partition, func(p *leader) bool {
		if node == 0 || term < p.term || term == p.term && p.node != 0 {
			return false
		}
		p.node, p.term = node, term
		return true
	})
}

// Lost says that whoever led a partition in a term up to this one does not lead it any more, as far
// as those know who will hear of the next leader: the leader itself, or a replica of this node.
func (l *Leaders) Lost(partition uint32, term uint64) {
	l.change(partition, func(p *leader) bool {
		if p.node == 0 || p.term > term {
			return false
		}
		p.node = 0
		return true
	})
}

func (l *Leaders) change(partition uint32, change func(p *leader) bool) {
	p := l.at(partition)
	if p == nil {
		return
	}
	p.Lock()
	if !change(p) {
		p.Unlock()
		return
	}
	node, term := p.node, p.term
	changed := p.changed
	p.changed = nil
	p.Unlock()
	if changed != nil {
		close(changed)
	}
	l.mu.Lock()
	if l.mu.any != nil {
		close(l.mu.any)
		l.mu.any = nil
	}
	told := l.mu.onChange
	l.mu.Unlock()
	for _, tell := range told {
		tell(partition, node, term)
	}
}

// Changed returns a channel that is closed when something else is believed about a partition than
// now.
func (l *Leaders) Changed(partition uint32) <-chan struct{} {
	p := l.at(partition)
	if p == nil {
		return nil
	}
	p.Lock()
	defer p.Unlock()
	if p.changed == nil {
		p.changed = make(chan struct{})
	}
	return p.changed
}

// AnyChanged returns a channel that is closed when something else is believed about any partition.
func (l *Leaders) AnyChanged() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.any == nil {
		l.mu.any = make(chan struct{})
	}
	return l.mu.any
}

// OnChange makes told be called after each change, on the goroutine of whoever brought the news. It
// must not block. It may be told of two changes in the wrong order; the term says which is newer.
// Node 0 is news for this node alone.
func (l *Leaders) OnChange(told func(partition uint32, node, term uint64)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.onChange = append(l.mu.onChange[:len(l.mu.onChange):len(l.mu.onChange)], told)
}
