package engine

import (
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/transaction"
)

// envelope is a message about a transaction, with the effect that takes it to its partition.
type envelope = transaction.Envelope[Tell]

// assure is post for what only the last leader of this partition can know.
func (e *Engine) assure(to uint32, id transaction.ID, promise bool, v *envelope) {
	e.post(to, id, promise, v)
	v.Effect.Confirm = true
}

// post is tell for a message that is sent for the first time.
func (e *Engine) post(to uint32, id transaction.ID, promise bool, v *envelope) {
	v.Peer.Id = e.nameOf(id)
	if to == e.config.Partition {
		e.told = append(e.told, &v.Peer)
		return
	}
	v.Effect = Tell{To: to, Peer: &v.Peer, Promise: promise}
	e.effect(&v.Effect)
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
