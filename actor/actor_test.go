package actor_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/apipb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/perdure/perdure/actor"
)

var ask = &actor.MethodDesc{
	Service: "t.Thing", Name: "Ask", Mode: actor.ModeTransaction, KeyField: 1, IdempotencyField: 2,
	NewRequest:  func() proto.Message { return new(apipb.Mixin) },
	NewResponse: func() proto.Message { return new(apipb.Mixin) },
}

// wire is a transport made of functions; calls are counted.
type wire struct {
	mu      sync.Mutex
	calls   []actor.CallRequest
	tries   int
	failing func(try int) error
	block   chan struct{}
	sent    map[string]json.RawMessage
}

func (w *wire) try(call actor.CallRequest) error {
	w.mu.Lock()
	w.calls = append(w.calls, call)
	w.tries++
	try := w.tries
	w.mu.Unlock()
	if w.block != nil && call.Key == "slow" {
		<-w.block
	}
	if w.failing != nil {
		return w.failing(try)
	}
	return nil
}

func (w *wire) Call(_ context.Context, call actor.CallRequest) (proto.Message, error) {
	if err := w.try(call); err != nil {
		return nil, err
	}
	return &apipb.Mixin{Name: call.Key}, nil
}

func (w *wire) Send(_ context.Context, call actor.CallRequest) (string, error) {
	return "inv_1", w.try(call)
}

func (w *wire) Attach(_ context.Context, id string, into proto.Message) error {
	into.(*apipb.Mixin).Name = id
	return w.try(actor.CallRequest{})
}

func (w *wire) AttachKey(_ context.Context, _ *actor.MethodDesc, key string, into proto.Message) error {
	into.(*apipb.Mixin).Name = key
	return w.try(actor.CallRequest{})
}

func (w *wire) Cancel(context.Context, string) error { return w.try(actor.CallRequest{}) }

func (w *wire) BuiltIn(_ context.Context, _ string, _, _ proto.Message) error {
	return w.try(actor.CallRequest{})
}

func (w *wire) CompleteAwakeable(_ context.Context, id string, value []byte, failure *actor.Error) error {
	if failure != nil {
		return failure
	}
	w.sent = map[string]json.RawMessage{id: value}
	return nil
}

func call(ctx context.Context, c actor.Caller, key string, opts ...actor.CallOption) (*apipb.Mixin, error) {
	return actor.Invoke[*apipb.Mixin](ctx, c, ask, key, &apipb.Mixin{}, opts)
}

func TestClientRetriesUnavailableWithOneKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{failing: func(try int) error {
			if try < 6 {
				return actor.Errorf(actor.Unavailable, "no leader")
			}
			return nil
		}}
		resp, err := call(t.Context(), actor.NewClient(w), "k")
		if err != nil || resp.Name != "k" {
			t.Fatal(resp, err)
		}
		for _, made := range w.calls {
			if made.IdempotencyKey == "" || made.IdempotencyKey != w.calls[0].IdempotencyKey || !made.AutoKey {
				t.Errorf("tries with different keys: %v", w.calls)
			}
		}
		if len(w.calls) != 6 {
			t.Errorf("%d tries", len(w.calls))
		}
	})
}

func TestClientGivesUp(t *testing.T) {
	unavailable := func(int) error { return actor.Errorf(actor.Unavailable, "no leader") }
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		_, err := call(t.Context(), actor.NewClient(&wire{failing: unavailable}), "k")
		if actor.CodeOf(err) != actor.Unavailable || time.Since(began) < 28*time.Second || time.Since(began) > 32*time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began = time.Now()
		_, err = call(ctx, actor.NewClient(&wire{failing: unavailable}), "k")
		if actor.CodeOf(err) != actor.DeadlineExceeded || !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Minute ||
			!strings.Contains(err.Error(), "no leader") {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		w := &wire{failing: func(int) error { return actor.Errorf(actor.NotFound, "no") }}
		if _, err := call(t.Context(), actor.NewClient(w), "k"); actor.CodeOf(err) != actor.NotFound || w.tries != 1 {
			t.Error(err, w.tries)
		}
		w = &wire{failing: func(int) error { return errors.New("plain") }}
		if _, err := call(t.Context(), actor.NewClient(w), "k"); actor.CodeOf(err) != actor.Unknown || w.tries != 1 {
			t.Error(err, w.tries)
		}
	})
}

func TestIdempotencyKeys(t *testing.T) {
	w := &wire{}
	c := actor.NewClient(w)
	in := func(key string) *apipb.Mixin { return &apipb.Mixin{Root: key} }
	for name, test := range map[string]struct {
		req  *apipb.Mixin
		opts []actor.CallOption
		want string
	}{
		"field":  {in("f"), nil, "f"},
		"option": {in(""), []actor.CallOption{actor.IdempotencyKey("o")}, "o"},
		"both":   {in("f"), []actor.CallOption{actor.IdempotencyKey("o")}, "invalid_argument: t.Thing/Ask: the idempotency key is \"f\" in the request and \"o\" in the options: give one of them"},
		"long":   {in(""), []actor.CallOption{actor.IdempotencyKey(strings.Repeat("x", 256))}, "invalid_argument: t.Thing/Ask: the idempotency key has 256 bytes; at most 255 are allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := actor.Invoke[*apipb.Mixin](t.Context(), c, ask, "k", test.req, test.opts)
			got := w.calls[max(len(w.calls)-1, 0):]
			if err != nil {
				if err.Error() != test.want {
					t.Error(err)
				}
			} else if got[0].IdempotencyKey != test.want || got[0].AutoKey {
				t.Errorf("%+v", got)
			}
		})
		w.calls = append(w.calls, actor.CallRequest{})
	}
	read := *ask
	read.Mode = actor.ModeRead
	if _, err := actor.Invoke[*apipb.Mixin](t.Context(), c, &read, "k", nil, nil); err != nil || w.calls[len(w.calls)-1].IdempotencyKey != "" {
		t.Error("a READ call got a key", err)
	}
}

func TestRequestsAreNotChanged(t *testing.T) {
	w := &wire{}
	req := &apipb.Mixin{}
	var group sync.WaitGroup
	for i := range 8 { // one request to many keys at once; the race detector watches
		group.Go(func() {
			if _, err := actor.Invoke[*apipb.Mixin](t.Context(), actor.NewClient(w), ask, fmt.Sprint(i), req, nil); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if req.Name != "" {
		t.Errorf("the request has the key %q", req.Name)
	}
	for _, made := range w.calls {
		if made.Request.(*apipb.Mixin).Name != made.Key {
			t.Errorf("%v", made)
		}
	}
}

func TestIntegerKeys(t *testing.T) {
	method := &actor.MethodDesc{
		Service: "t.Number", Name: "Ask", Mode: actor.ModeRead, KeyField: 1,
		NewRequest: func() proto.Message { return new(durationpb.Duration) },
	}
	w := &wire{}
	if _, err := actor.Invoke[*apipb.Mixin](t.Context(), actor.NewClient(w), method, "-42", nil, nil); err != nil {
		t.Fatal(err)
	}
	made := w.calls[0].Request
	if key, err := method.RequestKey(made); err != nil || key != "-42" || made.(*durationpb.Duration).Seconds != -42 {
		t.Error(key, err, made)
	}
	_, err := actor.Invoke[*apipb.Mixin](t.Context(), actor.NewClient(w), method, "x", nil, nil)
	if actor.CodeOf(err) != actor.InvalidArgument || !strings.Contains(err.Error(), `the key seconds is "x", which is not a int64`) {
		t.Error(err)
	}
}

func TestRequestKeyIsChecked(t *testing.T) {
	for key, want := range map[string]string{
		"alice":                  "",
		"":                       "the key name is empty",
		strings.Repeat("x", 256): "has 256 bytes; at most 255",
		"\xff":                   "not valid utf-8",
	} {
		got, err := ask.RequestKey(&apipb.Mixin{Name: key})
		if want == "" {
			if err != nil || got != key {
				t.Error(got, err)
			}
		} else if actor.CodeOf(err) != actor.InvalidArgument || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", key, err)
		}
	}
}

func TestFuturesOutsideHandlers(t *testing.T) {
	w := &wire{block: make(chan struct{})}
	c := actor.NewClient(w)
	slow := actor.InvokeAsync[*apipb.Mixin](t.Context(), c, ask, "slow", nil, nil)
	fast := actor.InvokeAsync[*apipb.Mixin](t.Context(), c, ask, "fast", nil, nil)
	winner, err := actor.Select(t.Context(), slow, fast)
	if winner != 1 || err != nil {
		t.Fatal(winner, err)
	}
	raced, err := actor.Race(t.Context(), slow, fast)
	if raced.GetName() != "fast" || err != nil {
		t.Error(raced, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := slow.Await(ended); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := actor.Select(ended, slow); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	close(w.block)
	both, err := actor.All(t.Context(), slow, fast)
	if err != nil || both[0].Name != "slow" || both[1].Name != "fast" {
		t.Error(both, err)
	}
	if _, err := actor.Select(t.Context()); actor.CodeOf(err) != actor.InvalidArgument {
		t.Error(err)
	}
}

func TestInvocationsOutsideHandlers(t *testing.T) {
	w := &wire{}
	c := actor.NewClient(w)
	inv, err := actor.InvokeSend[*apipb.Mixin](t.Context(), c, ask, "k", nil, []actor.SendOption{actor.Delay(time.Hour), actor.IdempotencyKey("x")})
	if err != nil || inv.ID() != "inv_1" || w.calls[0].Delay != time.Hour || w.calls[0].IdempotencyKey != "x" {
		t.Fatal(inv, err, w.calls)
	}
	if got, err := inv.Attach(t.Context()); err != nil || got.Name != "inv_1" {
		t.Error(got, err)
	}
	if got, err := actor.Attach[*apipb.Mixin](c, "inv_2").Attach(t.Context()); err != nil || got.Name != "inv_2" {
		t.Error(got, err)
	}
	if got, err := actor.AttachKey[*apipb.Mixin](t.Context(), c, ask, "k"); err != nil || got.Name != "k" {
		t.Error(got, err)
	}
	if err := inv.Cancel(t.Context()); err != nil {
		t.Error(err)
	}
	if err := actor.ResolveAwakeable(t.Context(), c, "awk_1", map[string]int{"a": 1}); err != nil || string(w.sent["awk_1"]) != `{"a":1}` {
		t.Error(err, w.sent)
	}
	if err := actor.RejectAwakeable(t.Context(), c, "awk_1", errors.New("no")); err == nil || err.Error() != "unknown: no" {
		t.Error(err)
	}
}

func TestStepsNeedAHandler(t *testing.T) {
	ctx := t.Context()
	for name, err := range map[string]error{
		"run":     actor.Do(ctx, "x", func(context.Context) error { t.Error("ran without durability"); return nil }),
		"sleep":   actor.Sleep(ctx, time.Second),
		"promise": actor.PromiseOf[*apipb.Mixin](nil, "p").Resolve(ctx, nil),
		"call":    func() error { _, err := call(ctx, nil, "k"); return err }(),
	} {
		if actor.CodeOf(err) != actor.FailedPrecondition {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestErrors(t *testing.T) {
	cause := errors.New("cause")
	coded := actor.Errorf(actor.NotFound, "no %s: %w", "alice", cause)
	if coded.Error() != "not_found: no alice: cause" || !errors.Is(coded, cause) || actor.CodeOf(fmt.Errorf("wrapped: %w", coded)) != actor.NotFound {
		t.Error(coded)
	}
	if again := actor.Terminal(actor.Aborted, coded); again.Error() != "aborted: no alice: cause" {
		t.Error(again)
	}
	detailed := actor.WithDetails(coded, wrapperspb.String("detail"))
	var parts *actor.Error
	if !errors.As(detailed, &parts) || len(parts.Details()) != 1 || parts.Code() != actor.NotFound || parts.Message() != "no alice: cause" {
		t.Error(detailed)
	}
	if more := actor.WithDetails(detailed, wrapperspb.String("two")); len(more.(*actor.Error).Details()) != 2 || len(parts.Details()) != 1 {
		t.Error("details are shared")
	}
	for err, want := range map[error]actor.Code{
		nil: 0, cause: actor.Unknown, context.DeadlineExceeded: actor.DeadlineExceeded, context.Canceled: actor.Canceled,
		actor.ErrCanceled: actor.Canceled, actor.NewError(99, "x"): actor.Unknown,
	} {
		if got := actor.CodeOf(err); got != want {
			t.Errorf("%v is %s, want %s", err, got, want)
		}
	}
	if actor.Terminal(actor.Internal, nil) != nil || actor.WithDetails(nil) != nil {
		t.Error("nil became an error")
	}
	if actor.Code(16).String() != "unauthenticated" || actor.Code(17).String() != "code_17" {
		t.Error(actor.Code(16), actor.Code(17))
	}
}

func TestSagaUndoesInReverse(t *testing.T) {
	var undone []string
	var saga actor.Saga
	for _, name := range []string{"one", "two"} {
		saga.Add(func(context.Context) error { undone = append(undone, name); return nil })
	}
	if err := saga.Fail(t.Context(), nil); err != nil || undone != nil {
		t.Error(err, undone)
	}
	err := saga.Fail(t.Context(), errors.New("plain"))
	if strings.Join(undone, " ") != "two one" || actor.CodeOf(err) != actor.Unknown {
		t.Error(undone, err)
	}
	if !errors.As(err, new(*actor.Error)) {
		t.Error("the error is not terminal")
	}
	retried := errors.New("retry me")
	saga.Add(func(context.Context) error { t.Error("undone after a failure that is tried again"); return nil })
	saga.Add(func(context.Context) error { return retried })
	if err := saga.Fail(t.Context(), actor.ErrCanceled); err != retried {
		t.Error(err)
	}
}
