// Command demo shows that Perdure does not lose money: it builds the bank example, runs it as a
// process, calls it in three ways, and kills it again and again in the middle of transfers. Audits
// that add up all accounts meanwhile must never see half of a transfer, and the balances prove in
// the end that every call that was answered happened exactly once, and wholly. Then two more nodes
// join the first, and calls go on while each of the three is killed in turn.
//
//	go run ./examples/bank/demo
//
// It exits with 1 if anything is off.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"time"
)

func main() {
	rounds := flag.Int("kills", 5, "how many times the node is killed")
	callers := flag.Int("callers", 32, "how many callers move money at once")
	pause := flag.Duration("every", 2*time.Second, "time between two kills")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 4*time.Minute)
	defer cancel()
	if err := demo(ctx, *rounds, *callers, *pause); err != nil {
		fmt.Fprintf(os.Stderr, "\n%s %v\n", bad("FAILED"), err)
		os.Exit(1)
	}
}

func demo(ctx context.Context, kills, callers int, pause time.Duration) error {
	dir, err := os.MkdirTemp("", "perdure-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	say("Perdure: a bank that is killed and does not lose a cent")
	began := time.Now()
	step("building ./examples/bank")
	binary := filepath.Join(dir, "bank")
	if err := build(ctx, binary); err != nil {
		return err
	}
	done("%.1f s", time.Since(began).Seconds())

	node := &process{binary: binary, data: filepath.Join(dir, "data")}
	defer node.kill()
	step("starting it")
	up, err := node.start(ctx)
	if err != nil {
		return err
	}
	done("serving on %s after %d ms", node.url, up.Milliseconds())

	say("\nThree ways to call one object")
	if err := threeWays(ctx, node.url); err != nil {
		return err
	}

	say("\nTransfers and pay rolls between %d accounts by %d callers, while the node is killed %d times", accounts, callers, kills)
	b := newBooks(node.url)
	if err := b.open(ctx); err != nil {
		return err
	}
	work, stopWork := context.WithCancel(ctx)
	defer stopWork()
	finished := make(chan error, 2)
	go func() { finished <- b.move(work, ctx, callers) }()
	go func() { finished <- b.audit(work, ctx) }()
	for i := range kills {
		select {
		case <-time.After(pause):
		case err := <-finished:
			return errors.Join(errors.New("callers or auditor ended early"), err)
		case <-ctx.Done():
			return ctx.Err()
		}
		before := b.answered.Load()
		step("kill -9, the %s time", ordinal(i+1))
		killed := time.Now()
		node.kill()
		up, err := node.start(ctx)
		if err == nil {
			err = b.awaitProgress(ctx, before)
		}
		if err != nil {
			return err
		}
		done("%d answered before; ready again in %d ms, first answer %d ms after the kill",
			before, up.Milliseconds(), time.Since(killed).Milliseconds())
	}
	select {
	case <-time.After(pause):
	case <-ctx.Done():
	}
	stopWork()
	step("letting the last ones finish")
	for range 2 {
		if err := <-finished; err != nil {
			return err
		}
	}
	done("%d answered, %d of them pay rolls; %d attempts had to be repeated", b.answered.Load(), b.payRolls.Load(), b.repeated.Load())
	step("refused, after the deposit")
	done("%d, for lack of money: their deposits never happened", b.refused.Load())
	step("audits all the while")
	done("%d, and each saw exactly %d: never half of a transfer", b.audits.Load(), accounts*start)

	say("\nProof")
	if err := b.prove(ctx); err != nil {
		return err
	}
	if err := nodesDie(ctx, b, node, callers); err != nil {
		return err
	}
	say("\n%s in %.0f s: %d transfers and pay rolls, %d audits, %d kills: nothing lost, nothing doubled, nothing by half.", good("All of it holds"), time.Since(began).Seconds(), b.answered.Load(), b.audits.Load(), kills)
	return nil
}
