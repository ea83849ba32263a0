package inprocess_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/apipb"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

func TestAttachInAHandler(t *testing.T) {
	one := actor.IDOf("t.Other", "one", "Ask", "key")
	other := actor.IDOf("t.Other", "other", "Run", "")
	for way, of := range manners() {
		t.Run(way, func(t *testing.T) {
			config, crash := of()
			durably(t, config, func(d *double) {
				d.crash = crash
				began := time.Now()
				d.attached = func(index uint32, attach *recordv1.Attach) {
					id, _ := invocation.IDFromBytes(attach.GetInvocationId())
					result, after := value(d.t, reply("result of one")), time.Hour
					if id.String() == other {
						result, after = &recordv1.Result{Error: &recordv1.Error{Code: uint32(actor.Aborted), Message: "other failed"}}, time.Minute
					}
					if attach.GetPeek() {
						peeked := &recordv1.Peeked{}
						if time.Since(began) >= after {
							peeked.Result = result
						}
						result, after = &recordv1.Result{Value: encode(d.t, peeked)}, 0
					}
					d.mu.timers = append(d.mu.timers, time.AfterFunc(after, func() { d.complete(index, result) }))
				}
			}, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
				first, second := actor.Attach[*apipb.Mixin](ctx, one), actor.Attach[*apipb.Mixin](ctx, other)
				_, early, err := second.Peek(ctx)
				see := []any{early, err}
				winner, err := actor.Select(ctx, first.AttachAsync(ctx), second.AttachAsync(ctx))
				see = append(see, winner, err)
				_, err = second.Attach(ctx)
				see = append(see, err)
				_, done, err := second.Peek(ctx)
				see = append(see, done, err)
				got, err := first.Attach(ctx)
				see = append(see, got.GetRoot(), err)
				got, done, err = first.Peek(ctx)
				see = append(see, got.GetRoot(), done, err)
				_, self := actor.Attach[*apipb.Mixin](ctx, ctx.InvocationID()).Attach(ctx)
				_, _, bad := actor.Attach[*apipb.Mixin](ctx, "nonsense").Peek(ctx)
				see = append(see, actor.CodeOf(self), actor.CodeOf(bad))
				return reply(fmt.Sprint(see...)), nil
			}, nil, func(t *testing.T, d *double, got string) {
				want := "false <nil> 1 <nil> aborted: other failed true aborted: other failedresult of one<nil>result of onetrue <nil> failed_precondition invalid_argument"
				if got != want {
					t.Errorf("got  %s\nwant %s", got, want)
				}
				noRetries(t, d)
			})
		})
	}
}
