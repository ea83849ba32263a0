package inprocess_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/apipb"

	"github.com/perdure/perdure/actor"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// ways in which a handler can end, or wait, with a call that is not complete.
var ways = map[string]struct {
	run  handle
	want string
}{
	"returns": {func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		askAsync(ctx, "0")
		return reply("done"), nil
	}, "done"},
	"fails": {func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		askAsync(ctx, "0")
		return nil, actor.Errorf(actor.Aborted, "no")
	}, "aborted: no"},
	"panics": {func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		askAsync(ctx, "0")
		panic("secret")
	}, "internal: t.Thing/Do panicked"},
	"exits": {func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		askAsync(ctx, "0")
		runtime.Goexit()
		return nil, nil
	}, "internal: the handler called runtime.Goexit"},
	"ends by Fail": {func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		askAsync(ctx, "0")
		number(ctx).Set(nil)
		return nil, nil
	}, "internal: State().Set(nil)*"},
	"waits": {func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		return askAsync(ctx, "0").Await(ctx)
	}, "late"},
	"waits apart from its ctx": {func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		return askAsync(ctx, "0").Await(context.WithoutCancel(ctx))
	}, "late"},
	"waits for one of two": {func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		first := askAsync(ctx, "0")
		return actor.Race(ctx, askAsync(ctx, "1"), first)
	}, "late"},
}

func TestEndOfAHandlerWaitsForItsCalls(t *testing.T) {
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			trial{run: way.run, during: func(d *double) {
				time.Sleep(time.Minute)
				for index := range d.calls() {
					if d.ending() != nil {
						d.t.Error("it ended before call", index+1)
					}
					d.complete(uint32(index+1), value(d.t, reply("late")))
					synctest.Wait()
				}
			}, check: func(t *testing.T, _ *double, got string) {
				if !matches(got, way.want) {
					t.Error(got)
				}
			}}.test(t)
		})
	}
}

// An attempt that is aborted says nothing and is gone at once, whatever its calls do.
func TestAbortEndsAWaitForCalls(t *testing.T) {
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			returned, unwound := false, (chan struct{})(nil)
			trial{prepare: func(*double) { unwound = make(chan struct{}) }, run: func(ctx actor.Context, req *apipb.Mixin) (*apipb.Mixin, error) {
				defer close(unwound)
				resp, err := way.run(ctx, req)
				returned = true
				return resp, err
			}, during: func(d *double) {
				began := time.Now()
				d.abort(errors.New("the transaction begins anew"))
				<-unwound
				if waited := time.Since(began); waited > 0 || strings.HasPrefix(name, "waits") && returned {
					d.t.Error("it took", waited, "and went on:", returned)
				}
				d.complete(1, value(d.t, reply("late")))
			}}.test(t)
		})
	}
}

// abortingContext aborts an attempt as soon as it is asked for its end.
type abortingContext struct {
	context.Context
	abort func(error)
}

func (c abortingContext) Err() error {
	c.abort(errors.New("leadership lost"))
	return c.Context.Err()
}

// The handler never sees an abort as the end of its ctx.
func TestAbortIsNoEndOfTheContext(t *testing.T) {
	var abort func(error)
	returned := false
	trial{prepare: func(d *double) { abort = d.abort }, run: func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		_, err := askAsync(ctx, "0").Await(abortingContext{ctx, abort})
		returned = true
		return nil, err
	}, during: func(d *double) {
		if returned {
			d.t.Error("the handler went on")
		}
	}}.test(t)
}

// The next try of a transaction is another attempt, which counts its calls from 1 again.
func TestAbortedTransactionBeginsAnew(t *testing.T) {
	var mu sync.Mutex
	tries := 0
	trial{run: func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		mu.Lock()
		tries++
		mu.Unlock()
		return askAsync(ctx, "0").Await(ctx)
	}, during: func(d *double) {
		d.mu.Lock()
		d.mu.running.Abort(errors.New("wounded"))
		d.mu.calls, d.answer, d.atOnce = nil, echo, true
		d.startLocked()
		d.mu.Unlock()
	}, check: func(t *testing.T, _ *double, got string) {
		if got != "0:q" || tries != 2 {
			t.Error(got, tries)
		}
	}}.test(t)
}

func TestStepTimeoutEndsAWaitForCalls(t *testing.T) {
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			returned, unwound := false, (chan struct{})(nil)
			trial{prepare: func(*double) { unwound = make(chan struct{}) }, run: func(ctx actor.Context, req *apipb.Mixin) (*apipb.Mixin, error) {
				defer close(unwound)
				resp, err := way.run(ctx, req)
				returned = true
				return resp, err
			}, limit: 10 * time.Second, during: func(d *double) {
				<-d.ended
				<-unwound // before Close aborts it
				if strings.HasPrefix(name, "waits") && returned {
					d.t.Error("it went on")
				}
			}, check: func(t *testing.T, d *double, got string) {
				if got != "deadline_exceeded: t.Thing/Do made no step for 10s, its step_timeout" {
					t.Error(got)
				}
			}}.test(t)
		})
	}
	t.Run("a call is a step", func(t *testing.T) {
		trial{limit: 10 * time.Second, prepare: func(d *double) {
			d.answer = func(invoke *recordv1.Invoke) *recordv1.Result {
				time.AfterFunc(7*time.Second, func() { d.complete(uint32(invoke.Target.Key[0]-'0'), echo(invoke)) })
				return nil
			}
		}, run: func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
			for key := range 5 {
				if _, err := ask(ctx, ctx, fmt.Sprint(key+1), "q"); err != nil {
					return nil, err
				}
			}
			return reply("done"), nil
		}, check: func(t *testing.T, _ *double, got string) {
			if got != "done" {
				t.Error(got)
			}
		}}.test(t)
	})
}

func TestDerivedContextEndsAWaitForCalls(t *testing.T) {
	trial{run: func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		future := askAsync(ctx, "0")
		timed, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, early := future.Await(timed)
		resp, err := future.Await(ctx)
		if err != nil {
			return nil, err
		}
		_, after := future.Await(timed) // what has completed is not lost
		return reply(fmt.Sprint(resp.Root, " ", errors.Is(early, context.DeadlineExceeded), actor.CodeOf(early), after)), nil
	}, during: func(d *double) {
		time.Sleep(time.Minute)
		d.complete(1, value(d.t, reply("late")))
	}, check: func(t *testing.T, _ *double, got string) {
		if got != "late true deadline_exceeded <nil>" {
			t.Error(got)
		}
	}}.test(t)
}
