package engine

import (
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

func (e *Engine) awaitPromise(l *live, index uint32, await *recordv1.AwaitPromise, now int64) error {
	key := table.Promise(l.target.Object(), await.Name)
	row := &recordv1.Promise{}
	if _, err := e.getMessage(key, row); err != nil {
		return err
	}
	if row.Result != nil {
		return e.completion(l.id, &recordv1.Completion{Entry: index, Result: row.Result, At: now}, now)
	}
	row.Waiters = append(row.Waiters, &recordv1.Caller{InvocationId: l.id[:], Entry: index})
	return e.putMessage(key, row)
}

func (e *Engine) applyCompletePromise(l *live, complete *recordv1.CompletePromise, now int64) error {
	o := l.target.Object()
	if complete.Target != nil {
		o = targetOf(complete.Target).Object()
		hash := invocation.Target{Service: o.Service, Key: o.Key}.Hash()
		if to := invocation.PartitionOf(hash, e.config.Partitions); to != e.config.Partition {
			return e.send(to, &recordv1.Message{Message: &recordv1.Message_CompletePromise{CompletePromise: complete}})
		}
	}
	_, err := e.completePromise(o, complete.Name, complete.Result, now)
	return err
}

// completePromise gives a promise its result, once. refused says why it was not.
func (e *Engine) completePromise(o invocation.Object, name string, result *recordv1.Result, now int64) (refused *recordv1.Result, err error) {
	key := table.Promise(o, name)
	row := &recordv1.Promise{}
	if _, err := e.getMessage(key, row); err != nil {
		return nil, err
	}
	if row.Result != nil {
		if proto.Equal(row.Result, result) {
			return nil, nil
		}
		return failure(codeFailedPrecondition, "promise %s of %s is completed already", name, o), nil
	}
	waiters := row.Waiters
	row.Result, row.Waiters = result, nil
	if err := e.putMessage(key, row); err != nil {
		return nil, err
	}
	return nil, e.tellPromise(waiters, result, now)
}

func (ev *CompletePromise) evaluate(e *Engine, now int64) error {
	refused, err := e.completePromise(ev.Object, ev.Name, ev.Result, now)
	if err == nil && ev.Token != 0 {
		e.effect(&Reply{Token: ev.Token, Result: refused, Refused: refused != nil})
	}
	return err
}

func (ev *CompleteAwakeable) evaluate(e *Engine, now int64) error {
	refused, err := e.completeAwakeable(ev.ID, ev.Result, now)
	if err == nil && ev.Token != 0 {
		e.effect(&Reply{Token: ev.Token, Result: refused, Refused: refused != nil})
	}
	return err
}

func (e *Engine) completeAwakeable(name invocation.AwakeableID, result *recordv1.Result, now int64) (refused *recordv1.Result, err error) {
	id, index := name.Invocation, name.Entry
	entry := &recordv1.Entry{}
	ok, err := e.getMessage(table.Journal(id, index), entry)
	if err != nil {
		return nil, err
	}
	if !ok || entry.GetAwakeable() == nil || entry.GetAwakeable().Nonce != name.Nonce { // or it is of another run of that id
		return failure(codeNotFound, "no awakeable %s: it never existed, or its invocation's retention is over", name), nil
	}
	before := &recordv1.Completion{}
	if ok, err = e.getMessage(table.Completion(id, index), before); err != nil {
		return nil, err
	}
	if ok {
		if proto.Equal(before.Result, result) {
			return nil, nil
		}
		return failure(codeFailedPrecondition, "awakeable %s is completed already", name), nil
	}
	l, err := e.loadLive(id)
	if err != nil {
		return nil, err
	}
	if l == nil || completed(l.row.Status) {
		return failure(codeFailedPrecondition, "the invocation of awakeable %s has ended", name), nil
	}
	return nil, e.completion(id, &recordv1.Completion{Entry: index, Result: result, At: now}, now)
}

// applyCompleteAwakeable takes a handler's completion to the awakeable, wherever that lives.
// Ids come from users: one that names anything but an awakeable changes nothing.
func (e *Engine) applyCompleteAwakeable(complete *recordv1.CompleteAwakeable, now int64) error {
	id, err := invocation.ParseAwakeableID(complete.AwakeableId)
	if err != nil {
		return nil // inprocess has told the handler
	}
	if to := id.Invocation.Partition(e.config.Partitions); to != e.config.Partition {
		return e.send(to, &recordv1.Message{Message: &recordv1.Message_CompleteAwakeable{CompleteAwakeable: complete}})
	}
	_, err = e.completeAwakeable(id, complete.Result, now)
	return err
}
