package transaction

import recordv1 "github.com/perdure/perdure/internal/record/v1"

// Envelope is a message, and the effect that takes it to its partition. Messages are most of what
// a transaction allocates, so those that each of them sends are one allocation, and what messages
// have in common they share: nobody changes one once it is on its way.
type Envelope[E any] struct {
	Effect E
	Peer   recordv1.Peer
}

// NewJoin is to be filled in but for the age. It has room for what the caller keeps of the call.
func NewJoin[E, K any](age *Age) (*Envelope[E], *recordv1.Join, *K) {
	var all struct {
		Envelope[E]
		word recordv1.Peer_Join
		join recordv1.Join
		age  recordv1.TransactionAge
		kept K
	}
	age.Fill(&all.age)
	all.join.Age = &all.age
	all.word.Join, all.Peer.Message = &all.join, &all.word
	return &all.Envelope, &all.join, &all.kept
}

// NewJoined is to be filled in. It has room for the one member that most answers name.
func NewJoined[E any]() (*Envelope[E], *recordv1.Joined, *recordv1.Member) {
	var all struct {
		Envelope[E]
		word   recordv1.Peer_Joined
		joined recordv1.Joined
		own    recordv1.Member
		list   [1]*recordv1.Member
	}
	all.word.Joined, all.Peer.Message = &all.joined, &all.word
	all.joined.Members = all.list[:0]
	return &all.Envelope, &all.joined, &all.own
}

// NewPrepare takes what is asked.
func NewPrepare[E any](prepare *recordv1.Prepare) *Envelope[E] {
	var all struct {
		Envelope[E]
		word recordv1.Peer_Prepare
	}
	all.word.Prepare, all.Peer.Message = prepare, &all.word
	return &all.Envelope
}

// NewVote is to be filled in.
func NewVote[E any]() (*Envelope[E], *recordv1.Vote) {
	var all struct {
		Envelope[E]
		word recordv1.Peer_Vote
		vote recordv1.Vote
	}
	all.word.Vote, all.Peer.Message = &all.vote, &all.word
	return &all.Envelope, &all.vote
}

// Words are the messages that a partition says with the same words each time.
type Words[E any] struct {
	commit    *recordv1.Peer_Commit
	committed *recordv1.Peer_Committed
}

// WordsOf makes those of a partition.
func WordsOf[E any](partition uint32) Words[E] {
	return Words[E]{
		commit:    &recordv1.Peer_Commit{Commit: &recordv1.Commit{From: partition}},
		committed: &recordv1.Peer_Committed{Committed: &recordv1.Committed{From: partition}},
	}
}

// Commit tells of a decision.
func (w Words[E]) Commit() *Envelope[E] {
	v := &Envelope[E]{}
	v.Peer.Message = w.commit
	return v
}

// Committed answers that.
func (w Words[E]) Committed() *Envelope[E] {
	v := &Envelope[E]{}
	v.Peer.Message = w.committed
	return v
}
