package ingress_test

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/perdure/perdure/actor"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
	"github.com/perdure/perdure/internal/ingress"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	"github.com/perdure/perdure/internal/routing/routingtest"
)

// rowless has no rows but rows reads.
type rowless struct {
	routingtest.Fake
	rows     atomic.Int32
	looked   atomic.Int32
	attached chan struct{}
}

func (r *rowless) Journal(ctx context.Context, id invocation.ID, after uint32, limit int) (*routing.InvocationDetail, error) {
	r.looked.Add(1)
	if r.rows.Add(-1) >= 0 {
		return r.Fake.Journal(ctx, id, after, limit)
	}
	return nil, routing.Errorf(routing.CodeNotFound, "no invocation %s", id)
}

func (r *rowless) Attach(ctx context.Context, id invocation.ID) (*recordv1.Result, error) {
	if r.attached != nil {
		r.attached <- struct{}{}
	}
	return r.Fake.Attach(ctx, id)
}

// TestAttachWithoutARow: whoever waited for a result gets it, though nothing is kept of the
// invocation but what the edge knows.
func TestAttachWithoutARow(t *testing.T) {
	for _, test := range []struct {
		name string
		// send keeps the invocation out of what the edge knows; rows is how often its row is found.
		send bool
		rows int32
		// leave: the caller goes away before the end.
		leave bool
		want  actor.Code
	}{
		{name: "while its caller waits"},
		{name: "after its caller left", leave: true},
		{name: "row gone after the wait", send: true, rows: 1},
		{name: "no row at all", send: true, want: actor.NotFound},
	} {
		t.Run(test.name, func(t *testing.T) {
			router := &rowless{attached: make(chan struct{}, 1)}
			ids, release := make(chan invocation.ID, 1), make(chan struct{})
			router.Handle = func(in *recordv1.Invoke) *recordv1.Result {
				id, _ := invocation.IDFromBytes(in.InvocationId)
				ids <- id
				<-release
				return teller(in)
			}
			router.rows.Store(test.rows)
			handler, err := ingress.New(ingress.Config{Router: router, Services: services(), Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			client := actor.NewClient(handler.Local())
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			called := make(chan error, 1)
			go func() {
				var err error
				if test.send {
					_, err = bank.Account(client, "alice").DepositSend(ctx, &bankv1.DepositRequest{Amount: 5})
				} else {
					_, err = bank.Account(client, "alice").Deposit(ctx, &bankv1.DepositRequest{Amount: 5})
				}
				called <- err
			}()
			id := <-ids
			if test.leave {
				leave()
				if err := <-called; actor.CodeOf(err) != actor.Canceled {
					t.Fatalf("the caller: %v", err)
				}
			}
			type answer struct {
				response *bankv1.DepositResponse
				err      error
			}
			answers := make(chan answer, 1)
			go func() {
				response, err := actor.Attach[*bankv1.DepositResponse](client, id.String()).Attach(t.Context())
				answers <- answer{response, err}
			}()
			<-router.attached
			close(release)
			got := <-answers
			switch {
			case test.want != 0 && actor.CodeOf(got.err) != test.want:
				t.Errorf("got %v %v, want code %v", got.response, got.err, test.want)
			case test.want == 0 && (got.err != nil || got.response.GetBalance() != 105):
				t.Errorf("got %v %v", got.response, got.err)
			}
			if !test.leave {
				if err := <-called; err != nil {
					t.Errorf("the caller: %v", err)
				}
			}
		})
	}
}

// TestCallsUnderWayAreForgotten: a call that has been answered leaves nothing behind.
func TestCallsUnderWayAreForgotten(t *testing.T) {
	router := &rowless{}
	f := start(t, func(c *ingress.Config) {
		router.Handle = teller
		c.Router = router
	})
	called := f.post(t, deposit, `{"accountId":"alice","amount":"5"}`)
	if called.status != http.StatusOK {
		t.Fatal(called.body)
	}
	got := f.post(t, "/perdure.v1.InvocationService/Attach", `{"invocationId":"`+called.header.Get(ingress.HeaderInvocationID)+`"}`)
	// The fake has the result still, but neither the edge nor a row knows whose it is.
	if got.code != "not_found" || !strings.Contains(got.message, "no invocation") {
		t.Errorf("got %s", got.body)
	}
	if looked := router.looked.Load(); looked != 2 {
		t.Errorf("the row was looked for %d times, want before and after the wait", looked)
	}
}
