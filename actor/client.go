package actor

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
)

// Transport carries the calls of a [Client]. Its errors are *Error; anything else counts as code
// unknown. Its methods are safe for concurrent use and end when ctx does.
type Transport interface {
	// Call makes one try at a call and returns the response.
	Call(ctx context.Context, call CallRequest) (proto.Message, error)
	// Send makes one try at a send and returns the invocation's id once it is durable.
	Send(ctx context.Context, call CallRequest) (invocationID string, err error)
	// Attach waits for an invocation and decodes its response.
	Attach(ctx context.Context, invocationID string, into proto.Message) error
	// AttachKey waits for the run of a workflow and decodes its response.
	AttachKey(ctx context.Context, method *MethodDesc, key string, into proto.Message) error
	// Cancel asks an invocation to stop.
	Cancel(ctx context.Context, invocationID string) error
	// CompleteAwakeable resolves an awakeable with value, or rejects it if failure is not nil.
	CompleteAwakeable(ctx context.Context, id string, value []byte, failure *Error) error
	// BuiltIn makes one try at an rpc of a service that every node has, such as
	// "perdure.v1.ScheduleService/GetSchedule".
	BuiltIn(ctx context.Context, method string, request, response proto.Message) error
}

// ErrAnswered marks, in an error that a Transport returns, a failure that is the handler's own
// answer: asking again would get it again, whatever its code. Transports join it to the *Error.
var ErrAnswered = errors.New("the handler's own answer")

// Client calls objects from outside handlers. It gives every call that has no idempotency key one
// of its own and tries again while the answer is unavailable, until ctx is done, or for 30 s if
// ctx has no deadline: a call that returns took effect once. It is safe for concurrent use.
//
// cluster.Dial makes one for a cluster elsewhere and a node's Client method one for itself.
type Client struct{ transport Transport }

// NewClient makes a client that sends its calls through transport.
func NewClient(transport Transport) *Client { return &Client{transport} }

func (c *Client) caller() (*Client, *handlerContext) { return c, nil }

// The waits between tries double from the first to the longest; each is cut by up to half at
// random so that callers that failed together do not come back together.
const (
	firstRetryWait   = 20 * time.Millisecond
	longestRetryWait = 2 * time.Second
	defaultRetryTime = 30 * time.Second
)

// retry makes tries until one ends otherwise than with unavailable.
func (c *Client) retry(ctx context.Context, try func(context.Context) error) error {
	err := try(ctx)
	if !worthRetrying(err) {
		return coded(err)
	}
	// The limit is on when a try starts, not on how long it takes: a handler may take an hour.
	limit := time.NewTimer(defaultRetryTime)
	defer limit.Stop()
	if _, ok := ctx.Deadline(); ok {
		limit.Stop()
	}
	wait := firstRetryWait
	for tries := 1; ; tries++ {
		pause := time.NewTimer(wait/2 + rand.N(wait/2))
		select {
		case <-pause.C:
		case <-limit.C:
			pause.Stop()
			return coded(err)
		case <-ctx.Done():
			pause.Stop()
			return Errorf(CodeOf(ctx.Err()), "%w after %d tries, the last of which said: %v", ctx.Err(), tries, err)
		}
		wait = min(2*wait, longestRetryWait)
		if err = try(ctx); !worthRetrying(err) {
			return coded(err)
		}
	}
}

func worthRetrying(err error) bool {
	return err != nil && CodeOf(err) == Unavailable && !errors.Is(err, ErrAnswered)
}

// coded makes what a transport returned an *Error.
func coded(err error) error {
	if err == nil {
		return nil
	}
	if already, ok := errors.AsType[*Error](err); ok {
		return already
	}
	return Terminal(CodeOf(err), err)
}

// withAutoKey adds an idempotency key where a second try could otherwise take effect twice.
func withAutoKey(call CallRequest) CallRequest {
	// A run of a workflow is known by its key and a READ handler changes nothing.
	if call.IdempotencyKey == "" && call.Method.Mode != ModeRead && call.Method.Mode != ModeRun {
		call.IdempotencyKey, call.AutoKey = uuid.NewString(), true
	}
	return call
}

func clientCall[R proto.Message](ctx context.Context, client *Client, call CallRequest) (response R, err error) {
	call = withAutoKey(call)
	err = client.retry(ctx, func(ctx context.Context) error {
		answer, err := client.transport.Call(ctx, call)
		if err != nil {
			return err
		}
		var ok bool
		if response, ok = answer.(R); !ok {
			return Errorf(Internal, "%s: the response is a %T, not a %T: generate the code again", call.Method.FullName(), answer, response)
		}
		return nil
	})
	return response, err
}

func (c *Client) send(ctx context.Context, call CallRequest) (id string, err error) {
	call = withAutoKey(call)
	err = c.retry(ctx, func(ctx context.Context) error {
		id, err = c.transport.Send(ctx, call)
		return err
	})
	return id, err
}
