package actortest_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/actor/actortest"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
)

type callerKey struct{}

// withCaller puts a header into the context and gives it on to all that the handler calls.
func withCaller(_ *actor.MethodDesc, next actor.HandlerFunc) actor.HandlerFunc {
	return func(ctx actor.Context, req proto.Message) (proto.Message, error) {
		caller := actor.HeaderOf(ctx, "x-caller")
		if caller == "" {
			return nil, actor.Errorf(actor.PermissionDenied, "who are you?")
		}
		ctx = actor.WithCallOptions(ctx, actor.Header("x-caller", caller))
		return next(actor.WithContext(ctx, context.WithValue(ctx, callerKey{}, caller)), req)
	}
}

// payout says on whose behalf it runs, before and after each kind of step.
func payout(ctx bank.AccountDurableContext) (string, error) {
	said := []string{ctx.Value(callerKey{}).(string)}
	if _, err := bank.Account(ctx, "b").Deposit(ctx, &bankv1.DepositRequest{Amount: 5}); err != nil {
		return "", err // It is refused unless the header was given on.
	}
	inside, err := actor.Run(ctx, "who", func(ctx context.Context) (string, error) { return actor.HeaderOf(ctx, "x-caller"), nil })
	if err != nil {
		return "", err
	}
	said = append(said, inside, actor.HeaderOf(ctx, "X-Caller"))
	if err := actor.Sleep(ctx, 5e9); err != nil {
		return "", err
	}
	return strings.Join(append(said, actor.HeaderOf(ctx, "x-caller")), " "), nil
}

// TestMiddlewareAndHeaders: the same in every order, with crashes everywhere, and every wait suspended.
func TestMiddlewareAndHeaders(t *testing.T) {
	scenario := func(t *testing.T, node *actortest.Node) {
		bank.RegisterAccountHandler(node, accounts{closeOut: payout})
		account := bank.Account(node.Client(), "a")
		answer, err := account.CloseOut(t.Context(), &bankv1.CloseOutRequest{}, actor.Header("X-Caller", "ann"))
		if err != nil || answer.GetPayoutId() != "ann ann ann ann" {
			t.Errorf("got %q, %v", answer.GetPayoutId(), err)
		}
		if _, err = account.CloseOut(t.Context(), &bankv1.CloseOutRequest{}); actor.CodeOf(err) != actor.PermissionDenied {
			t.Errorf("without a header: %v", err)
		}
	}
	wrap := actortest.WithMiddleware(withCaller)
	actortest.Run(t, scenario, wrap)
	actortest.Run(t, scenario, wrap, actortest.WithCrashAtEveryEntry(), actortest.WithSuspendAtEveryWait())
	actortest.Seeds(t, 10, scenario, wrap)
}

// TestRecordedJournalHasHeaders: a replay in a test sees those of the invocation, within the middleware that
// the program has.
func TestRecordedJournalHasHeaders(t *testing.T) {
	file := filepath.Join(t.TempDir(), "payout.json")
	register := func(r actor.Registrar) {
		bank.RegisterAccountHandler(actor.WithMiddleware(r, withCaller), accounts{closeOut: payout})
	}
	actortest.Run(t, func(t *testing.T, node *actortest.Node) {
		register(node)
		node.Client()
		for { // What an actor.Client would do.
			request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/bank.v1.AccountService/CloseOut", strings.NewReader(`{"accountId":"a"}`))
			request.Header.Set("Content-Type", "application/json")
			request.Header.Set("X-Caller", "ann")
			request.Header.Set("Idempotency-Key", "one")
			response := httptest.NewRecorder()
			node.Handler().ServeHTTP(response, request)
			switch response.Code {
			case http.StatusServiceUnavailable:
				node.Settle()
				continue
			case http.StatusOK:
				node.Export(t, response.Header().Get("Perdure-Invocation-Id"), file)
			default:
				t.Error(response.Code, response.Body)
			}
			return
		}
	}, actortest.WithHeaders("x-caller"))
	actortest.Replay(t, register, file)
}
