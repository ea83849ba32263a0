package transaction_test

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/transaction"
)

// describe is a message for people.
func (w *world) describe(number int32) string {
	m := w.messages[number]
	switch m.kind {
	case request:
		return "call of " + w.clients[m.sequence].root.name
	case wake:
		return "wake"
	case outbox:
		message := &recordv1.Message{}
		_ = proto.Unmarshal([]byte(m.content), message)
		return fmt.Sprintf("%d→%d outbox %d %s", m.from, m.to, m.sequence, message)
	}
	peer := &recordv1.Peer{}
	_ = proto.Unmarshal([]byte(m.content), peer)
	id, _ := transaction.IDOf(peer.Id)
	text := fmt.Sprintf("%T", peer.Message)
	text = text[strings.LastIndex(text, "_")+1:]
	switch p := peer.Message.(type) {
	case *recordv1.Peer_Join:
		text += fmt.Sprintf(" %s path %x try %d attempt %d wounded %t undone %x", p.Join.GetInvoke().GetTarget().GetHandler(), p.Join.Path, p.Join.Try, p.Join.Attempt, p.Join.Wounded, p.Join.Undone)
	case *recordv1.Peer_Joined:
		text += fmt.Sprintf(" %s members %v undone %x", textOf(p.Joined.Result), p.Joined.Members, p.Joined.Undone)
	case *recordv1.Peer_Prepare:
		text += fmt.Sprintf(" {%s}", p.Prepare)
	case *recordv1.Peer_Vote:
		text += fmt.Sprintf(" {%s}", p.Vote)
	case *recordv1.Peer_Died:
		text += fmt.Sprintf(" {%s}", p.Died)
	}
	return fmt.Sprintf("%d→%d %s of %s", m.from, m.to, text, w.tryName(id))
}

func (w *world) tryName(id transaction.ID) string {
	for _, c := range w.clients {
		if c.id == id.Root {
			return fmt.Sprintf("%s/%d.%d", c.root.name, id.Epoch(), uint32(id.Sequence))
		}
	}
	return id.String()
}

func (w *world) say(g *global, m move) string {
	what := ""
	switch m.kind {
	case deliver:
		what = "deliver " + w.describe(m.message)
	case makeDurable:
		what = fmt.Sprintf("partition %d: oldest record is durable", m.partition)
	case crash:
		what = fmt.Sprintf("partition %d: crash, records on their way are %s", m.partition, []string{"lost", "kept"}[m.sequence])
	case tick:
		what = "tick"
	}
	switch {
	case m.double:
		what += " (and once more later)"
	case m.lose:
		what = "lose" + strings.TrimPrefix(what, "deliver")
	case m.early:
		what = fmt.Sprintf("partition %d: a second passes", m.partition)
	}
	return what
}
