package engine

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/transaction"
)

// What scripts have for transactions. Messages between partitions are delivered at once, each
// with what it comes to under a line "partition N hears …", unless the script says otherwise:
//
//	hold vote       keep messages of a kind back from now on
//	release vote    deliver them, and keep none back any more
//	lose vote       drop those kept back, and keep none back any more
//	again prepare   deliver the last message of a kind once more
//	unsynced N      from now on nothing in partition N becomes durable, and what waits for that
//	                ("|") does not happen
//	synced N        it becomes durable and happens
//	restart         loses what is not durable
//	limit 100       bound what a transaction may write in one partition; the first command
//	hand on         let participants decide; the first command
//
// Calls in a transaction are known by their input. Keys live in partitions as follows: ann, bob
// and cat in 1; fay and ivan in 2; kim and leo in 3; dan and eve in 4.

// scriptMail is what partitions tell each other.
type scriptMail struct {
	on     []scriptLetter
	held   []scriptLetter
	kinds  map[string]bool
	last   map[string]scriptLetter
	epochs map[uint32]uint64
	// of partitions that are unsynced
	durable map[uint32]map[string][]byte
	gated   map[uint32][]scriptLetter
}

type scriptLetter struct {
	to   uint32
	peer *recordv1.Peer
}

func (m *scriptMail) add(l scriptLetter) {
	if m.last == nil {
		m.last, m.kinds = map[string]scriptLetter{}, map[string]bool{}
	}
	kind := peerKind(l.peer)
	m.last[kind] = l
	if m.kinds[kind] {
		m.held = append(m.held, l)
		return
	}
	m.on = append(m.on, l)
}

func peerKind(p *recordv1.Peer) string {
	return strings.ToLower(strings.TrimPrefix(fmt.Sprintf("%T", p.Message), "*recordv1.Peer_"))
}

// mailCommand runs a command about messages.
func (s *script) mailCommand(words []string) bool {
	m := &s.mail
	argument := ""
	if len(words) > 1 {
		argument = words[1]
	}
	partition, _ := strconv.ParseUint(argument, 10, 32)
	switch words[0] {
	case "hold":
		if m.kinds == nil {
			m.last, m.kinds = map[string]scriptLetter{}, map[string]bool{}
		}
		m.kinds[argument] = true
	case "release", "lose":
		delete(m.kinds, argument)
		m.held = slices.DeleteFunc(m.held, func(l scriptLetter) bool {
			if peerKind(l.peer) != argument {
				return false
			}
			if words[0] == "release" {
				m.on = append(m.on, l)
			}
			return true
		})
	case "limit":
		s.maxWriteBytes, _ = strconv.Atoi(argument)
	case "hand":
		s.handOn = true
	case "again":
		m.on = append(m.on, m.last[argument])
	case "unsynced":
		if m.durable == nil {
			m.durable, m.gated = map[uint32]map[string][]byte{}, map[uint32][]scriptLetter{}
		}
		m.durable[uint32(partition)] = maps.Clone(s.rows[uint32(partition)])
	case "synced":
		delete(m.durable, uint32(partition))
		for _, l := range m.gated[uint32(partition)] {
			m.add(l)
		}
		delete(m.gated, uint32(partition))
	default:
		return false
	}
	return true
}

// crash ends a partition's leadership: what it had not made durable is lost.
func (s *script) crash(partition uint32) {
	m := &s.mail
	if durable, ok := m.durable[partition]; ok {
		s.rows[partition] = durable
		delete(m.durable, partition)
		delete(m.gated, partition)
	}
	if m.epochs == nil {
		m.epochs = map[uint32]uint64{}
	}
	m.epochs[partition]++
	delete(s.engines, partition)
}

// collect takes the messages of an output.
func (s *script) collect(partition uint32, o *Output) {
	for _, effect := range o.Effects {
		t, ok := effect.(*Tell)
		if !ok {
			continue
		}
		l := scriptLetter{t.To, proto.Clone(t.Peer).(*recordv1.Peer)}
		if _, unsynced := s.mail.durable[partition]; unsynced && t.Promise {
			s.mail.gated[partition] = append(s.mail.gated[partition], l)
			continue
		}
		s.mail.add(l)
	}
}

// carry delivers what is on its way until nothing is.
func (s *script) carry(t *testing.T, out *strings.Builder) {
	for n := 0; len(s.mail.on) > 0; n++ {
		if n > 1000 {
			t.Fatal("messages go on for ever")
		}
		l := s.mail.on[0]
		s.mail.on = s.mail.on[1:]
		if l.peer == nil {
			t.Fatal("there was no such message")
		}
		fmt.Fprintf(out, "partition %d hears %s\n", l.to, s.peer(l.peer))
		o, err := s.engine(l.to).Evaluate(&Told{Peer: proto.Clone(l.peer).(*recordv1.Peer)}, s.now)
		s.print(out, l.to, o, err)
	}
}

// whereabouts is the partition where an invocation or call runs; 1 if nowhere.
func (s *script) whereabouts(id invocation.ID) uint32 {
	for _, partition := range slices.Sorted(maps.Keys(s.engines)) {
		if s.engines[partition].live[id] != nil {
			return partition
		}
	}
	return 1
}

// meet names a call in a transaction by its input.
func (s *script) meet(e *StartAttempt) {
	if e.Joined && s.names[e.ID] == "" {
		s.names[e.ID], s.ids[string(e.Input)] = string(e.Input), e.ID
	}
}

func (s *script) transaction(root []byte, sequence uint64) string {
	id, _ := invocation.IDFromBytes(root)
	return fmt.Sprintf("%s/%d.%d", s.names[id], sequence>>32, uint32(sequence))
}

func (s *script) peer(p *recordv1.Peer) string {
	text := peerKind(p) + " " + s.transaction(p.Id.GetRoot(), p.Id.GetSequence())
	switch m := p.Message.(type) {
	case *recordv1.Peer_Join:
		j := m.Join
		text += fmt.Sprintf(" %s %s", j.Invoke.Input, targetOf(j.Invoke.Target).Object())
		text += flags(" only to have the key", j.Reserve, " wounded", j.Wounded, " reader", j.Age.GetReader())
	case *recordv1.Peer_Joined:
		text += fmt.Sprintf(" call %d %s", m.Joined.Index, resultText(m.Joined.Result))
	case *recordv1.Peer_Prepare:
		text += flags(" discard", m.Prepare.Discard, " alone", m.Prepare.Alone, " final", m.Prepare.Final, " with calls taken back", len(m.Prepare.Undone) > 0)
	case *recordv1.Peer_Vote:
		v := m.Vote
		text += flags(" yes", v.Yes, " no", !v.Yes, " reader", v.Reader, " committed", v.Committed)
		if v.Refused != nil {
			text += " " + strconv.Quote(v.Refused.Message)
		}
	case *recordv1.Peer_Died:
		if m.Died.Blocked != nil {
			text += " waits for " + targetOf(m.Died.Blocked).Object().String()
		}
		text += flags(" durable", m.Died.Durable)
	}
	return text
}

func flags(pairs ...any) (text string) {
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1].(bool) {
			text += pairs[i].(string)
		}
	}
	return text
}

// transactionRow prints the rows of participants and coordinators; "" for others.
func (s *script) transactionRow(key []byte) string {
	id, err := transactionKey(key)
	if err != nil {
		return ""
	}
	kind := "promise"
	if key[0] == 'y' {
		kind = "decision"
	}
	return kind + " " + s.transaction(id.Root[:], id.Sequence)
}

func transactionKey(key []byte) (id transaction.ID, err error) {
	if key[0] != 'x' && key[0] != 'y' || len(key) != 1+invocation.IDBytes+8 {
		return id, fmt.Errorf("no row of a transaction")
	}
	copy(id.Root[:], key[1:])
	for _, b := range key[1+invocation.IDBytes:] {
		id.Sequence = id.Sequence<<8 | uint64(b)
	}
	return id, nil
}

func transactionValue(key, value []byte) string {
	var text []string
	if key[0] == 'y' {
		row := &recordv1.Decision{}
		_ = proto.Unmarshal(value, row)
		return fmt.Sprintf("for %v", row.Participants)
	}
	row := &recordv1.Prepared{}
	_ = proto.Unmarshal(value, row)
	for _, o := range row.Objects {
		text = append(text, fmt.Sprintf("%s: %d entries", targetOf(o.Target).Object(), len(o.Entries)))
	}
	return strings.Join(text, ", ")
}
