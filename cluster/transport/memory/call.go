package memory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/perdure/perdure/cluster/transport"
)

func unreachable(what string, to uint64, err error) error {
	return fmt.Errorf("%s node %016x: %w: %w", what, to, transport.ErrUnreachable, err)
}

func unknown(what string, to uint64, err error) error {
	return fmt.Errorf("%s node %016x: %w: %w", what, to, transport.ErrUnknown, err)
}

// reach brings a first message to the callee, which lets it in.
func (t *Transport) reach(ctx context.Context, what string, to uint64, method string, size int) (*Transport, *link, error) {
	if most := t.config.Limits.RequestBytes; size > most {
		return nil, nil, unreachable(what, to, fmt.Errorf("the request is %d bytes, and Limits.RequestBytes is %d", size, most))
	}
	l := t.link(to)
	if l == nil {
		return nil, nil, unreachable(what, to, errors.New("no address of the node is known, or the transport does not run"))
	}
	message := l.message(Request)
	message.Method, message.Bytes = method, size
	fate := t.network.fate(message)
	if fate.Cut || fate.Lost {
		sleep(t.config.Timing.Dial, ctx, l.ctx)
		return nil, nil, unreachable(what, to, fmt.Errorf("no connection within %v", t.config.Timing.Dial))
	}
	if !sleep(fate.Delay, ctx, l.ctx) {
		return nil, nil, unknown(what, to, cmpErr(ctx.Err(), errors.New("the node was removed from the addresses")))
	}
	node := t.network.at(l.address)
	if node == nil {
		return nil, nil, unreachable(what, to, fmt.Errorf("nobody is at %s", l.address))
	}
	if _, refused := node.check(t, to, method); refused != nil {
		return nil, nil, refused
	}
	return node, l, nil
}

func cmpErr(first, second error) error {
	if first != nil {
		return first
	}
	return second
}

type result struct {
	response []byte
	err      error
}

// begin runs a handler on a goroutine of the callee, with a context that ends with either side.
func (t *Transport) begin(ctx context.Context, from uint64, isCall bool, handle func(ctx context.Context) ([]byte, error)) (<-chan result, *transport.Refused) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.running == nil || t.mu.running.Err() != nil {
		return nil, &transport.Refused{Node: t.config.NodeID, Reason: transport.ReasonNotReady, Message: "this node is stopping"}
	}
	in := t.inboundLocked(from)
	count, limit := &in.streams, t.config.Limits.Streams
	if isCall {
		count, limit = &in.calls, t.config.Limits.Calls
	}
	if *count >= limit {
		return nil, &transport.Refused{Node: t.config.NodeID, Reason: transport.ReasonBusy, Message: fmt.Sprintf("node %016x has %d calls or streams under way here, which is the limit", from, limit)}
	}
	*count++
	if isCall {
		t.mu.calls++
	}
	handling, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(t.mu.running, cancel)
	results := make(chan result, 1)
	t.goroutines.Go(func() {
		defer cancel()
		defer stop()
		response, err := handle(handling)
		if most := t.config.Limits.RequestBytes; err == nil && len(response) > most {
			err = &transport.Error{Code: 8, Message: fmt.Sprintf("the response is %d bytes, and Limits.RequestBytes is %d", len(response), most)}
		}
		t.mu.Lock()
		*count--
		if isCall {
			if t.mu.calls--; t.mu.calls == 0 && t.mu.quiet != nil {
				close(t.mu.quiet)
				t.mu.quiet = nil
			}
		}
		t.mu.Unlock()
		results <- result{response, err}
	})
	return results, nil
}

// answer brings the response back.
func (t *Transport) answer(ctx context.Context, what string, node *Transport, l *link, method string, results <-chan result) ([]byte, error) {
	var got result
	select {
	case got = <-results:
	case <-ctx.Done():
		return nil, unknown(what, l.to, ctx.Err())
	case <-l.ctx.Done():
		return nil, unknown(what, l.to, errors.New("the node was removed from the addresses"))
	case <-node.running().Done():
		return nil, unknown(what, l.to, errors.New("the node stopped"))
	}
	message := Message{From: l.to, To: t.config.NodeID, Kind: Response, Method: method, Bytes: len(got.response)}
	fate := t.network.fate(message)
	if fate.Cut || fate.Lost {
		sleep(t.config.Timing.Ping+t.config.Timing.PingTimeout, ctx, l.ctx)
		return nil, unknown(what, l.to, cmpErr(ctx.Err(), errors.New("the node answers no ping")))
	}
	if !sleep(fate.Delay, ctx, l.ctx) {
		return nil, unknown(what, l.to, cmpErr(ctx.Err(), errors.New("the node was removed from the addresses")))
	}
	if got.err != nil {
		coded, ok := errors.AsType[*transport.Error](got.err)
		if !ok {
			return nil, &transport.Error{Code: 2, Message: got.err.Error()}
		}
		clone := *coded
		if clone.Code == 0 {
			clone.Code = 2
		}
		return nil, &clone
	}
	return slices.Clone(got.response), nil
}

// Call implements transport.Messenger.
func (t *Transport) Call(ctx context.Context, to uint64, method string, request []byte) ([]byte, error) {
	node, l, err := t.reach(ctx, "call", to, method, len(request))
	if err != nil {
		return nil, err
	}
	request = slices.Clone(request)
	from := t.config.NodeID
	results, refused := node.begin(ctx, from, true, func(ctx context.Context) ([]byte, error) {
		return node.config.Handler.Call(ctx, from, method, request)
	})
	if refused != nil {
		return nil, refused
	}
	return t.answer(ctx, "call", node, l, method, results)
}

// Stream implements transport.Messenger.
func (t *Transport) Stream(ctx context.Context, to uint64, method string, header []byte, next func() ([]byte, error)) ([]byte, error) {
	const what = "stream to"
	node, l, err := t.reach(ctx, what, to, method, len(header))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	header = slices.Clone(header)
	from := t.config.NodeID
	// A few chunks may be under way; a nil one is the end.
	chunks := make(chan *[]byte, 4)
	done := make(chan struct{})
	results, refused := node.begin(ctx, from, false, func(ctx context.Context) ([]byte, error) {
		defer close(done)
		ended := false
		return node.config.Handler.Stream(ctx, from, method, header, func() ([]byte, error) {
			if ended {
				return nil, io.EOF
			}
			select {
			case chunk := <-chunks:
				if chunk == nil {
					ended = true
					return nil, io.EOF
				}
				return *chunk, nil
			case <-ctx.Done():
				return nil, fmt.Errorf("the stream was cut: %w", io.ErrUnexpectedEOF)
			}
		})
	})
	if refused != nil {
		return nil, refused
	}
	for ended := false; !ended; {
		chunk, err := next()
		var sent *[]byte
		switch {
		case errors.Is(err, io.EOF):
			ended = true
		case err != nil:
			return nil, unknown(what, to, fmt.Errorf("what was to be sent: %w", err))
		case len(chunk) > t.config.Limits.FrameBytes:
			return nil, unknown(what, to, fmt.Errorf("a chunk is %d bytes, and Limits.FrameBytes is %d", len(chunk), t.config.Limits.FrameBytes))
		default:
			clone := slices.Clone(chunk)
			sent = &clone
		}
		message := l.message(Request)
		message.Method, message.Bytes = method, len(chunk)
		fate := t.network.fate(message)
		if fate.Cut || fate.Lost {
			sleep(t.config.Timing.Ping+t.config.Timing.PingTimeout, ctx, l.ctx)
			return nil, unknown(what, to, cmpErr(ctx.Err(), errors.New("the node answers no ping")))
		}
		if !sleep(fate.Delay, ctx, l.ctx) {
			return nil, unknown(what, to, cmpErr(ctx.Err(), errors.New("the node was removed from the addresses")))
		}
		select {
		case chunks <- sent:
		case <-done:
			ended = true // the handler has answered without reading all
		case <-ctx.Done():
			return nil, unknown(what, to, ctx.Err())
		case <-l.ctx.Done():
			return nil, unknown(what, to, errors.New("the node was removed from the addresses"))
		}
	}
	return t.answer(ctx, what, node, l, method, results)
}
