// Package partition owns what a node leads: for each partition one goroutine that feeds events
// to the engine, makes records of what comes out, and lets nothing leave before the record it
// depends on is durable.
//
// # Model
//
//	mailbox ──► engine.Evaluate ──► overlay (view) ──► record ──► replica.Group.Propose
//	                           └──► effects: attempts at once, the rest at the output gate
//
// Events are evaluated on the overlay of records that are not on disk yet (speculation), so a
// chain of events on one hot key shares one fdatasync. All that is evaluated while a record is
// on its way becomes the next record.
//
// # Goroutines
//
//   - One per partition, started and awaited by Router.Run. It owns the engine, the open
//     record, the records in flight and the running attempts.
//   - One per READ handler that a DURABLE handler calls; the partition waits for its end.
//   - The replica's goroutines call Lead, StepDown, Committed and Applied, which post to the
//     mailbox and update the view.
//
// # Failure
//
// Losing the leadership throws away the engine, the overlay and everything gated, aborts every
// attempt and answers `unavailable` to whoever waits. An event whose rows can't be read fails
// alone.
package partition

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/perdure/perdure/cluster/replica"
	"github.com/perdure/perdure/internal/engine"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
	"github.com/perdure/perdure/internal/partition/curtain"
	"github.com/perdure/perdure/internal/partition/early"
	"github.com/perdure/perdure/internal/partition/overlay"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	"github.com/perdure/perdure/internal/table"
	"github.com/perdure/perdure/internal/telemetry"
	"github.com/perdure/perdure/storage"
)

// Group is what a partition needs of its Raft group; *replica.Group is one.
type Group interface {
	// Propose hands a record to the log. It does not block.
	Propose(epoch, sequence uint64, payload []byte) error
	// Snapshot is the store as it is now, the partition's rows only.
	Snapshot() storage.Snapshot
	// ReadBarrier returns nil when this node has led at a moment after the call began, and
	// replica.ErrNotLeader if it does not lead, or no longer: it waits for that. With one voter it
	// is nil at once, whatever ctx; with several, and a ctx that has ended, ctx's error.
	ReadBarrier(ctx context.Context) error
}

// Partition is one slice of the key space. It implements replica.Listener.
type Partition struct {
	id     uint32
	config Config
	group  Group
	// toPartition takes an event to another partition, wherever it is led, or loses it.
	toPartition func(to uint32, event engine.Event)
	logger      *slog.Logger
	meter       *telemetry.Partition // nil: metrics are off

	mailbox struct {
		sync.Mutex
		items []item
	}
	wake chan struct{}

	// poison is what broke an evaluation, so that it does not break the next leadership too.
	// It belongs to the partition's goroutine and is forgotten by a restart.
	poison struct {
		invocations map[invocation.ID]error
		timers      map[table.Timer]bool
		messages    map[uint32]uint64 // sequence by sender
		// commits of what this partition has promised: its objects stand still.
		commits map[try]bool
	}

	// leading is nil while another node leads or nobody does.
	leading atomic.Pointer[leadership]

	// known is who leads, as far as the group knows.
	known struct {
		sync.Mutex
		leader, term uint64
	}
	// early is what other partitions say to a leadership that is about to begin here. It belongs to the
	// partition's goroutine.
	early early.Queue

	// hidden are objects that a transaction may have written already: it has promised to, and
	// whether it has is not known here. READ handlers wait until it is.
	hidden curtain.Hidden

	waiters struct {
		sync.Mutex
		last     engine.Token
		channels map[engine.Token]chan reply
	}
	// reads counts READ handlers run for attempts.
	reads sync.WaitGroup
}

// leadership is what a partition has only while it leads. Everything but view and epoch
// belongs to the partition's goroutine.
type leadership struct {
	epoch  uint64
	view   *overlay.View
	engine *engine.Engine

	// open is the record being filled; its sequence is open.sequence. sealed ones are full
	// and wait for the log, oldest first.
	open   record
	sealed []record
	// inFlight are the records proposed and not durable, oldest first.
	inFlight []record
	// spare is the memory of the effects of records that are durable, for the next ones: maxSpare at most.
	spare [][]engine.Effect
	// resigned: the StepDown is in the mailbox, and nothing before it counts any more.
	resigned bool
	// ctx ends with the leadership.
	ctx  context.Context
	over context.CancelFunc
	// unconfirmed wait for the question after the one that is being asked, if confirming.
	unconfirmed []unconfirmed
	confirming  bool
	// backlog: the log refused a record, which is offered again at retryAt or once something
	// was applied.
	backlog bool
	retryAt time.Time

	// attempts are those whose words count. The engine starts no second one of an invocation before
	// it has ended the first.
	attempts map[invocation.ID]*attempt
	// crashed is how many parts of values crashAfter has crashed after.
	crashed map[partAt]uint32
	// event is the one being evaluated: why an attempt ends.
	event engine.Event
	// nextTimer is the earliest instant at which a timer may be due, in milliseconds; no
	// timer before timerFloor is left.
	nextTimer  int64
	timerFloor int64
	outbox     map[uint32]*outbox
	nextCheck  time.Time
	// ticking: nextCheck is soon enough for the engine's Tick.
	ticking bool
}

// record is one log record and what waits for it.
type record struct {
	sequence uint64
	bytes    int
	events   int
	dirty    bool
	// closeAt is when it goes to the log if nothing that waits for it sends it there before.
	closeAt time.Time
	effects []engine.Effect
	granted []func()
	// patient are effects that wait for the record and do not hurry it.
	patient []engine.Effect
}

// attempt is one try at running a handler. It is the invoker.Host of what it runs: what tells it from
// every other, wherever the words of both arrive.
type attempt struct {
	partition *Partition
	epoch     uint64
	id        invocation.ID
	number    uint32
	// row is the engine's; only the partition's goroutine may read it.
	row      *recordv1.Invocation
	meter    *telemetry.HandlerInstruments
	mode     invocation.Mode
	stored   bool
	running  invoker.Running
	timeout  time.Duration
	deadline time.Time
}

type item struct {
	event engine.Event
	// granted is called when everything before this item is durable.
	granted func()
	// from is the attempt that speaks; nil is anybody.
	from *attempt
	// refused: event ends from because of what it tried to record.
	refused error

	control control
	// epoch is the leadership that control is about.
	epoch    uint64
	sequence uint64
	cause    error
	// confirmed are the effects that controlConfirmed is about.
	confirmed []unconfirmed
}

type control uint8

const (
	controlNone control = iota
	controlLead
	controlStepDown
	controlCommitted
	controlApplied
	// controlHurry sends the open record to the log: somebody waits for a patient effect of it.
	controlHurry
	// controlMeasure calls granted on the partition's goroutine.
	controlMeasure
	// controlConfirmed: the group says whether this node leads; see confirm.
	controlConfirmed
	// controlResend sends and asks again, at once, what the partition with the number sequence has not
	// acknowledged or answered: it has a new leader.
	controlResend
)

const (
	// maxInFlight records wait for the log at once. Two keep the log busy while the next is
	// filled; more would only make records smaller.
	maxInFlight = 2
	// sealBytes is where a record is full; only a single event makes a larger one.
	sealBytes = 512 << 10
	// maxSealed is where new calls are refused: the log or the store does not keep up.
	maxSealed = 32
	// soonDelay is how long a record without a gated effect stays open, for the step that
	// follows: the result of one Run and the start of the next are one record.
	soonDelay = 2 * time.Millisecond
	// lazyDelay is how long a record that nobody waits for at all may stay open.
	lazyDelay = 200 * time.Millisecond
	// backlogDelay is how long a record that the log refused waits before it is offered again.
	backlogDelay = 50 * time.Millisecond
	// checkEvery is how often step timeouts and unacknowledged messages are looked at, at most.
	checkEvery = time.Second
	// resendAfter is how long a message may go unacknowledged.
	resendAfter = time.Second
)

func (p *Partition) post(it item) {
	p.mailbox.Lock()
	p.mailbox.items = append(p.mailbox.items, it)
	p.mailbox.Unlock()
	p.rouse()
}

// rouse makes the partition's goroutine look for what there is to do.
func (p *Partition) rouse() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *Partition) postEvent(event engine.Event) { p.post(item{event: event}) }

// LeaderChanged implements replica.Listener.
func (p *Partition) LeaderChanged(leader, term uint64) {
	p.known.Lock()
	if term >= p.known.term {
		p.known.leader, p.known.term = leader, term
	}
	p.known.Unlock()
	if leader != 0 && leader != p.config.Node {
		p.config.router.ledElsewhere(p.id)
	}
	if p.config.Elsewhere != nil {
		p.config.Elsewhere.Learned(p.id, leader, term)
	}
}

func (p *Partition) hint() *routing.Elsewhere {
	p.known.Lock()
	defer p.known.Unlock()
	return &routing.Elsewhere{Partition: p.id, Leader: p.known.leader, Term: p.known.term}
}

// Lead implements replica.Listener.
func (p *Partition) Lead(epoch uint64) { p.post(item{control: controlLead, epoch: epoch}) }

// StepDown implements replica.Listener.
func (p *Partition) StepDown(epoch uint64, cause error) {
	p.known.Lock()
	if p.known.leader == p.config.Node && p.known.term <= epoch {
		p.known.leader = 0 // or what is for the next leader would be kept here
	}
	p.known.Unlock()
	p.post(item{control: controlStepDown, epoch: epoch, cause: cause})
}

// Committed implements replica.Listener.
func (p *Partition) Committed(epoch, sequence uint64) {
	if l := p.leading.Load(); l != nil && l.epoch == epoch {
		l.view.Committed(sequence)
	}
	p.post(item{control: controlCommitted, epoch: epoch, sequence: sequence})
}

// Applied implements replica.Listener. The store is read here, on the committer's goroutine,
// so that the snapshot is of exactly this sequence.
func (p *Partition) Applied(epoch, sequence uint64) {
	if l := p.leading.Load(); l != nil && l.epoch == epoch {
		l.view.InStore(sequence, p.group.Snapshot())
	}
	p.post(item{control: controlApplied, epoch: epoch, sequence: sequence})
}

// run is the partition's goroutine.
func (p *Partition) run(ctx context.Context) {
	var items []item
	var l *leadership
	// One channel for all there is to wait for: a select of three was a tenth of this goroutine's
	// time, which wakes for nearly every event.
	alarm := time.AfterFunc(time.Hour, p.rouse)
	defer alarm.Stop()
	defer context.AfterFunc(ctx, p.rouse)()
	for {
		<-p.wake
		if ctx.Err() != nil {
			p.stepDown(l, context.Cause(ctx)) // which cancels the contexts of its READ handlers
			p.awaitReads()
			return
		}
		p.mailbox.Lock()
		items, p.mailbox.items = p.mailbox.items, items[:0]
		p.mailbox.Unlock()
		for i := range items {
			l = p.handle(l, &items[i])
		}
		clear(items)
		if l == nil || l.resigned {
			continue
		}
		now := time.Now()
		p.fireTimers(l)
		if next := now.Add(checkEvery); next.Before(l.nextCheck) && l.engine.Busy() {
			l.nextCheck = next // One that has told nobody anything, or stands still, ticks too.
		}
		p.check(l, now)
		p.flush(l, now)
		alarm.Reset(p.sleepFor(l, now))
	}
}

// sleepFor is how long nothing has to be done unless a message comes.
func (p *Partition) sleepFor(l *leadership, now time.Time) time.Duration {
	wait := time.Hour
	if l.nextTimer != noTimer {
		wait = min(wait, time.UnixMilli(l.nextTimer).Sub(p.config.Now()))
	}
	if len(l.attempts) > 0 || len(l.outbox) > 0 || l.engine.Busy() {
		wait = min(wait, l.nextCheck.Sub(now))
	}
	switch {
	case l.backlog: // However overdue the open record is, asking at once again would spin.
		wait = min(wait, backlogDelay)
	case l.open.dirty && len(l.inFlight) < maxInFlight:
		wait = min(wait, l.open.closeAt.Sub(now))
	}
	return max(wait, 0)
}

func (p *Partition) handle(l *leadership, it *item) *leadership {
	switch it.control {
	case controlLead:
		p.stepDown(l, fmt.Errorf("a new leadership, epoch %d, began", it.epoch))
		l = p.lead(it.epoch)
		for _, event := range p.early.Take(it.epoch) {
			if l != nil && !l.resigned {
				p.evaluate(l, event)
			}
		}
		return l
	case controlStepDown:
		if l != nil && l.epoch == it.epoch {
			p.stepDown(l, it.cause)
			return nil
		}
		return l
	case controlCommitted:
		if l != nil && l.epoch == it.epoch {
			p.release(l, it.sequence)
		}
		return l
	case controlApplied:
		if l != nil {
			l.retryAt = time.Time{}
		}
		return l
	case controlHurry:
		if l != nil {
			l.open.closeAt = time.Time{}
		}
		return l
	case controlMeasure:
		it.granted()
		return l
	case controlConfirmed:
		if l != nil && l.epoch == it.epoch {
			p.confirmed(l, it)
		}
		return l
	case controlResend:
		if l != nil && !l.resigned {
			p.resendNow(l, uint32(it.sequence))
			if l.engine.Busy() {
				p.evaluate(l, &engine.Reached{Partition: uint32(it.sequence)})
			}
		}
		return l
	}
	if l == nil {
		p.refuse(it.event)
		if term, ok := p.elected(); ok {
			p.early.Keep(term, it.event)
		} else {
			p.early.Take(0)
		}
		return nil
	}
	if l.resigned {
		return l // Whoever waits is answered when the leadership ends.
	}
	if it.from != nil && !l.heeds(it.from) {
		return l // It ended while the item waited.
	}
	if it.granted != nil {
		it.from.touch()
		p.grant(l, it.granted)
		return l
	}
	p.evaluate(l, it.event)
	if it.refused != nil {
		it.from.running.Abort(it.refused) // It must not go on: what it did last was not recorded.
	}
	return l
}

// refuse answers an event that came while nobody leads here.
func (p *Partition) refuse(event engine.Event) {
	if token := early.Token(event); token != 0 {
		p.answer(token, reply{err: p.elsewhere(nil)})
	}
}

// unavailable is what those hear who waited when a leadership ended: what they asked for may have
// been accepted.
func (p *Partition) unavailable(cause error) *routing.Error {
	if errors.Is(cause, replica.ErrStopped) {
		err := routing.Errorf(routing.CodeUnavailable, "the node is shutting down; call again with the same idempotency key")
		err.Elsewhere = p.hint()
		return err
	}
	err := routing.Errorf(routing.CodeUnavailable, "partition %d has no leader here; the call had no effect unless it was accepted before: call again with the same idempotency key", p.id)
	err.Cause, err.Elsewhere = cause, p.hint()
	return err
}

// elsewhere is what those hear whose request was not taken: it has no effect, and never will.
func (p *Partition) elsewhere(cause error) *routing.Error {
	err := p.unavailable(cause)
	err.Elsewhere.Untouched = true
	return err
}

// evaluate gives one event to the engine and takes what comes of it.
func (p *Partition) evaluate(l *leadership, event engine.Event) {
	if invoke, ok := event.(*engine.Invoke); ok && invoke.Token != 0 && len(l.sealed) > maxSealed {
		p.answer(invoke.Token, reply{err: routing.Errorf(routing.CodeUnavailable,
			"partition %d has %d full records waiting for the disk; try again later", p.id, len(l.sealed))})
		return
	}
	p.touch(l, event)
	if p.config.CrashAtEveryEntry && p.crash(l, event) {
		return
	}
	if ack, ok := event.(*engine.Acked); ok {
		p.acked(l, ack.By, ack.Sequence)
	}
	l.event = event
	if p.poisoned(event) {
		return
	}
	out, err := evaluateSafely(l.engine, event, p.config.Now().UnixMilli())
	if err != nil {
		p.failed(l, event, err)
		return
	}
	if p.meter != nil {
		p.count(event, out)
	}
	p.take(l, out)
	if p.config.CrashAtEveryEntry {
		p.crashAfter(l, event)
	}
}

// take adds an event's mutations to the open record and sees to its effects.
func (p *Partition) take(l *leadership, out *engine.Output) {
	if len(out.Mutations) > 0 {
		bytes := 0
		for i := range out.Mutations {
			bytes += len(out.Mutations[i].Key) + len(out.Mutations[i].Value)
		}
		if l.open.dirty && l.open.bytes+bytes > sealBytes {
			l.sealed = append(l.sealed, l.open)
			l.open = record{sequence: l.open.sequence + 1}
		}
		now := time.Now()
		if !l.open.dirty {
			l.open.dirty, l.open.closeAt = true, now.Add(lazyDelay)
		}
		if soon := now.Add(soonDelay); !out.Lazy && soon.Before(l.open.closeAt) {
			l.open.closeAt = soon
		}
		l.open.bytes += bytes
		l.open.events++
		if err := l.view.Put(l.open.sequence, out.Mutations); err != nil {
			// The overlay may hold half of the event: nothing after it can be trusted.
			p.logger.Error("overlay write failed", telemetry.KeyPartition, p.id, telemetry.KeyEpoch, l.epoch, telemetry.KeyError, err)
			p.resign(l, err)
			return
		}
	}
	for _, effect := range out.Effects {
		if p.mustConfirm(l, effect) {
			p.confirm(l, effect)
		} else if effect.Gated() {
			p.gate(l, effect, out.Lazy && !p.hidden.Waiting())
		} else {
			p.act(l, effect)
		}
	}
}
