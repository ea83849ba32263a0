package peer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	"github.com/perdure/perdure/internal/engine"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
)

// TestRulesFromAnyNode: rules are changed and seen from every node, hold for limits of partitions that any
// node leads, after each change of leaders, and reach a partition that had none once it has one.
func TestRulesFromAnyNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const partitions = 5
		w := newWorld(t, 3, partitions, 1)
		ctx := t.Context()
		home := engine.RulesHome(partitions)
		names := []string{bankAccount + "/a", bankAccount + "/b", bankAccount + "/c=x"}
		for i := range 12 {
			in := invoke(bankAccount, w.keyIn(uint32(i%partitions)+1, i), "CloseOut", invocation.ModeDurable, "", &bankv1.CloseOutRequest{Iban: "wait"})
			in.Flow = &recordv1.Flow{Limits: []*recordv1.Limit{{Name: names[i%3], Concurrency: 1, UntilDone: true}}}
			if _, err := w.nodes[2].Send(ctx, in); err != nil {
				t.Fatal(err)
			}
		}
		set := func(by uint64, name string, most int32) {
			t.Helper()
			change := &recordv1.Rules{Set: []*recordv1.LimitRule{{Name: name, Concurrency: &recordv1.Bound{Most: most}}}}
			if _, err := w.nodes[by].ChangeRules(ctx, change); err != nil {
				t.Fatal(err)
			}
		}
		reach := func(by uint64) {
			t.Helper()
			bounded, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			if err := w.nodes[by].AwaitRules(bounded); err != nil {
				t.Fatal(err)
			}
		}
		// holds looks from each node: how many hold permits of each limit, and by which rule.
		holds := func(when string, want ...string) {
			t.Helper()
			time.Sleep(2 * time.Second) // of fake time: what was sent has arrived, and who may begin has begun
			for _, n := range w.nodes {
				all, err := n.Limits(ctx, routing.LimitQuery{})
				var got []string
				for _, l := range all {
					got = append(got, fmt.Sprintf("%s: %d of %d by %s instead of %d", strings.TrimPrefix(l.Name, bankAccount), l.Held, l.Concurrency, strings.TrimPrefix(l.Rule, bankAccount), l.Declared.Concurrency))
				}
				slices.Sort(got)
				if err != nil || !slices.Equal(got, want) {
					t.Errorf("%s, on node %d: %q, %v, want %q", when, n.id, got, err, want)
				}
			}
		}
		holds("as declared", "/a: 1 of 1 by  instead of 0", "/b: 1 of 1 by  instead of 0", "/c=x: 1 of 1 by  instead of 0")
		set(1, bankAccount+"/a", 2)
		set(2, bankAccount+"/c=x*", 3)
		set(3, bankAccount+"/c", 4)
		reach(1)
		raised := []string{"/a: 2 of 2 by /a instead of 1", "/b: 1 of 1 by  instead of 0", "/c=x: 3 of 3 by /c=x* instead of 1"}
		holds("by rules of three nodes", raised...)

		for _, g := range w.groups { // and each limit's owner is led by another one
			g.lead(uint64(g.id+1)%3+1, 0)
		}
		holds("with other leaders", raised...)

		w.cut.Store(w.groups[0].leader(), true)
		set(w.groups[home-1].leader(), bankAccount+"/b", 3)
		bounded, cancel := context.WithTimeout(ctx, time.Second)
		err := w.nodes[w.groups[home-1].leader()].AwaitRules(bounded)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("all partitions have the rules, without partition 1: %v", err)
		}
		page, err := w.nodes[w.groups[home-1].leader()].RulesPage(ctx, routing.RuleQuery{Prefix: bankAccount, Limit: 2})
		if err != nil || len(page.Rules) != 2 || !page.More || !slices.Contains(page.Missing, 1) {
			t.Errorf("a page is %v, %v", page, err)
		}
		w.cut.Clear()
		w.groups[0].lead(w.groups[home-1].leader(), 0)
		reach(2)
		holds("by the last rule", "/a: 2 of 2 by /a instead of 1", "/b: 3 of 3 by /b instead of 1", "/c=x: 3 of 3 by /c=x* instead of 1")
		for _, n := range w.nodes {
			page, err := n.RulesPage(ctx, routing.RuleQuery{After: bankAccount + "/a"})
			if err != nil || len(page.Rules) != 3 || page.More || len(page.Missing) > 0 || page.Version != 4 {
				t.Errorf("node %d: %v, %v", n.id, page, err)
			}
			if _, err := n.ChangeRules(ctx, &recordv1.Rules{}); code(err) != routing.CodeInvalidArgument {
				t.Errorf("node %d: no change: %v", n.id, err)
			}
		}
	})
}
