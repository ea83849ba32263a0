package sim

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// restarted is a transfer that was restarted as new, with entries of one that had ended.
type restarted struct {
	id     invocation.ID
	from   uint32
	old    string // key of the one that had ended
	amount int64
	result string
}

// origin is whose entries a journal begins with: what a handler decides by chance must be as it was for them.
func (h *handler) origin() invocation.ID {
	if origins := h.attempt.Origins; len(origins) > 0 {
		if id, ok := invocation.IDFromBytes(origins[0].GetInvocationId()); ok {
			return id
		}
	}
	return h.attempt.ID
}

// restart asks for a transfer again, from one of its entries on, as an operator does.
func (w *world) restart(key string, amount int, random *chance) {
	w.mu.Lock()
	old := w.mu.acked[key]
	w.mu.Unlock()
	if old == nil {
		return
	}
	entries := 4 // a receipt, the withdrawal, the deposit, a confirmation
	if strings.HasPrefix(old.result, "error") {
		entries = 2
	}
	again := &restarted{old: key, amount: int64(amount), from: uint32(random.intn(entries + 1))}
	w.note("requests of "+key, fmt.Sprint("restart from ", again.from))
	if _, ok := w.call(func(ctx context.Context, n *node) (_ *recordv1.Result, err error) {
		again.id, err = n.RestartAsNew(ctx, old.id, again.from, "once")
		return nil, err
	}); !ok {
		return
	}
	result, ok := w.call(func(ctx context.Context, n *node) (*recordv1.Result, error) { return n.Attach(ctx, again.id) })
	if !ok {
		return
	}
	again.result = text(result)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.restarted = append(w.mu.restarted, again)
}

// checkRestarts: a restarted transfer has what the entries that it keeps came to, and does the rest anew. It
// returns how much money there is for that more than there was: a withdrawal that was kept is paid out twice.
func (w *world) checkRestarts(n *node, executed map[execution][]string) (minted int64) {
	w.mu.Lock()
	all, acks := slices.Clone(w.mu.restarted), w.mu.acked
	w.mu.Unlock()
	for _, r := range all {
		old := acks[r.old]
		name := fmt.Sprintf("%s, restarted from entry %d as %s,", r.old, r.from, r.id)
		detail, err := n.Invocation(context.Background(), r.id)
		if err != nil {
			w.fail("%s answered and: %v", name, err)
			continue
		}
		if got := text(detail.Row.Result); got != r.result {
			w.fail("%s answered %s, its row says %s", name, r.result, got)
		}
		if strings.HasPrefix(r.result, "error") {
			if r.result != "error 9 not enough" || r.from >= 2 && r.result != old.result {
				w.fail("%s answered %s, it was %s", name, r.result, old.result)
			}
			continue
		}
		receipt, confirm, _ := strings.Cut(r.result, " ")
		kept, keptConfirm, _ := strings.Cut(old.result, " ")
		by := r.id
		if r.from >= 1 {
			by = old.id
			if receipt != kept && !strings.HasPrefix(old.result, "error") {
				w.fail("%s has the receipt %s, the entry that it keeps has %s", name, receipt, kept)
			}
		}
		if !slices.Contains(executed[execution{by, 1}], receipt) {
			w.fail("%s has the receipt %s, which no closure said", name, receipt)
		}
		switch {
		case confirm == keptConfirm:
			if last := uint32(len(detail.Journal)); r.from < last {
				w.fail("%s has the confirmation %s, which its entry %d, made anew, can't have said", name, confirm, last)
			}
		default:
			said := false
			for e, words := range executed {
				said = said || e.id == r.id && slices.Contains(words, confirm)
			}
			if !said {
				w.fail("%s has the confirmation %s, which no closure of it said", name, confirm)
			}
		}
		deposit := slices.IndexFunc(detail.Journal, func(e *recordv1.Entry) bool { return e.GetCall().GetInvoke().GetTarget().GetHandler() == "Deposit" })
		if r.from >= 2 && int(r.from) <= deposit {
			minted += r.amount
		}
	}
	return minted
}
