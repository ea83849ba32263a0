package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"

	transportv1 "github.com/perdure/perdure/internal/transport/v1"
)

var (
	methods    = transportv1.File_perdure_transport_v1_transport_proto.Services().ByName("TransportService").Methods()
	framesSpec = connect.Spec{StreamType: connect.StreamTypeBidi, Procedure: "/perdure.transport.v1.TransportService/Frames", Schema: methods.ByName("Frames")}
	callSpec   = connect.Spec{StreamType: connect.StreamTypeUnary, Procedure: "/perdure.transport.v1.TransportService/Call", Schema: methods.ByName("Call")}
	streamSpec = connect.Spec{StreamType: connect.StreamTypeClient, Procedure: "/perdure.transport.v1.TransportService/Stream", Schema: methods.ByName("Stream")}
)

// failure is an error of Call or Stream that no handler returned. kind is ErrUnreachable or
// ErrUnknown.
type failure struct {
	what string
	to   uint64
	kind error
	err  error
}

func (f *failure) Error() string {
	return fmt.Sprintf("%s node %016x: %v: %v", f.what, f.to, f.kind, f.err)
}

func (f *failure) Unwrap() []error { return []error{f.kind, f.err} }

// enter counts what is under way to a node, up to a limit.
func enter(now *atomic.Int64, limit int, what string, to uint64) error {
	if now.Add(1) > int64(limit) {
		now.Add(-1)
		return &Refused{Node: to, Reason: ReasonBusy, Message: fmt.Sprintf("%d %s to it are under way, which is the limit: try again when some have ended", limit, what)}
	}
	return nil
}

// find returns the peer for a request whose parts have the given sizes.
func (t *Transport) find(what string, to uint64, bytes int) (*peer, error) {
	if bytes > t.config.Limits.RequestBytes {
		return nil, &failure{what, to, ErrUnreachable, fmt.Errorf("the request is %d bytes, and Limits.RequestBytes is %d", bytes, t.config.Limits.RequestBytes)}
	}
	p := (*t.peers.Load())[to]
	if p == nil {
		return nil, &failure{what, to, ErrUnreachable, errors.New("no address of the node is known")}
	}
	return p, nil
}

// Call implements Messenger.
func (t *Transport) Call(ctx context.Context, to uint64, method string, request []byte) ([]byte, error) {
	p, err := t.find("call", to, len(request))
	if err != nil {
		return nil, err
	}
	if err := enter(&p.callsNow, t.config.Limits.Calls, "calls", to); err != nil {
		return nil, err
	}
	defer p.callsNow.Add(-1)
	message := &transportv1.CallRequest{Hello: t.hello(to), Method: method, Request: request}
	var response transportv1.CallResponse
	for again := true; ; again = false {
		s, err := p.calls.acquire(ctx)
		if err != nil {
			return nil, &failure{"call", to, ErrUnreachable, err}
		}
		err = s.client.CallUnary(ctx, callSpec, message, &response)
		if _, ok := errors.AsType[unsent](err); ok {
			// The connection went away after it was acquired.
			p.calls.retire(s)
			p.calls.release(s)
			if again {
				continue
			}
			return nil, &failure{"call", to, ErrUnreachable, err}
		}
		p.calls.release(s)
		if err != nil {
			return nil, &failure{"call", to, ErrUnknown, ctxError(ctx, err)}
		}
		return outcome(to, response.Refusal, response.Error, response.Response)
	}
}

// Ask is Call before Run, to a node at an address, on a connection of its own.
func (t *Transport) Ask(ctx context.Context, to uint64, address, method string, request []byte) ([]byte, error) {
	c, err := t.dial(ctx, address)
	if err != nil {
		return nil, &failure{"call", to, ErrUnreachable, err}
	}
	defer c.close()
	var response transportv1.CallResponse
	err = c.client.CallUnary(ctx, callSpec, &transportv1.CallRequest{Hello: t.hello(to), Method: method, Request: request}, &response)
	if err != nil {
		return nil, &failure{"call", to, ErrUnknown, ctxError(ctx, err)}
	}
	return outcome(to, response.Refusal, response.Error, response.Response)
}

// ctxError makes errors.Is find the context's error, which layers below may have translated.
func ctxError(ctx context.Context, err error) error {
	if ended := ctx.Err(); ended != nil && !errors.Is(err, ended) {
		return fmt.Errorf("%w: %w", ended, err)
	}
	return err
}

func outcome(to uint64, refusal *transportv1.Refusal, failed *transportv1.Error, response []byte) ([]byte, error) {
	switch {
	case refusal != nil:
		return nil, refusedBy(to, refusal)
	case failed != nil:
		return nil, &Error{Code: failed.Code, Message: failed.Message, Details: failed.Details}
	}
	return response, nil
}

// Stream implements Messenger.
func (t *Transport) Stream(ctx context.Context, to uint64, method string, header []byte, next func() ([]byte, error)) ([]byte, error) {
	p, err := t.find("stream to", to, len(header))
	if err != nil {
		return nil, err
	}
	if err := enter(&p.streamsNow, t.config.Limits.Streams, "streams", to); err != nil {
		return nil, err
	}
	defer p.streamsNow.Add(-1)
	s, err := p.streams.acquire(ctx)
	if err != nil {
		return nil, &failure{"stream to", to, ErrUnreachable, err}
	}
	defer p.streams.release(s)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	fail := func(err error) ([]byte, error) {
		kind := ErrUnknown
		if _, ok := errors.AsType[unsent](err); ok {
			p.streams.retire(s)
			kind = ErrUnreachable
		}
		if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
			err = fmt.Errorf("%w: %w", cause, err)
		}
		return nil, &failure{"stream to", to, kind, err}
	}
	stream, err := s.client.CallClientStream(ctx, streamSpec)
	if err != nil {
		return fail(err)
	}
	defer stream.Close()
	stall := time.AfterFunc(time.Hour, func() { cancel(errStalled) })
	stall.Stop()
	defer stall.Stop()
	for message := (&transportv1.StreamRequest{Hello: t.hello(to), Method: method, Header: header}); ; {
		stall.Reset(t.config.Timing.Stall)
		err := stream.Send(message)
		stall.Stop()
		if errors.Is(err, io.EOF) {
			break // the other node has answered already, or the connection is gone: Receive tells
		}
		if err != nil {
			return fail(err)
		}
		if message.End {
			break
		}
		chunk, err := next()
		switch {
		case errors.Is(err, io.EOF):
			message = &transportv1.StreamRequest{End: true}
		case err != nil:
			// Cancelled by the deferred call, the stream is cut for the handler too.
			return fail(fmt.Errorf("what was to be sent: %w", err))
		case len(chunk) > t.config.Limits.FrameBytes:
			return fail(fmt.Errorf("a chunk is %d bytes, and Limits.FrameBytes is %d", len(chunk), t.config.Limits.FrameBytes))
		default:
			message = &transportv1.StreamRequest{Chunk: chunk}
		}
	}
	if err := stream.CloseSend(); err != nil && !errors.Is(err, io.EOF) {
		return fail(err)
	}
	var response transportv1.StreamResponse
	if err := stream.Receive(&response); err != nil {
		return fail(err)
	}
	return outcome(to, response.Refusal, response.Error, response.Response)
}
