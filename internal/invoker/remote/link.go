package remote

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	invokerv1 "github.com/perdure/perdure/internal/invoker/v1"
	"github.com/perdure/perdure/internal/stress"
)

// link is one side of a session: what it has to say, in order, and what it has heard. It ends for
// good with the first batch that is not answered twice, and everything that was run over it with it:
// nobody can say which messages have arrived.
type link struct {
	node    uint64 // the other side
	session uint64
	call    func(ctx context.Context, batch *invokerv1.Batch) (*invokerv1.Response, error)
	beat    time.Duration
	patient time.Duration
	// begins: the first batch begins the session on the other side.
	begins bool
	// busy says whether the other side must be known to be there.
	busy func() bool
	// lost is called once, when the link has ended.
	lost func(cause error)

	wake chan struct{} // of one
	ctx  context.Context
	stop context.CancelCauseFunc
	heed sync.Mutex // held while a batch of the other side is acted on
	mu   struct {
		sync.Mutex
		queue     []*invokerv1.Message
		said      uint64 // messages ever queued
		delivered uint64 // of them, those that were answered
		moved     chan struct{}
		heard     uint64 // the last batch of the other side
	}
}

func newLink(ctx context.Context, l *link) *link {
	l.wake = make(chan struct{}, 1)
	l.mu.moved = make(chan struct{})
	l.ctx, l.stop = context.WithCancelCause(ctx)
	return l
}

// say queues a message. It does not block.
func (l *link) say(message *invokerv1.Message) {
	l.mu.Lock()
	l.mu.queue = append(l.mu.queue, message)
	l.mu.said++
	l.mu.Unlock()
	l.nudge()
}

func (l *link) nudge() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// flush waits until everything that was said before has arrived.
func (l *link) flush(ctx context.Context) error {
	l.mu.Lock()
	until := l.mu.said
	for l.mu.delivered < until {
		moved := l.mu.moved
		l.mu.Unlock()
		select {
		case <-moved:
		case <-l.ctx.Done():
			return context.Cause(l.ctx)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		l.mu.Lock()
	}
	l.mu.Unlock()
	return nil
}

// batchBytes is about what one batch holds; a single message may be larger.
var batchBytes = stress.Few(1<<20, 1)

func (l *link) next() []*invokerv1.Message {
	l.mu.Lock()
	defer l.mu.Unlock()
	count, bytes := 0, 0
	for count < len(l.mu.queue) && bytes < batchBytes {
		bytes += proto.Size(l.mu.queue[count])
		count++
	}
	batch := l.mu.queue[:count:count]
	if l.mu.queue = l.mu.queue[count:]; len(l.mu.queue) == 0 {
		l.mu.queue = nil // which would keep what was said before
	}
	return batch
}

var errUnknownSession = errors.New("the other node knows nothing of what was begun")

// run sends until the link ends.
func (l *link) run() {
	cause := l.send()
	l.stop(cause)
	l.lost(cause)
}

func (l *link) send() error {
	beat := time.NewTimer(l.beat)
	defer beat.Stop()
	for sequence := uint64(1); ; sequence++ {
		batch := l.next()
		for len(batch) == 0 {
			select {
			case <-l.wake:
				batch = l.next()
				continue
			case <-beat.C:
				beat.Reset(l.beat)
				if !l.busy() {
					continue
				}
			case <-l.ctx.Done():
				return context.Cause(l.ctx)
			}
			break
		}
		response, err := l.deliver(&invokerv1.Batch{Session: l.session, Sequence: sequence, Messages: batch})
		switch {
		case err != nil:
			return fmt.Errorf("node %016x: %w", l.node, err)
		case response.GetUnknownSession():
			return fmt.Errorf("node %016x: %w", l.node, errUnknownSession)
		}
		l.mu.Lock()
		l.mu.delivered += uint64(len(batch))
		close(l.mu.moved)
		l.mu.moved = make(chan struct{})
		l.mu.Unlock()
	}
}

// deliver sends a batch, and sends it again if there is no answer: a connection that breaks, while the other
// node is there, is to take nothing with it. At once, for a node that is gone is not to be missed any later; and
// once, within the time that one answer may take. Not the batch that begins a session: the other side may have
// ended it meanwhile, or been restarted, and would begin it once more, with numbers that were heard.
func (l *link) deliver(batch *invokerv1.Batch) (response *invokerv1.Response, err error) {
	ctx, cancel := context.WithTimeoutCause(l.ctx, l.patient, fmt.Errorf("no answer within %v", l.patient))
	defer cancel()
	for range 2 {
		if response, err = l.call(ctx, batch); err == nil || ctx.Err() != nil || l.begins && batch.GetSequence() == 1 {
			break
		}
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return response, err
}

// take acts on a batch of the other side, once. It reports false if one before it is missing.
func (l *link) take(batch *invokerv1.Batch, act func(*invokerv1.Message)) bool {
	l.heed.Lock()
	defer l.heed.Unlock()
	switch heard := l.mu.heard; {
	case l.ctx.Err() != nil:
		return false
	case batch.GetSequence() == heard && heard > 0:
		return true // it came before, and its answer was lost or is on its way
	case batch.GetSequence() != heard+1:
		return false
	}
	l.mu.heard++
	for _, message := range batch.GetMessages() {
		act(message)
	}
	return true
}
