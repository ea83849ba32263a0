package membership

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/memberlist"
	"google.golang.org/protobuf/proto"

	membershipv1 "github.com/perdure/perdure/internal/membership/v1"
)

// Bounds of facts.
const (
	// gossipedBytes is the largest fact that fits a packet beside the library's own messages.
	gossipedBytes = 1000
	// MaxFactBytes is the largest value of a fact, and MaxKeyBytes its largest key.
	MaxFactBytes = 64 << 10
	MaxKeyBytes  = 128
	// allFactsBytes bounds what is kept: more than so many bytes in one exchange the library
	// refuses.
	allFactsBytes = 8 << 20
)

// leavingKey is the key of a fact of our own: the generation, eight bytes, of a process that has
// left. The library tells those who left and those who died alike.
const leavingKey = "\x00leaving"

// leftLocked reports whether a process said that it leaves.
func (m *Membership) leftLocked(node, generation uint64) bool {
	fact := m.mu.facts.kept[factKey{node, leavingKey}]
	return fact != nil && len(fact.Value) == 8 && binary.BigEndian.Uint64(fact.Value) >= generation
}

type factKey struct {
	origin uint64
	key    string
}

// facts are the newest known ones. Its owner locks.
type facts struct {
	kept  map[factKey]*membershipv1.Fact
	bytes int
	// news are to be told to OnShared; large are this node's own that gossip doesn't carry.
	news  map[factKey]bool
	large map[factKey]bool
}

func newFacts() facts {
	return facts{kept: map[factKey]*membershipv1.Fact{}, news: map[factKey]bool{}, large: map[factKey]bool{}}
}

func size(fact *membershipv1.Fact) int { return len(fact.Key) + len(fact.Value) + 32 }

// take keeps a fact if it is news.
func (f *facts) take(fact *membershipv1.Fact) bool {
	key := factKey{fact.Origin, fact.Key}
	before := f.kept[key]
	if before != nil && before.Version >= fact.Version {
		return false
	}
	grown := f.bytes + size(fact)
	if before != nil {
		grown -= size(before)
	}
	if grown > allFactsBytes {
		return false
	}
	f.kept[key], f.bytes = fact, grown
	return true
}

func (f *facts) drop(key factKey) {
	if fact := f.kept[key]; fact != nil {
		f.bytes -= size(fact)
		delete(f.kept, key)
	}
	delete(f.large, key)
}

// encodeFacts is how they travel.
func encodeFacts(list []*membershipv1.Fact) []byte {
	encoded, err := proto.MarshalOptions{}.MarshalAppend([]byte{formatVersion}, &membershipv1.Facts{Facts: list})
	if err != nil {
		// Keys are valid UTF-8: Share and decodeFacts see to it.
		return nil
	}
	return encoded
}

func decodeFacts(encoded []byte) []*membershipv1.Fact {
	var message membershipv1.Facts
	if len(encoded) == 0 || encoded[0] != formatVersion || proto.Unmarshal(encoded[1:], &message) != nil {
		return nil
	}
	return message.Facts
}

// Share makes value known to all nodes under key, in place of what this node shared under it
// before. An empty value takes it back. It does not block, and copies value.
func (m *Membership) Share(key string, value []byte) error {
	if key == "" || len(key) > MaxKeyBytes || !utf8.ValidString(key) || strings.HasPrefix(key, "\x00") {
		return fmt.Errorf("membership: share: key %q must be 1 to %d bytes of UTF-8 and not begin with a zero byte", key, MaxKeyBytes)
	}
	if len(value) > MaxFactBytes {
		return fmt.Errorf("membership: share %q: the value is %d bytes; it may be at most %d", key, len(value), MaxFactBytes)
	}
	return m.share(key, value)
}

func (m *Membership) share(key string, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	fact := &membershipv1.Fact{Origin: m.config.NodeID, Key: key, Version: uint64(time.Now().UnixNano()), Value: append([]byte(nil), value...)}
	if before := m.mu.facts.kept[factKey{fact.Origin, key}]; before != nil {
		fact.Version = max(fact.Version, before.Version+1)
	}
	if !m.mu.facts.take(fact) {
		return fmt.Errorf("membership: share %q: all facts together would be more than %d bytes", key, allFactsBytes)
	}
	m.spreadLocked(fact, true)
	return nil
}

// spreadLocked passes a fact on. What is too large to be gossiped goes from its origin directly to
// everybody.
func (m *Membership) spreadLocked(fact *membershipv1.Fact, own bool) {
	if size(fact) > gossipedBytes {
		if own {
			m.mu.facts.large[factKey{fact.Origin, fact.Key}] = true
			signal(m.work)
		}
		return
	}
	m.queue.QueueBroadcast(&broadcast{name: nodeName(fact.Origin) + "/" + fact.Key, message: encodeFacts([]*membershipv1.Fact{fact})})
}

// received takes facts of others over, and passes on what is news if it came by gossip.
func (m *Membership) received(list []*membershipv1.Fact, gossiped bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	horizon := uint64(max(0, time.Now().Add(-m.config.Timing.Forget).UnixNano()))
	told := false
	for _, fact := range list {
		if fact.Origin == 0 || fact.Key == "" || len(fact.Key) > MaxKeyBytes || len(fact.Value) > MaxFactBytes {
			continue
		}
		key := factKey{fact.Origin, fact.Key}
		before := m.mu.facts.kept[key]
		if fact.Origin == m.config.NodeID {
			// Of an earlier process of this node, which this one has to answer if it is newer: with
			// what it says now, or that it says nothing.
			if before == nil || before.Version < fact.Version {
				answer := &membershipv1.Fact{Origin: fact.Origin, Key: fact.Key, Version: fact.Version + 1}
				if before != nil {
					answer.Value = before.Value
				} else if len(fact.Value) == 0 {
					continue
				}
				if m.mu.facts.take(answer) {
					m.spreadLocked(answer, true)
				}
			}
			continue
		}
		// Facts of a node that is long gone would else go round for ever.
		if fact.Version < horizon && !m.mu.table.alive(fact.Origin) {
			continue
		}
		if !m.mu.facts.take(fact) {
			continue
		}
		if fact.Key == leavingKey {
			m.relabelLocked()
		} else {
			m.mu.facts.news[key] = true
		}
		told = true
		if gossiped {
			m.spreadLocked(fact, false)
		}
	}
	if told {
		signal(m.changes)
	}
}

// forgetFactsLocked drops those of nodes that are not alive and were not heard of for long.
func (m *Membership) forgetFactsLocked(now time.Time) {
	horizon := uint64(max(0, now.Add(-m.config.Timing.Forget).UnixNano()))
	for key, fact := range m.mu.facts.kept {
		if key.origin != m.config.NodeID && fact.Version < horizon && !m.mu.table.alive(key.origin) {
			m.mu.facts.drop(key)
		}
	}
}

// allFacts is what an exchange carries.
func (m *Membership) allFacts() []*membershipv1.Fact {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := make([]*membershipv1.Fact, 0, len(m.mu.facts.kept))
	for _, fact := range m.mu.facts.kept {
		list = append(list, fact)
	}
	return list
}

// sendLarge sends this node's large facts to every member that is alive. Those that miss it get it
// with the next exchange.
func (m *Membership) sendLarge(list *memberlist.Memberlist) {
	m.mu.Lock()
	var facts []*membershipv1.Fact
	for key := range m.mu.facts.large {
		if fact := m.mu.facts.kept[key]; fact != nil {
			facts = append(facts, fact)
		}
	}
	clear(m.mu.facts.large)
	m.mu.Unlock()
	if len(facts) == 0 {
		return
	}
	message := encodeFacts(facts)
	own := list.LocalNode().Name
	var to []*memberlist.Node
	for _, node := range list.Members() {
		if node.Name != own {
			to = append(to, node)
		}
	}
	inParallel(askParallel, to, func(node *memberlist.Node) { _ = list.SendReliable(node, message) })
}

// broadcast is a fact that waits to be gossiped.
type broadcast struct {
	name    string
	message []byte
}

func (b *broadcast) Name() string    { return b.name }
func (b *broadcast) Message() []byte { return b.message }
func (b *broadcast) Finished()       {}
func (b *broadcast) Invalidates(other memberlist.Broadcast) bool {
	named, ok := other.(memberlist.NamedBroadcast)
	return ok && named.Name() == b.name
}
