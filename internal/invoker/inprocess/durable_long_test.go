package inprocess_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/apipb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/perdure/perdure/actor"
)

// TestForgottenCompletions: an attempt that has had more results than it keeps in memory gives each
// of them to whoever awaits it, however late and however often, live and replayed.
func TestForgottenCompletions(t *testing.T) {
	const runs, size = 400, 32 << 10 // several times what is kept
	synctest.Test(t, func(t *testing.T) {
		desc := method("t.Thing", "Do", actor.ModeDurable, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
			var futures []actor.Future[*wrapperspb.StringValue]
			check := func(i int) error {
				got, err := futures[i].Await(ctx)
				if err == nil && got.GetValue() != text32(i, size) {
					err = fmt.Errorf("result %d is %.20q", i, got.GetValue())
				}
				return err
			}
			before := ctx.Now()
			for i := range runs {
				futures = append(futures, actor.RunAsync(ctx, "r", func(context.Context) (*wrapperspb.StringValue, error) {
					return wrapperspb.String(text32(i, size)), nil
				}))
				if err := check(i); err != nil {
					return nil, err
				}
			}
			for i := range runs {
				if err := check(runs - 1 - i); err != nil {
					return nil, err
				}
			}
			for range 2 { // the first of several, forgotten and not
				if won, err := actor.Select(ctx, futures[0], futures[runs-1]); err != nil || won != 0 {
					return nil, fmt.Errorf("%d won, %w", won, err)
				}
			}
			if now := ctx.Now(); now.Sub(before) > time.Second {
				return nil, fmt.Errorf("the clock moved by %s", now.Sub(before))
			}
			if err := actor.Sleep(ctx, time.Hour); err != nil {
				return nil, err
			}
			return reply("done"), check(3)
		})
		d := newDouble(t, newInvoker(t, quiet(), desc))
		if got := text(t, d.run(desc, "")); got != "done" {
			t.Error(got)
		}
		if number, _ := d.attempts(); number < 2 {
			t.Errorf("%d attempts: nothing was replayed", number)
		}
	})
}

func text32(i, size int) string {
	head := fmt.Sprint(i, " ")
	return head + strings.Repeat("x", size-len(head))
}
