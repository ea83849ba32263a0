package memory

import (
	"context"
	"sync"
	"time"

	"github.com/perdure/perdure/cluster/transport"
)

// overhead is counted for each frame that waits, as on the network.
const overhead = 64

// link carries frames to one other node.
type link struct {
	from    *Transport
	to      uint64
	address string
	ctx     context.Context
	cancel  context.CancelFunc
	wake    chan struct{}
	mu      struct {
		sync.Mutex
		open  bool
		queue []waiting
		bytes int
	}
}

type waiting struct {
	kind uint8
	data []byte
	at   time.Time // when it was sent
}

func newLink(from *Transport, to uint64, address string) *link {
	l := &link{from: from, to: to, address: address, wake: make(chan struct{}, 1)}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.mu.open = true
	return l
}

func (l *link) push(kind uint8, data []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	limits := l.from.config.Limits
	if len(data) > limits.FrameBytes || !l.mu.open || l.mu.bytes+len(data)+overhead > limits.QueueBytes+overhead {
		return
	}
	l.mu.queue = append(l.mu.queue, waiting{kind, data, time.Now()})
	l.mu.bytes += len(data) + overhead
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *link) pop() (waiting, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.mu.queue) == 0 {
		return waiting{}, false
	}
	next := l.mu.queue[0]
	l.mu.queue = l.mu.queue[1:]
	l.mu.bytes -= len(next.data) + overhead
	return next, true
}

func (l *link) message(kind Kind) Message {
	return Message{From: l.from.config.NodeID, To: l.to, Kind: kind}
}

func (l *link) run() {
	timing := l.from.config.Timing
	retry, refusedRetry := timing.Retry, timing.RefusedRetry
	for l.ctx.Err() == nil {
		node, refused := l.connect()
		if node != nil {
			l.mu.Lock()
			l.mu.open = true
			l.mu.Unlock()
			retry, refusedRetry = timing.Retry, timing.RefusedRetry
			refused = l.serve(node)
		}
		pause := retry
		if refused != nil {
			pause, refusedRetry = refusedRetry, min(2*refusedRetry, timing.RefusedRetryMax)
			if l.from.config.OnRefused != nil {
				l.from.config.OnRefused(refused)
			}
		} else {
			retry = min(2*retry, timing.RetryMax)
		}
		l.mu.Lock()
		l.mu.open = node != nil
		l.mu.queue, l.mu.bytes = nil, 0
		l.mu.Unlock()
		sleep(pause, l.ctx)
	}
}

// connect returns the node at the other end, nil if there is none.
func (l *link) connect() (*Transport, *transport.Refused) {
	fate := l.from.network.fate(l.message(Hello))
	if fate.Cut {
		sleep(l.from.config.Timing.Dial, l.ctx)
		return nil, nil
	}
	if !sleep(fate.Delay, l.ctx) {
		return nil, nil
	}
	node := l.from.network.at(l.address)
	if node == nil {
		return nil, nil
	}
	version, refused := node.check(l.from, l.to, "")
	if refused != nil {
		return nil, refused
	}
	if l.from.config.OnPeer != nil {
		l.from.config.OnPeer(l.to, version, node.config.Build)
	}
	return node, nil
}

// serve delivers frames until the other node stops or refuses, or the link is cut for so long
// that a ping would notice.
func (l *link) serve(node *Transport) *transport.Refused {
	// The handler runs on a goroutine of its own node: the one that waits if it blocks.
	arriving := make(chan waiting)
	defer close(arriving)
	if !node.receive(l.from.config.NodeID, arriving) {
		return nil
	}
	var cutSince time.Time
	for {
		select {
		case <-l.ctx.Done():
			return nil
		case <-node.running().Done():
			return nil
		case <-l.wake:
		}
		for {
			next, ok := l.pop()
			if !ok {
				break
			}
			message := l.message(Frame)
			message.FrameKind, message.Bytes = next.kind, len(next.data)
			fate := l.from.network.fate(message)
			if fate.Cut {
				if cutSince.IsZero() {
					cutSince = time.Now()
				}
				if time.Since(cutSince) >= l.from.config.Timing.Ping+l.from.config.Timing.PingTimeout {
					return nil
				}
				continue
			}
			cutSince = time.Time{}
			if fate.Lost {
				continue
			}
			if !sleep(fate.Delay-time.Since(next.at), l.ctx, node.running()) {
				return nil
			}
			if _, refused := node.check(l.from, l.to, ""); refused != nil {
				return refused
			}
			select {
			case arriving <- next:
			case <-l.ctx.Done():
				return nil
			case <-node.running().Done():
				return nil
			}
		}
	}
}

// receive gives what arrives to the handler; it reports whether the node runs.
func (t *Transport) receive(from uint64, arriving <-chan waiting) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.running == nil || t.mu.running.Err() != nil {
		return false
	}
	delivering := t.inboundLocked(from).delivering
	t.goroutines.Go(func() {
		for frame := range arriving {
			delivering <- struct{}{}
			t.config.Handler.Frame(from, frame.kind, frame.data)
			<-delivering
		}
	})
	return true
}

func (t *Transport) running() context.Context {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.running
}
