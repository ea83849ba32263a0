package engine

import (
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/transaction"
)

// Messages about transactions are most of what a transaction allocates, so those that every
// transaction sends are one allocation each, and what they have in common is shared: nobody
// changes a message once it is on its way.

// commitWord is the message of every Commit.
var commitWord = &recordv1.Peer_Commit{Commit: &recordv1.Commit{}}

// envelope is a message and the effect that takes it to its partition.
type envelope struct {
	tell Tell
	peer recordv1.Peer
}

// newJoin has room for what the caller keeps of the call.
func newJoin(age *transaction.Age) (*envelope, *recordv1.Join, *outgoing) {
	var all struct {
		envelope
		word recordv1.Peer_Join
		join recordv1.Join
		age  recordv1.TransactionAge
		kept outgoing
	}
	age.Fill(&all.age)
	all.join.Age = &all.age
	all.word.Join, all.peer.Message = &all.join, &all.word
	return &all.envelope, &all.join, &all.kept
}

// newJoined has room for the one member that most answers name.
func newJoined() (*envelope, *recordv1.Joined, *recordv1.Member) {
	var all struct {
		envelope
		word   recordv1.Peer_Joined
		joined recordv1.Joined
		own    recordv1.Member
		list   [1]*recordv1.Member
	}
	all.word.Joined, all.peer.Message = &all.joined, &all.word
	all.joined.Members = all.list[:0]
	return &all.envelope, &all.joined, &all.own
}

func newPrepare(prepare *recordv1.Prepare) *envelope {
	var all struct {
		envelope
		word recordv1.Peer_Prepare
	}
	all.word.Prepare, all.peer.Message = prepare, &all.word
	return &all.envelope
}

func newVote() (*envelope, *recordv1.Vote) {
	var all struct {
		envelope
		word recordv1.Peer_Vote
		vote recordv1.Vote
	}
	all.word.Vote, all.peer.Message = &all.vote, &all.word
	return &all.envelope, &all.vote
}

func newCommit() *envelope {
	v := &envelope{}
	v.peer.Message = commitWord
	return v
}

func (e *Engine) newCommitted() *envelope {
	v := &envelope{}
	v.peer.Message = e.committedWord
	return v
}

// post is tell for a message that is sent for the first time.
func (e *Engine) post(to uint32, id transaction.ID, promise bool, v *envelope) {
	v.peer.Id = e.nameOf(id)
	if to == e.config.Partition {
		e.told = append(e.told, &v.peer)
		return
	}
	v.tell = Tell{To: to, Peer: &v.peer, Promise: promise}
	e.effect(&v.tell)
}

// named is the last transaction that was written of, as messages and rows have it: most events
// write of one only.
type named struct {
	id     transaction.ID
	record *recordv1.TransactionID
}

// nameOf is the name of a try as messages and rows have it. Nobody may change it.
func (e *Engine) nameOf(id transaction.ID) *recordv1.TransactionID {
	if e.name.record == nil || e.name.id != id {
		e.name = named{id, id.Record()}
	}
	return e.name.record
}

// tell takes a message to a partition: at once, if it is this one.
func (e *Engine) tell(to uint32, id transaction.ID, promise bool, peer *recordv1.Peer) {
	if peer.Id == nil { // else it is told again, and somebody may be reading it
		peer.Id = e.nameOf(id)
	}
	if to == e.config.Partition {
		e.told = append(e.told, peer)
		return
	}
	e.effect(&Tell{To: to, Peer: peer, Promise: promise})
}
