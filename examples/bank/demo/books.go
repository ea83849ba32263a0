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
	client *actor.Client
	// chapter begins the ids of movements, which are used once.
	chapter                                       string
	answered, refused, repeated, payRolls, audits atomic.Int64
	mu                                            struct {
		sync.Mutex
		expected [accounts]int64
		made     []*movement // that were answered with success
	}
}

// movement takes money from one account and puts the same amount on each of some others.
type movement struct {
	id     string
	from   int
	to     []int
	amount int64
}

func newBooks(url string) *books { return &books{client: cluster.Dial(nil, url)} }

// through makes calls go to any of some nodes.
func (b *books) through(nodes []*process) {
	var urls []string
	for _, n := range nodes {
		urls = append(urls, n.url)
	}
	b.client = cluster.Dial(nil, urls...)
}

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

// move moves money at random until work ends; each movement that was begun is repeated until it
// is answered.
func (b *books) move(work, ctx context.Context, callers int) error {
	failed := make([]error, callers)
	var all sync.WaitGroup
	for c := range callers {
		all.Go(func() {
			for n := 0; work.Err() == nil && failed[c] == nil; n++ {
				failed[c] = b.one(ctx, invent(b.chapter, c, n))
			}
		})
	}
	all.Wait()
	return errors.Join(failed...)
}

// invent makes a transfer up or, as every tenth movement, a pay roll.
func invent(chapter string, caller, n int) *movement {
	who := rand.Perm(accounts)
	m := &movement{id: fmt.Sprintf("%s%d-%d", chapter, caller, n), from: who[0], to: who[1:2], amount: 1 + rand.Int64N(300)}
	if n%10 == 9 {
		m.to, m.amount = who[1:6], 1+rand.Int64N(100)
	}
	return m
}

// call makes a movement. Its id makes it one movement, however often it is called.
func (b *books) call(ctx context.Context, m *movement) error {
	if len(m.to) == 1 {
		_, err := bank.Transfer(b.client).Transfer(ctx, &bankv1.TransferRequest{TransferId: m.id, From: name(m.from), To: name(m.to[0]), Amount: m.amount})
		return err
	}
	roll := &bankv1.PayRollRequest{PayrollId: m.id, From: name(m.from)}
	for _, to := range m.to {
		roll.Payments = append(roll.Payments, &bankv1.Payment{To: name(to), Amount: m.amount})
	}
	_, err := bank.BackOffice(b.client).PayRoll(ctx, roll)
	return err
}

func (b *books) one(ctx context.Context, m *movement) error {
	for {
		// The stub repeats what failed with unavailable by itself; what it gives up on is
		// repeated here.
		err := b.call(ctx, m)
		switch {
		case err == nil:
			b.mu.Lock()
			for _, to := range m.to {
				b.mu.expected[m.from] -= m.amount
				b.mu.expected[to] += m.amount
			}
			b.mu.made = append(b.mu.made, m)
			b.mu.Unlock()
		case actor.CodeOf(err) == actor.FailedPrecondition:
			b.refused.Add(1)
		case ctx.Err() != nil:
			return fmt.Errorf("movement %s was not answered in time: %w", m.id, err)
		case again(err):
			b.repeated.Add(1)
			continue
		default:
			return fmt.Errorf("movement %s: %w", m.id, err)
		}
		if len(m.to) > 1 {
			b.payRolls.Add(1)
		}
		b.answered.Add(1)
		return nil
	}
}

// again reports whether an error says nothing about what happened, so that one asks again.
func again(err error) bool {
	return actor.CodeOf(err) == actor.Unavailable || actor.CodeOf(err) == actor.DeadlineExceeded
}

// audit adds up all accounts, again and again until work ends. Money is on the move and the node
// dies meanwhile; no audit may see more or less than was paid in.
func (b *books) audit(work, ctx context.Context) error {
	everything := &bankv1.TotalRequest{}
	for i := range accounts {
		everything.AccountIds = append(everything.AccountIds, name(i))
	}
	for {
		total, err := bank.BackOffice(b.client).Total(ctx, everything)
		switch {
		case err == nil && total.Sum != accounts*start:
			return fmt.Errorf("an audit found %d in the bank, %d was paid in: it saw half of a transfer", total.Sum, accounts*start)
		case err == nil:
			b.audits.Add(1)
		case ctx.Err() != nil || !again(err):
			return fmt.Errorf("audit: %w", err)
		}
		select {
		case <-work.Done():
			return nil
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// awaitProgress waits until more movements are answered than before.
func (b *books) awaitProgress(ctx context.Context, before int64) error {
	for b.answered.Load() <= before {
		select {
		case <-ctx.Done():
			return errors.New("nothing was answered after the restart")
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
	done("%d accounts, each to the cent: nothing answered was lost, nothing happened twice or by half", accounts)

	step("the last ones, once more")
	last := b.mu.made[max(0, len(b.mu.made)-200):]
	for _, m := range last {
		if err := b.call(ctx, m); err != nil {
			return fmt.Errorf("movement %s, repeated: %w", m.id, err)
		}
	}
	after, _, err := balances()
	if err != nil {
		return err
	}
	if after != held {
		return errors.New("repeating answered calls moved money")
	}
	done("%d repeated with their ids: answered again, no money moved", len(last))
	return nil
}
