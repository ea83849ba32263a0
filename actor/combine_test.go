package actor

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// soon is a client's future that completes after so many seconds, with an error if fails.
func soon(seconds int, fails bool) Future[int] {
	future := &clientFuture[int]{done: make(chan struct{})}
	time.AfterFunc(time.Duration(seconds)*time.Second, func() {
		if future.value = seconds; fails {
			future.err = Errorf(Aborted, "%d", seconds)
		}
		close(future.done)
	})
	return future
}

func TestCombinationsOfAClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		began := time.Now()
		see := func(want string, result ...any) {
			t.Helper()
			if got := fmt.Sprint(time.Since(began), result); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			began = time.Now()
		}
		all, err := All(ctx, soon(3, false), soon(1, false))
		see("3s [[3 1] <nil>]", all, err)
		all, err = All(ctx, soon(9, false), soon(1, true))
		see("1s [[] aborted: 1]", all, err)
		one, err := Any(ctx, soon(9, false), soon(1, true), soon(2, false))
		see("2s [2 <nil>]", one, err)
		one, err = Any(ctx, soon(2, true), soon(1, true))
		see("2s [0 aborted: none of 2 succeeded; aborted: 2; aborted: 1]", one, err)
		see("4s [<nil>]", Settled(ctx, soon(4, true), soon(2, false)))
		first, err := Select(ctx, AllAsync(soon(1, false), soon(8, false)), RaceAsync(soon(7, false), soon(6, false)))
		see("6s [1 <nil>]", first, err)
		timed, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err = All(timed, soon(5, false))
		see("1s [true]", errors.Is(err, context.DeadlineExceeded))
		late := soon(1, false)
		again := AllAsync(late, late)
		_, _ = again.Await(ctx)
		all, err = again.Await(ctx)
		see("1s [[1 1] <nil>]", all, err)
		_, err = WithTimeout(ctx, late, time.Second).Await(ctx)
		see("0s [failed_precondition]", CodeOf(err))
		time.Sleep(10 * time.Second)
	})
}

// TestEvident checks what replays rely on: what is evident is decided in the same way by every
// later look, whatever has completed since.
func TestEvident(t *testing.T) {
	for seed := range uint64(20_000) {
		choice := rand.New(rand.NewPCG(seed, 1))
		var build func(depth int) *Condition
		build = func(depth int) *Condition {
			if depth == 0 || choice.IntN(3) == 0 {
				return &Condition{Entry: uint32(1 + choice.IntN(5))}
			}
			c := &Condition{Quantifier: Quantifier(1 + choice.IntN(5)), Parts: make([]*Condition, 2)}
			for position := range c.Parts {
				c.Parts[position] = build(depth - 1)
			}
			return c
		}
		c := build(3)
		completed := map[uint32]bool{}
		ended := func(entry uint32) (bool, bool) {
			failed, done := completed[entry]
			return done, failed
		}
		was, winner, evident := open, 0, false
		for range 6 {
			is, by := c.judge(ended)
			switch {
			case evident && (is != was || by != winner):
				t.Fatalf("seed %d: was %v by %d, is %v by %d with %v", seed, was, winner, is, by, completed)
			case c.Evident(ended):
				if is == open {
					t.Fatalf("seed %d: evident and open", seed)
				}
				evident, was, winner = true, is, by
			}
			for entry := uint32(1 + choice.IntN(5)); len(completed) < 5; entry = uint32(1 + choice.IntN(5)) {
				if _, done := completed[entry]; !done {
					completed[entry] = choice.IntN(2) == 0
					break
				}
			}
		}
	}
}
