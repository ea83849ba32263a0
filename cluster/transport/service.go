package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	"github.com/perdure/perdure/internal/telemetry"
	transportv1 "github.com/perdure/perdure/internal/transport/v1"
)

// service is the callee's side.
type service struct {
	t   *Transport
	mux *http.ServeMux
	mu  struct {
		sync.Mutex
		from map[uint64]*inbound
		// stopping refuses calls with an answer, closed all requests without one.
		stopping, closed bool
		// Under way. When there is none any more, quiet and idle are closed.
		calls, active int
		quiet, idle   chan struct{}
		// lasting are frames and streams under way; ending cuts them, and those that follow.
		lasting map[*http.ResponseController]bool
		ending  bool
	}
}

// inbound is what one other node has under way here.
type inbound struct {
	calls, streams int    // guarded by service.mu
	refused        Reason // why last, of those that are logged; likewise
	// frames is held while a batch is given to the handler. current is the newest of the node's
	// streams of frames, and the only one whose frames are delivered: a stream that it replaced
	// may still be read after the next one began, and its frames would come late.
	frames  sync.Mutex
	current *int
}

func newService(t *Transport) *service {
	s := &service{t: t, mux: http.NewServeMux()}
	s.mu.from, s.mu.lasting = map[uint64]*inbound{}, map[*http.ResponseController]bool{}
	s.mu.quiet, s.mu.idle = make(chan struct{}), make(chan struct{})
	server := connect.NewServer()
	server.Register(
		connect.Method{Spec: framesSpec, Handler: s.frames},
		connect.Method{Spec: callSpec, Handler: s.call},
		connect.Method{Spec: streamSpec, Handler: s.stream})
	connecthttp.Mount(s.mux, server, append(t.options(), connecthttp.WithReadMaxBytes(t.readBytes()))...)
	return s
}

type acceptedKey struct{}

func (s *service) server(base context.Context) *http.Server {
	config := s.t.config
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true) // for a sentence to who took the port for another
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(s.t.tls == nil)
	server := &http.Server{
		Handler:     s,
		Protocols:   protocols,
		BaseContext: func(net.Listener) context.Context { return base },
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			return context.WithValue(ctx, acceptedKey{}, time.Now())
		},
		MaxHeaderBytes:    64 << 10,
		ReadHeaderTimeout: config.Timing.Hello,
		IdleTimeout:       max(2*config.Timing.ConnectionAge, time.Minute),
		HTTP2: &http.HTTP2Config{
			// Those who keep to the limits never wait for a stream.
			MaxConcurrentStreams:          config.Limits.Calls + config.Limits.Streams + 16,
			MaxReadFrameSize:              1 << 20,
			MaxReceiveBufferPerConnection: maxWindow,
			MaxReceiveBufferPerStream:     maxWindow,
			SendPingTimeout:               config.Timing.Ping,
			PingTimeout:                   config.Timing.PingTimeout,
			WriteByteTimeout:              config.Timing.Ping + config.Timing.PingTimeout,
		},
		ErrorLog: slog.NewLogLogger(config.Logger.Handler(), slog.LevelDebug),
	}
	if s.t.tls != nil {
		server.TLSConfig = s.t.tls.Server()
		// A peer with a bad certificate keeps coming: its mistake is this operator's too.
		server.ErrorLog = slog.NewLogLogger(config.Logger.Handler(), slog.LevelWarn)
	}
	return server
}

// ServeHTTP keeps count of what is under way, ends connections that are too old, and survives
// handlers that panic.
func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor < 2 {
		http.Error(w, "this is a transport port of Perdure, for its nodes only; calls go to the ingress port", http.StatusHTTPVersionNotSupported)
		return
	}
	isCall := r.URL.Path == callSpec.Procedure
	if !s.begin(isCall) {
		http.Error(w, "the node has stopped", http.StatusServiceUnavailable)
		return
	}
	defer s.end(isCall)
	if accepted, ok := r.Context().Value(acceptedKey{}).(time.Time); ok && time.Since(accepted) > 2*s.t.config.Timing.ConnectionAge {
		w.Header().Set("Connection", "close") // to net/http: send GOAWAY
	}
	if !isCall {
		controller := http.NewResponseController(w)
		_ = controller.SetReadDeadline(time.Now().Add(s.t.config.Timing.Hello)) // cleared after the hello
		r = r.WithContext(context.WithValue(r.Context(), controllerKey{}, controller))
		defer s.forget(controller)
	}
	defer func() {
		if reason := recover(); reason != nil {
			if reason != http.ErrAbortHandler {
				s.t.config.Logger.Error("a handler of the transport panicked", telemetry.KeyPanic, fmt.Sprint(reason), telemetry.KeyStack, string(debug.Stack()))
			}
			panic(http.ErrAbortHandler) // the caller's outcome is unknown
		}
	}()
	s.mux.ServeHTTP(w, r)
}

type controllerKey struct{}

// heard says that the hello of frames or of a stream has come: what follows may take its time.
func (s *service) heard(ctx context.Context) {
	controller, ok := ctx.Value(controllerKey{}).(*http.ResponseController)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.mu.ending {
		s.mu.lasting[controller] = true
		_ = controller.SetReadDeadline(time.Time{})
	}
}

func (s *service) forget(controller *http.ResponseController) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mu.lasting, controller)
}

func (s *service) begin(isCall bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return false
	}
	s.mu.active++
	if isCall {
		s.mu.calls++
	}
	return true
}

func (s *service) end(isCall bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.active--; s.mu.active == 0 && s.mu.closed {
		closeOnce(s.mu.idle)
	}
	if isCall {
		if s.mu.calls--; s.mu.calls == 0 && s.mu.stopping {
			closeOnce(s.mu.quiet)
		}
	}
}

func closeOnce(c chan struct{}) {
	select {
	case <-c:
	default:
		close(c)
	}
}

// drain refuses what comes from now on, waits for calls under way and until their responses have
// left, and cuts the rest.
func (s *service) drain(server *http.Server, limit time.Duration) {
	s.mu.Lock()
	s.mu.stopping = true
	if s.mu.calls == 0 {
		closeOnce(s.mu.quiet)
	}
	s.mu.Unlock()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-s.mu.quiet:
	case <-timer.C:
		return
	}
	s.mu.Lock()
	s.mu.ending = true
	for controller := range s.mu.lasting {
		_ = controller.SetReadDeadline(time.Now())
	}
	s.mu.Unlock()
	// net/http doesn't say when a response has left: it gets this long, with the news for callers
	// that the connection takes no more. HTTP/2 connections stay open for longer than that.
	ctx, cancel := context.WithTimeout(context.Background(), flushTime)
	defer cancel()
	_ = server.Shutdown(ctx)
}

const flushTime = 100 * time.Millisecond

// wait lets no request in any more, and returns when none is under way: their contexts are done
// and their connections closed. One whose handler does not heed that for longer than limit is left behind.
func (s *service) wait(limit time.Duration) {
	s.mu.Lock()
	s.mu.closed = true
	if s.mu.active == 0 {
		closeOnce(s.mu.idle)
	}
	s.mu.Unlock()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-s.mu.idle:
	case <-timer.C:
		s.t.config.Logger.Error("handlers of other nodes' requests did not end when their contexts did, and are left behind", telemetry.KeyDuration, limit)
	}
}

// admit checks a hello.
func (s *service) admit(hello *transportv1.Hello, method string) (uint32, *Refused) {
	s.mu.Lock()
	stopping := s.mu.stopping
	s.mu.Unlock()
	if stopping {
		return 0, &Refused{Node: s.t.config.NodeID, Reason: ReasonNotReady, Message: "this node is stopping: call it when it has restarted, or another one"}
	}
	version, refused := s.t.config.Check(*s.t.clusterID.Load(), Hello{
		ClusterID: hello.GetClusterId(), From: hello.GetFrom(), To: hello.GetTo(),
		Versions: Versions{hello.GetMinVersion(), hello.GetMaxVersion()}, Build: hello.GetBuild(),
		FeatureLevel: hello.GetFeatureLevel(), WrittenLevel: hello.GetWrittenLevel(),
		Log: LogClaim{Process: hello.GetLog().GetProcess(), Opened: hello.GetLog().GetOpened(), Durable: hello.GetLog().GetDurable()},
	}, method)
	s.tell(hello.GetFrom(), refused)
	return version, refused
}

// tell says what does not only concern the node that is refused.
func (s *service) tell(from uint64, refused *Refused) {
	if refused == nil || refused.Reason != ReasonCallerTooOld && refused.Reason != ReasonCalleeTooOld && refused.Reason != ReasonStale {
		return
	}
	s.mu.Lock()
	in := s.inboundLocked(from)
	first := in.refused != refused.Reason
	in.refused = refused.Reason
	s.mu.Unlock()
	if first {
		what := "a node is refused: a program is too old for this cluster"
		if refused.Reason == ReasonStale {
			what = "a node is refused: its data is older than what it has acknowledged"
		}
		s.t.config.Logger.Error(what, telemetry.KeyTo, nodeName(from),
			telemetry.KeyReason, refused.Reason.String(), telemetry.KeyError, refused.Message)
	}
	if refused.Reason == ReasonCalleeTooOld && s.t.config.OnTooOld != nil {
		s.t.config.OnTooOld(refused)
	}
}

func refusal(refused *Refused) *transportv1.Refusal {
	return &transportv1.Refusal{Reason: transportv1.Reason(refused.Reason), Message: refused.Message}
}

// enter counts a call or stream of a node, whose count is *of(its inbound).
func (s *service) enter(from uint64, of func(*inbound) *int, limit int, what string) (leave func(), refused *Refused) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.inboundLocked(from)
	count := of(in)
	if *count >= limit {
		return nil, &Refused{Node: s.t.config.NodeID, Reason: ReasonBusy, Message: fmt.Sprintf("node %016x has %d %s under way here, which is the limit: try again when some have ended", from, limit, what)}
	}
	*count++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		*count--
	}, nil
}

func (s *service) inboundLocked(from uint64) *inbound {
	in := s.mu.from[from]
	if in == nil {
		in = &inbound{}
		s.mu.from[from] = in
	}
	return in
}

func (s *service) call(ctx context.Context, _ connect.Spec, stream connect.ServerStream) error {
	var request transportv1.CallRequest
	if err := stream.Receive(&request); err != nil {
		return err
	}
	_, refused := s.admit(request.Hello, request.Method)
	from := request.Hello.GetFrom()
	if refused == nil {
		var leave func()
		if leave, refused = s.enter(from, func(in *inbound) *int { return &in.calls }, s.t.config.Limits.Calls, "calls"); refused == nil {
			defer leave()
		}
	}
	if refused != nil {
		return stream.Send(&transportv1.CallResponse{Refusal: refusal(refused)})
	}
	response, err := s.t.config.Handler.Call(ctx, from, request.Method, request.Request)
	if err != nil {
		return stream.Send(&transportv1.CallResponse{Error: s.wire(err)})
	}
	if err := s.fits(response); err != nil {
		return stream.Send(&transportv1.CallResponse{Error: err})
	}
	return stream.Send(&transportv1.CallResponse{Response: response})
}

func (s *service) wire(err error) *transportv1.Error {
	e := handlerError(err)
	if tooLarge := s.fits(e.Details); tooLarge != nil {
		e.Details = nil
	}
	return &transportv1.Error{Code: e.Code, Message: strings.ToValidUTF8(e.Message, "�"), Details: e.Details}
}

// codeResourceExhausted is that of Connect and gRPC.
const codeResourceExhausted = 8

func (s *service) fits(response []byte) *transportv1.Error {
	if most := s.t.config.Limits.RequestBytes; len(response) > most {
		return &transportv1.Error{Code: codeResourceExhausted, Message: fmt.Sprintf("the response is %d bytes, and Limits.RequestBytes is %d", len(response), most)}
	}
	return nil
}

func (s *service) frames(ctx context.Context, _ connect.Spec, stream connect.ServerStream) error {
	var first transportv1.FramesRequest
	if err := stream.Receive(&first); err != nil {
		return err
	}
	s.heard(ctx)
	version, refused := s.admit(first.Hello, "")
	if refused != nil {
		return stream.Send(&transportv1.FramesResponse{Refusal: refusal(refused)})
	}
	from := first.Hello.From
	s.mu.Lock()
	in := s.inboundLocked(from)
	s.mu.Unlock()
	session := new(int)
	in.frames.Lock()
	in.current = session
	in.frames.Unlock()
	if err := stream.Send(&transportv1.FramesResponse{Welcome: &transportv1.Welcome{Node: s.t.config.NodeID, Version: version, Build: s.t.config.Build}}); err != nil {
		return err
	}
	if p := (*s.t.peers.Load())[from]; p != nil {
		p.heard()
	}
	began := time.Now()
	for {
		// A new one each time: the handler keeps the frames.
		var request transportv1.FramesRequest
		if err := stream.Receive(&request); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if first.Hello.Log != nil {
			first.Hello.Log.Durable = max(first.Hello.Log.Durable, request.Durable)
		}
		if _, refused := s.admit(first.Hello, ""); refused != nil {
			return stream.Send(&transportv1.FramesResponse{Refusal: refusal(refused)})
		}
		if !s.deliver(in, session, from, request.Frames) {
			return connect.NewError(connect.CodeAborted, "a newer stream of this node took its place")
		}
		if time.Since(began) > 2*s.t.config.Timing.ConnectionAge {
			return connect.NewError(connect.CodeAborted, "the connection is too old")
		}
	}
}

func (s *service) deliver(in *inbound, session *int, from uint64, frames []*transportv1.Frame) bool {
	in.frames.Lock()
	defer in.frames.Unlock()
	if in.current != session {
		return false
	}
	for _, frame := range frames {
		s.t.config.Handler.Frame(from, uint8(frame.Kind), frame.Data)
	}
	return true
}

func (s *service) stream(ctx context.Context, _ connect.Spec, stream connect.ServerStream) error {
	var first transportv1.StreamRequest
	if err := stream.Receive(&first); err != nil {
		return err
	}
	s.heard(ctx)
	_, refused := s.admit(first.Hello, "")
	from := first.Hello.GetFrom()
	if refused == nil {
		var leave func()
		if leave, refused = s.enter(from, func(in *inbound) *int { return &in.streams }, s.t.config.Limits.Streams, "streams"); refused == nil {
			defer leave()
		}
	}
	if refused != nil {
		return stream.Send(&transportv1.StreamResponse{Refusal: refusal(refused)})
	}
	ended := false
	next := func() ([]byte, error) {
		if ended {
			return nil, io.EOF
		}
		var request transportv1.StreamRequest
		switch err := stream.Receive(&request); {
		case errors.Is(err, io.EOF):
			// Without its last message a stream is not whole, however it ended.
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, fmt.Errorf("the stream was cut: %w", notEOF(err))
		case request.End:
			ended = true
			return nil, io.EOF
		}
		return request.Chunk, nil
	}
	response, err := s.t.config.Handler.Stream(ctx, from, first.Method, first.Header, next)
	if err != nil {
		return stream.Send(&transportv1.StreamResponse{Error: s.wire(err)})
	}
	if err := s.fits(response); err != nil {
		return stream.Send(&transportv1.StreamResponse{Error: err})
	}
	return stream.Send(&transportv1.StreamResponse{Response: response})
}

// notEOF hides an io.EOF inside of err, which would read as the end of the stream.
func notEOF(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
