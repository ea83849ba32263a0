package inprocess_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/protobuf/types/known/apipb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/perdure/perdure/actor"
)

// TestValuesInParts: what a Run returns that is larger than a record is recorded in parts, and the
// handler gets it whole: at once, replayed, and after a crash behind any of the parts.
func TestValuesInParts(t *testing.T) {
	const size = 1<<20 + 12345 // five parts
	for _, crashes := range []bool{false, true} {
		t.Run(fmt.Sprint("crashes ", crashes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				made := func(i int) func(context.Context) (*wrapperspb.StringValue, error) {
					return func(context.Context) (*wrapperspb.StringValue, error) { return wrapperspb.String(text32(i, size)), nil }
				}
				desc := method("t.Thing", "Do", actor.ModeDurable, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
					check := func(i int, got *wrapperspb.StringValue, err error) error {
						if err == nil && got.GetValue() != text32(i, size) {
							err = fmt.Errorf("result %d has %d bytes and begins with %.20q", i, len(got.GetValue()), got.GetValue())
						}
						return err
					}
					here, err := actor.Run(ctx, "here", made(0))
					if err := check(0, here, err); err != nil {
						return nil, err
					}
					var futures []actor.Future[*wrapperspb.StringValue]
					for i := range 3 {
						futures = append(futures, actor.RunAsync(ctx, "aside", made(i)))
					}
					small, err := actor.Run(ctx, "small", func(context.Context) (string, error) { return "small", nil })
					if err != nil || small != "small" {
						return nil, fmt.Errorf("small is %.20q, %w", small, err)
					}
					for range 2 { // the second time most are forgotten
						for i, future := range futures {
							got, err := future.Await(ctx)
							if err := check(i, got, err); err != nil {
								return nil, err
							}
						}
					}
					if _, err := actor.All(ctx, futures...); err != nil {
						return nil, err
					}
					return reply("done"), nil
				})
				d := newDouble(t, newInvoker(t, quiet(), desc))
				d.entryBytes = 300 << 10
				if crashes {
					d.crash = func() bool { return true }
				}
				if got := text(t, d.run(desc, "")); got != "done" {
					t.Error(got)
				}
				d.mu.Lock()
				defer d.mu.Unlock()
				for _, index := range []uint32{1, 2, 3, 4} {
					if n := len(d.mu.parts[index]); n != 5 {
						t.Errorf("entry %d has %d parts", index, n)
					}
				}
				if d.mu.parts[5] != nil {
					t.Error("the small one is in parts")
				}
			})
		})
	}
}

// TestValueBeyondTheBound: a value that is too large even for parts ends the invocation, and the
// error says which, how large, and what is allowed.
func TestValueBeyondTheBound(t *testing.T) {
	for _, async := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			desc := method("t.Thing", "Do", actor.ModeDurable, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
				huge := func(context.Context) (*wrapperspb.StringValue, error) {
					return wrapperspb.String(text32(0, 3<<20)), nil
				}
				if !async {
					_, err := actor.Run(ctx, "huge", huge)
					return reply("went on"), err
				}
				_, err := actor.RunAsync(ctx, "huge", huge).Await(ctx)
				return reply("went on"), err
			})
			d := newDouble(t, newInvoker(t, quiet(), desc))
			d.entryBytes = 300 << 10
			failed := d.run(desc, "").Result.GetError()
			if actor.Code(failed.GetCode()) != actor.ResourceExhausted || !strings.Contains(failed.GetMessage(), `Run "huge" of t.Thing/`) ||
				!strings.Contains(failed.GetMessage(), "more than the 2097152") {
				t.Errorf("async %t: %v", async, failed)
			}
		})
	}
}
