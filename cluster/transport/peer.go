package transport

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/perdure/perdure/internal/telemetry"
	transportv1 "github.com/perdure/perdure/internal/transport/v1"
)

// A batch of frames is one message: what waits, up to so many bytes and frames, or one frame.
const (
	batchBytes  = 1 << 20
	batchFrames = 8192
	// frameOverhead is counted for each frame that waits, so that empty ones are bounded too.
	frameOverhead = 64
)

// peer is another node: the queue of frames for it, and the connections to it.
type peer struct {
	t  *Transport
	id uint64
	// wake has room for one: frames wait.
	wake chan struct{}
	// moved has room for one: the address changed.
	moved chan struct{}
	// back has room for one: the node has connected to this one, so it can be reached again.
	back chan struct{}
	// ctx ends, by cancel, when the peer is removed or the transport stops.
	ctx     context.Context
	cancel  context.CancelFunc
	calls   link
	streams link
	// Of this node to the peer, under way.
	callsNow, streamsNow atomic.Int64
	mu                   struct {
		sync.Mutex
		address string
		// open: frames are taken. They are while the connection stands, and while the first
		// attempt to make one again is under way, so that the first frames to a node that came up
		// are not lost; not afterwards, for nobody needs the frames of an outage.
		open   bool
		queue  []*transportv1.Frame
		bytes  int
		status PeerStatus
	}
}

func newPeer(t *Transport, id uint64, address string) *peer {
	p := &peer{t: t, id: id, wake: make(chan struct{}, 1), moved: make(chan struct{}, 1), back: make(chan struct{}, 1)}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.mu.address, p.mu.open = address, true
	p.mu.status.Trouble = errors.New("not connected yet")
	p.calls.peer, p.streams.peer = p, p
	return p
}

func (p *peer) stop() {
	p.cancel()
	p.calls.close()
	p.streams.close()
}

func (p *peer) address() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.address
}

func (p *peer) move(address string) {
	p.mu.Lock()
	same := p.mu.address == address
	p.mu.address = address
	p.mu.Unlock()
	if same {
		return
	}
	p.calls.renew()
	p.streams.renew()
	select {
	case p.moved <- struct{}{}:
	default:
	}
}

// heard says that the node has connected to this one.
func (p *peer) heard() {
	p.mu.Lock()
	connected := p.mu.status.Connected
	p.mu.Unlock()
	if connected {
		return
	}
	select {
	case p.back <- struct{}{}:
	default:
	}
}

func (p *peer) status() PeerStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	status := p.mu.status
	status.NodeID, status.Address, status.QueuedBytes = p.id, p.mu.address, p.mu.bytes
	return status
}

func (p *peer) push(kind uint8, frame []byte) {
	size := len(frame) + frameOverhead
	p.mu.Lock()
	if len(frame) > p.t.config.Limits.FrameBytes {
		p.mu.status.DroppedFrames++
		p.mu.Unlock()
		p.t.config.Logger.Error("a frame is larger than Limits.FrameBytes and was dropped", telemetry.KeyTo, nodeName(p.id), telemetry.KeyBytes, len(frame))
		return
	}
	if !p.mu.open || p.mu.bytes+size > p.t.config.Limits.QueueBytes+frameOverhead {
		p.mu.status.DroppedFrames++
		p.mu.Unlock()
		return
	}
	p.mu.queue = append(p.mu.queue, &transportv1.Frame{Kind: uint32(kind), Data: frame})
	p.mu.bytes += size
	p.mu.Unlock()
	p.rouse()
}

// rouse says that frames wait.
func (p *peer) rouse() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// take returns the next batch, nil if nothing waits.
func (p *peer) take() []*transportv1.Frame {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, bytes := 0, 0
	for n < len(p.mu.queue) && n < batchFrames {
		size := len(p.mu.queue[n].Data) + frameOverhead
		if n > 0 && bytes+size > batchBytes {
			break
		}
		bytes += size
		n++
	}
	if n == 0 {
		return nil
	}
	batch := p.mu.queue[:n:n]
	p.mu.bytes -= bytes
	if p.mu.queue = p.mu.queue[n:]; len(p.mu.queue) == 0 {
		p.mu.queue = nil
	}
	return batch
}

var (
	errHello   = errors.New("the node did not answer the hello in time")
	errStalled = errors.New("the node stopped reading")
	errMoved   = errors.New("the node has a new address")
	errStopped = errors.New("the node was removed from the addresses")
	errAged    = errors.New("the connection is replaced by a new one because of its age")
	errRaised  = errors.New("records of a higher feature level may be written: the node is asked again whether it reads them")
)

// run keeps the node connected.
func (p *peer) run(ctx context.Context) {
	defer context.AfterFunc(ctx, p.cancel)()
	ctx = p.ctx
	timing := p.t.config.Timing
	retry, refusedRetry := timing.Retry, timing.RefusedRetry
	for ctx.Err() == nil {
		select {
		case <-p.moved: // the address that connect takes now
		default:
		}
		connected, err := p.connect(ctx)
		if ctx.Err() != nil {
			p.disconnected(errStopped, false)
			return
		}
		if connected {
			retry, refusedRetry = timing.Retry, timing.RefusedRetry
		}
		if errors.Is(err, errAged) || errors.Is(err, errRaised) {
			continue
		}
		var pause time.Duration
		if refused, ok := errors.AsType[*Refused](err); ok {
			p.refused(refused)
			pause, refusedRetry = vary(refusedRetry), min(2*refusedRetry, timing.RefusedRetryMax)
		} else {
			p.failed(err, connected)
			pause, retry = vary(retry), min(2*retry, timing.RetryMax)
		}
		p.disconnected(err, connected)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-p.back:
			p.reopen()
		case <-p.moved:
			p.reopen()
			retry, refusedRetry = timing.Retry, timing.RefusedRetry
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// vary is a half to one and a half of d.
func vary(d time.Duration) time.Duration { return d/2 + rand.N(d) }

// disconnected throws away what waits. Frames are taken again if there was a connection.
func (p *peer) disconnected(err error, open bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.open = open
	p.mu.status.DroppedFrames += uint64(len(p.mu.queue))
	p.mu.queue, p.mu.bytes = nil, 0
	if p.mu.status.Connected {
		p.mu.status.Connected, p.mu.status.Since = false, time.Now()
	}
	p.mu.status.Trouble = err
}

func (p *peer) reopen() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.open = true
}

func (p *peer) refused(refused *Refused) {
	p.mu.Lock()
	before, _ := errors.AsType[*Refused](p.mu.status.Trouble)
	address := p.mu.address
	p.mu.Unlock()
	if before == nil || before.Reason != refused.Reason {
		p.t.config.Logger.Warn("a node refuses this one", telemetry.KeyTo, nodeName(p.id), telemetry.KeyAddress, address,
			telemetry.KeyReason, refused.Reason.String(), telemetry.KeyError, refused.Message)
	}
	if p.t.config.OnRefused != nil {
		p.t.config.OnRefused(refused)
	}
}

// failed logs the first failure of an outage.
func (p *peer) failed(err error, wasConnected bool) {
	p.mu.Lock()
	first := wasConnected || p.mu.status.Trouble == nil || p.mu.status.Since.IsZero()
	if p.mu.status.Since.IsZero() {
		p.mu.status.Since = time.Now()
	}
	address := p.mu.address
	p.mu.Unlock()
	if first {
		p.t.config.Logger.Warn("no connection to a node; it is tried again for ever", telemetry.KeyTo, nodeName(p.id), telemetry.KeyAddress, address, telemetry.KeyError, err)
	}
}

// connect makes the connection for frames and serves it until it ends. It always returns why, and
// whether there was one.
func (p *peer) connect(ctx context.Context) (connected bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	address := p.address()
	c, err := p.t.dial(ctx, address)
	if err != nil {
		return false, err
	}
	defer c.close()
	// A stream that waits, to write or to read, does not notice that its context has ended; that
	// its connection has, it does.
	defer context.AfterFunc(ctx, c.close)()
	stream, err := c.client.CallClientStream(ctx, framesSpec)
	if err != nil {
		return false, err
	}
	defer stream.Close()
	// because finds the reason behind an error that a cancelled context made.
	because := func(err error) error {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return err
	}
	timer := time.AfterFunc(p.t.config.Timing.Hello, func() { cancel(errHello) })
	defer timer.Stop()
	hello := p.t.hello(p.id)
	if err := stream.Send(&transportv1.FramesRequest{Hello: hello}); err != nil {
		return false, because(p.whyEnded(stream, err))
	}
	var answer transportv1.FramesResponse
	if err := stream.Receive(&answer); err != nil {
		return false, because(err)
	}
	timer.Stop()
	if answer.Refusal != nil {
		return false, refusedBy(p.id, answer.Refusal)
	}
	if answered := answer.GetWelcome().GetNode(); answered != p.id {
		return false, fmt.Errorf("%s was answered by node %s instead of %s", address, nodeName(answered), nodeName(p.id))
	}
	p.connected(answer.Welcome, address)

	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var last transportv1.FramesResponse
		err := stream.Receive(&last)
		if err == nil && last.Refusal != nil {
			err = refusedBy(p.id, last.Refusal)
		}
		if err == nil {
			err = errors.New("the node answered out of turn")
		}
		cancel(fmt.Errorf("the connection ended: %w", err))
	}()
	defer func() {
		cancel(nil)
		_ = stream.Close()
		<-ended
	}()
	aged := time.NewTimer(p.t.config.Timing.ConnectionAge)
	defer aged.Stop()
	stall := time.AfterFunc(time.Hour, func() { cancel(errStalled) })
	stall.Stop()
	defer stall.Stop()
	for {
		select {
		case <-ctx.Done():
			return true, context.Cause(ctx)
		case <-p.moved:
			p.reopen()
			p.mark() // connect again at once
			return true, errMoved
		case <-aged.C:
			// What was written is delivered before the other end ends the stream.
			if err := stream.CloseSend(); err != nil {
				return true, because(err)
			}
			last := time.NewTimer(p.t.config.Timing.Hello)
			defer last.Stop()
			select {
			case <-ended:
			case <-last.C:
			}
			return true, errAged
		case <-p.wake:
		}
		if p.t.config.writtenLevel() > hello.WrittenLevel {
			p.rouse() // the next connection sends what waits, which nobody else may tell it of
			return true, errRaised
		}
		for batch := p.take(); batch != nil; batch = p.take() {
			stall.Reset(p.t.config.Timing.Stall)
			err := stream.Send(&transportv1.FramesRequest{Frames: batch, Durable: p.t.config.claim().Durable})
			stall.Stop()
			if err != nil {
				// The goroutine that receives hears why, if the other end said.
				select {
				case <-ended:
				case <-ctx.Done():
				}
				return true, because(err)
			}
		}
	}
}

// mark leaves a note in moved that run finds at once.
func (p *peer) mark() {
	select {
	case p.moved <- struct{}{}:
	default:
	}
}

// whyEnded is what the other end said when it didn't take a message.
func (p *peer) whyEnded(stream interface{ Receive(any) error }, err error) error {
	var last transportv1.FramesResponse
	if received := stream.Receive(&last); received != nil {
		return errors.Join(err, received)
	}
	if last.Refusal != nil {
		return refusedBy(p.id, last.Refusal)
	}
	return err
}

func (p *peer) connected(welcome *transportv1.Welcome, address string) {
	select {
	case <-p.back: // no news any more
	default:
	}
	p.mu.Lock()
	p.mu.open = true
	again := p.mu.status.Connected
	p.mu.status.Connected, p.mu.status.Since, p.mu.status.Trouble = true, time.Now(), nil
	p.mu.status.Version, p.mu.status.Build = welcome.Version, welcome.Build
	p.mu.Unlock()
	if again { // a connection replaced by age
		return
	}
	p.t.config.Logger.Info("connected to a node", telemetry.KeyTo, nodeName(p.id), telemetry.KeyAddress, address)
	if p.t.config.OnPeer != nil {
		p.t.config.OnPeer(p.id, welcome.Version, welcome.Build)
	}
}

// nodeName is a node id as it is written everywhere.
func nodeName(id uint64) string { return fmt.Sprintf("%016x", id) }
