package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/cluster"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
)

const (
	accounts = 20
	start    = 1000
)

// books is what the callers know: what each account must hold, from the answers they got.
type books struct {
	client                      *actor.Client
	answered, refused, repeated atomic.Int64
	mu                          struct {
		sync.Mutex
		expected  [accounts]int64
		transfers []*bankv1.TransferRequest // that were answered with success
	}
}

func newBooks(url string) *books { return &books{client: cluster.Dial(nil, url)} }

func name(i int) string { return fmt.Sprintf("account-%02d", i) }

func (b *books) open(ctx context.Context) error {
	step("paying %d into each account", start)
	for i := range accounts {
		if _, err := bank.Account(b.client, name(i)).Deposit(ctx, &bankv1.DepositRequest{Amount: start}); err != nil {
			return err
		}
		b.mu.expected[i] = start
	}
	done("%d in the bank", accounts*start)
	return nil
}

// transfer moves money at random until work ends; each transfer that was begun is repeated
// until it is answered.
func (b *books) transfer(work, ctx context.Context, callers int) error {
	failed := make([]error, callers)
	var all sync.WaitGroup
	for c := range callers {
		all.Go(func() {
			for n := 0; work.Err() == nil && failed[c] == nil; n++ {
				failed[c] = b.one(ctx, fmt.Sprintf("transfer-%d-%d", c, n))
			}
		})
	}
	all.Wait()
	return errors.Join(failed...)
}

func (b *books) one(ctx context.Context, id string) error {
	from := rand.IntN(accounts)
	to := (from + 1 + rand.IntN(accounts-1)) % accounts
	request := &bankv1.TransferRequest{TransferId: id, From: name(from), To: name(to), Amount: 1 + rand.Int64N(300)}
	for {
		// The stub repeats what failed with unavailable by itself; what it gives up on is
		// repeated here. The transfer id makes all of them one transfer.
		_, err := bank.Transfer(b.client).Transfer(ctx, request)
		switch {
		case err == nil:
			b.mu.Lock()
			b.mu.expected[from] -= request.Amount
			b.mu.expected[to] += request.Amount
			b.mu.transfers = append(b.mu.transfers, request)
			b.mu.Unlock()
		case actor.CodeOf(err) == actor.FailedPrecondition:
			b.refused.Add(1)
		case ctx.Err() != nil:
			return fmt.Errorf("%s was not answered in time: %w", id, err)
		case actor.CodeOf(err) == actor.Unavailable || actor.CodeOf(err) == actor.DeadlineExceeded:
			b.repeated.Add(1)
			continue
		default:
			return fmt.Errorf("%s: %w", id, err)
		}
		b.answered.Add(1)
		return nil
	}
}

// awaitProgress waits until more transfers are answered than before.
func (b *books) awaitProgress(ctx context.Context, before int64) error {
	for b.answered.Load() <= before {
		select {
		case <-ctx.Done():
			return errors.New("no transfer was answered after the restart")
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

// prove compares what the accounts hold with what the answers say they must.
func (b *books) prove(ctx context.Context) error {
	balances := func() (held [accounts]int64, sum int64, err error) {
		for i := range accounts {
			response, err := bank.Account(b.client, name(i)).Balance(ctx, &bankv1.BalanceRequest{})
			if err != nil {
				return held, 0, err
			}
			held[i] = response.Balance
			sum += response.Balance
		}
		return held, sum, nil
	}
	step("the money adds up")
	held, sum, err := balances()
	if err != nil {
		return err
	}
	if sum != accounts*start {
		return fmt.Errorf("there is %d in the bank, %d was paid in", sum, accounts*start)
	}
	done("%d was paid in, %d is there", accounts*start, sum)

	step("each balance is what was answered")
	for i := range accounts {
		if held[i] != b.mu.expected[i] {
			return fmt.Errorf("%s holds %d; by the answers it must hold %d", name(i), held[i], b.mu.expected[i])
		}
	}
	done("%d accounts, each to the cent: no answered transfer was lost, none happened twice", accounts)

	step("the last transfers, once more")
	again := b.mu.transfers[max(0, len(b.mu.transfers)-200):]
	for _, request := range again {
		if _, err := bank.Transfer(b.client).Transfer(ctx, request); err != nil {
			return fmt.Errorf("%s, repeated: %w", request.TransferId, err)
		}
	}
	after, _, err := balances()
	if err != nil {
		return err
	}
	if after != held {
		return errors.New("repeating answered transfers moved money")
	}
	done("%d repeated with their ids: answered again, no money moved", len(again))
	return nil
}
