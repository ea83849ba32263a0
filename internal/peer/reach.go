package peer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	peerv1 "github.com/perdure/perdure/internal/peer/v1"
	"github.com/perdure/perdure/internal/routing"
)

const (
	// firstPause and longestPause are between tries that nothing new prompts. Of what is new, hops
	// are followed at once: nodes that send each other on for ever cost no more than the rest.
	firstPause   = 10 * time.Millisecond
	longestPause = 250 * time.Millisecond
	maxHops      = 4
	// settled is how long a try has to last for the next trouble to be another one.
	settled = time.Second
	// lostAfter is how long a node may take to say that its leadership is over, once another node
	// is known to lead.
	lostAfter = 500 * time.Millisecond
)

// unknown says that a request may have been accepted.
type unknown struct {
	node  uint64
	cause error
}

func (e *unknown) Error() string { return fmt.Sprintf("node %016x: %v", e.node, e.cause) }
func (e *unknown) Unwrap() error { return e.cause }

// verdict is what an error says about a request.
type verdict uint8

const (
	final     verdict = iota // it was answered, or nobody wants to know any more
	untouched                // it had no effect, and never will
	doubtful                 // it may have been accepted
)

func judge(ctx context.Context, err error) verdict {
	if err == nil || ctx.Err() != nil {
		return final
	}
	if failed, ok := errors.AsType[*routing.Error](err); ok {
		switch {
		case failed.Elsewhere == nil:
			return final
		case failed.Elsewhere.Untouched:
			return untouched
		}
		return doubtful
	}
	if errors.Is(err, ErrUnreachable) {
		return untouched
	}
	if _, ok := errors.AsType[*unknown](err); ok {
		return doubtful
	}
	return final
}

// lost reports whether an answer of the local partition leaves the request to whoever leads now.
func (r *Router) lost(err error) bool {
	if err == nil || r.network == nil {
		return false
	}
	failed, ok := errors.AsType[*routing.Error](err)
	return ok && failed.Elsewhere != nil
}

// asking is one request, to one partition.
type asking[T any] struct {
	partition uint32
	// local asks this node's own partition.
	local func(context.Context) (T, error)
	// request is what another node is asked. It is called once.
	request func() *peerv1.Request
	// answer takes what is wanted out of another node's answer.
	answer func(*peerv1.Answer) (T, bool)
	// repeatable reports whether the request may be made again that was made first so long ago and
	// may have been accepted. nil: never.
	repeatable func(since time.Duration) bool
	// settles: if the second is refused, that is all there is to say of the first too: it changes
	// nothing, or its caller makes it again under the same name.
	settles bool
	// began is when it was first made, and failed why that did not do; zero and nil if it was not.
	began  time.Time
	failed error
}

// reach asks until there is an answer: see the package's comment.
func reach[T any](ctx context.Context, r *Router, a asking[T]) (T, error) {
	var none T
	var request []byte
	var doubt error // why the request may have been accepted, nil if it certainly was not
	p := patience{router: r}
	began, failed := a.began, a.failed
	if began.IsZero() {
		began = time.Now()
	}
	outlived := func() bool {
		return doubt != nil && (a.repeatable == nil || !a.repeatable(time.Since(began)))
	}
	for first := true; ; first = false {
		at := time.Now()
		changed := r.leaders.Changed(a.partition)
		node, term := r.leaders.Leader(a.partition)
		var result T
		err := failed
		switch {
		case first && failed != nil: // on the way here
		case r.local().Leads(a.partition):
			result, err = a.local(ctx)
		case node == 0 || node == r.node:
			err = nobody(a.partition)
		default:
			if request == nil {
				if request, err = encode(ctx, a.request(), r.maxBytes); err != nil {
					if doubt != nil { // What was asked here may have been accepted.
						return none, r.doubtful(a.partition, doubt)
					}
					return none, err
				}
			}
			result, err = ask(ctx, r, node, request, a, changed)
		}
		if ctx.Err() != nil && err != nil {
			return none, ctx.Err()
		}
		switch judge(ctx, err) {
		case final:
			if _, refused := errors.AsType[*routing.Error](err); refused && doubt != nil && !a.settles {
				// It may be the first one's doing, or the first may still come.
				return none, r.doubtful(a.partition, doubt)
			}
			return result, err
		case doubtful:
			doubt = err
		}
		if outlived() {
			return none, r.doubtful(a.partition, doubt)
		}
		r.heed(err, node)
		if time.Since(at) >= settled {
			p = patience{router: r}
		}
		news := func() bool {
			now, in := r.leaders.Leader(a.partition)
			return now != 0 && (now != node || in != term)
		}
		if !p.wait(ctx, news, changed) {
			switch {
			case ctx.Err() != nil:
				return none, ctx.Err()
			case doubt != nil:
				return none, r.doubtful(a.partition, doubt)
			}
			return none, r.leaderless([]uint32{a.partition}, "the request had no effect: try again")
		}
		if outlived() { // while it was not accepted, or nobody was there
			return none, r.doubtful(a.partition, doubt)
		}
	}
}

// heed learns from a node's answer.
func (r *Router) heed(err error, node uint64) {
	if failed, ok := errors.AsType[*routing.Error](err); ok && failed.Elsewhere != nil {
		r.hear(node, failed.Elsewhere.Partition, failed.Elsewhere.Leader, failed.Elsewhere.Term)
	}
}

// hear takes a node's word that it does not lead. One that is believed to, and knows less than that,
// may be about to begin: it stays believed.
func (r *Router) hear(from uint64, partition uint32, leader, term uint64) {
	r.leaders.Learned(partition, leader, term)
	if believed, _ := r.leaders.Leader(partition); leader == 0 && believed == from {
		r.leaders.Lost(partition, term)
	}
}

// ask makes a request to a node. If it may be repeated, it ends too, soon after another node is
// known to lead: whoever lost the leadership may be cut off.
func ask[T any](ctx context.Context, r *Router, node uint64, request []byte, a asking[T], changed <-chan struct{}) (T, error) {
	var none T
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	if a.repeatable != nil {
		go r.watch(within, a.partition, node, changed, cancel)
	}
	answer, err := r.request(within, node, request)
	if err != nil {
		return none, err
	}
	if result, ok := a.answer(answer); ok {
		return result, nil
	}
	return none, &unknown{node, fmt.Errorf("it answered with %T", answer.Answer)}
}

func (r *Router) watch(ctx context.Context, partition uint32, node uint64, changed <-chan struct{}, lost func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
		changed = r.leaders.Changed(partition)
		if leads, _ := r.leaders.Leader(partition); leads != node && leads != 0 {
			select {
			case <-ctx.Done():
			case <-time.After(lostAfter):
				lost()
			}
			return
		}
	}
}

// request makes a request to a node and returns its answer, which is not a failure.
func (r *Router) request(ctx context.Context, node uint64, request []byte) (*peerv1.Answer, error) {
	data, err := r.network.Call(ctx, node, Method, request)
	switch {
	case err == nil:
	case errors.Is(err, ErrUnreachable):
		return nil, err
	default:
		return nil, &unknown{node, err}
	}
	answer := &peerv1.Answer{}
	if err := proto.Unmarshal(data, answer); err != nil {
		return nil, &unknown{node, err}
	}
	if failure := answer.GetFailure(); failure != nil {
		return nil, failureOf(failure)
	}
	return answer, nil
}

// encode writes a request. The time that ctx leaves is taken once: later tries only have less.
func encode(ctx context.Context, request *peerv1.Request, maxBytes int) ([]byte, error) {
	if deadline, ok := ctx.Deadline(); ok {
		request.TimeoutMs = max(time.Until(deadline).Milliseconds()+1, 1)
	}
	data, err := proto.Marshal(request)
	if err != nil {
		return nil, routing.Errorf(routing.CodeInvalidArgument, "the request can't be sent to another node: %v", err)
	}
	if len(data) > maxBytes {
		return nil, routing.Errorf(routing.CodeResourceExhausted, "the request has %d bytes, more than the %d that nodes send each other", len(data), maxBytes)
	}
	return data, nil
}

func nobody(partition uint32) *routing.Error {
	return &routing.Error{Elsewhere: &routing.Elsewhere{Partition: partition, Untouched: true}}
}

func (r *Router) leaderless(partitions []uint32, so string) *routing.Error {
	have := "has"
	if len(partitions) > 1 {
		have = "have"
	}
	return routing.Errorf(routing.CodeUnavailable, "%s %s no leader that can be reached from here; %s", routing.PartitionNames(partitions), have, so)
}

func (r *Router) doubtful(partition uint32, cause error) *routing.Error {
	if failed, ok := errors.AsType[*routing.Error](cause); ok {
		return failed
	}
	err := routing.Errorf(routing.CodeUnavailable, "the leader of partition %d did not answer; the call had no effect unless it was accepted before: call again with the same idempotency key", partition)
	err.Cause = cause
	return err
}

// patience bounds how long there may be no leader, and how often one is looked for.
type patience struct {
	router *Router
	until  time.Time
	pause  time.Duration
	hops   int
}

// wait returns true when it is time for the next try: at once if there is news, after a pause, or
// when changed is closed; false when it is over.
func (p *patience) wait(ctx context.Context, news func() bool, changed <-chan struct{}) bool {
	now := time.Now()
	if p.until.IsZero() {
		p.until, p.pause = now.Add(p.router.patience), firstPause
	}
	if ctx.Err() != nil || !now.Before(p.until) {
		return false
	}
	switch {
	case p.hops == maxHops:
		changed = nil
	case news():
		p.hops++
		return true
	}
	timer := time.NewTimer(p.pause)
	defer timer.Stop()
	p.pause = min(2*p.pause, longestPause)
	select {
	case <-changed:
		p.hops++
	case <-timer.C:
	case <-ctx.Done():
		return false
	}
	return true
}
