package engine

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/limit/rule"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

// Limits of the model, in the order in which permits are asked for. Their owners are in
// different partitions.
var modelLimits = []*recordv1.Limit{
	{Name: "Svc/whole", Concurrency: 2, UntilDone: true},
	{Name: "Svc/slow=k", RateCount: 1, RatePerMs: 50, Burst: 2, MaxQueue: 2},
	{Name: "Svc/one", Concurrency: 1},
	{Name: "Svc/two", Concurrency: 2, RateCount: 3, RatePerMs: 100, Burst: 3, MaxQueue: 1},
	{Name: "Svc/none", Concurrency: 1, MaxQueue: -1},
}

// drawFlow puts a program under limits.
func (w *world) drawFlow(p *program) {
	t := w.t
	if !p.mode.Exclusive() && p.mode != invocation.ModeDurable || rapid.IntRange(0, 2).Draw(t, "flow") > 0 {
		return
	}
	calls := false
	for _, o := range slices.Concat(append(p.early, p.ops)...) {
		calls = calls || o.kind == "call"
	}
	p.flow = &recordv1.Flow{
		Tenant:   rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "tenant"),
		Priority: rapid.SampledFrom([]int32{0, 0, 5, -100}).Draw(t, "priority"),
	}
	for _, limit := range modelLimits {
		switch {
		case limit.Concurrency > 0 && !p.mode.Journaled(): // A TRANSACTION holds no permits.
		case limit.UntilDone && calls: // It would wait for what waits for it: the users' deadlock.
		case rapid.IntRange(0, 2).Draw(t, limit.Name) == 0:
			p.flow.Limits = append(p.flow.Limits, limit)
		}
	}
	if p.key != "" && rapid.IntRange(0, 4).Draw(t, "per key") == 0 {
		p.flow.Limits = append(p.flow.Limits, &recordv1.Limit{Name: "Svc/key=" + p.key, RateCount: 1, RatePerMs: 20, Burst: 1, Local: true})
	}
}

// modelRules are the names of rules of the model: for a whole limit, for what it counts apart, and for
// beginnings of that.
var modelRules = []string{"Svc/whole", "Svc/slow", "Svc/slow=k", "Svc/slow=k*", "Svc/one", "Svc/two", "Svc/none", "Svc/key", "Svc/key=k1"}

// rulesHome is the leader that decides about rules.
func (w *world) rulesHome() *leader { return w.leaders[RulesHome(modelPartitions)-1] }

// changeRules does what an operator does.
func (w *world) changeRules() {
	t := w.t
	home := w.rulesHome()
	change := &recordv1.Rules{}
	for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom(modelRules), 1, 2, rapid.ID).Draw(t, "rules") {
		if rapid.IntRange(0, 3).Draw(t, "remove") == 0 {
			change.Remove = append(change.Remove, name)
			continue
		}
		r := &recordv1.LimitRule{Name: name}
		if rapid.Bool().Draw(t, "concurrency") {
			r.Concurrency = &recordv1.Bound{Most: rapid.SampledFrom([]int32{-1, 0, 1, 2, 3}).Draw(t, "most")}
		}
		if rapid.IntRange(0, 2).Draw(t, "rate") == 0 {
			r.Rate = rapid.SampledFrom([]*recordv1.Rate{{}, {Count: 1, PerMs: 100, Burst: 1}, {Count: 5, PerMs: 50, Burst: 5}}).Draw(t, "rate")
		}
		if r.Concurrency == nil && r.Rate == nil || rapid.IntRange(0, 2).Draw(t, "queue") == 0 {
			r.MaxQueue = &recordv1.Bound{Most: rapid.SampledFrom([]int32{-1, 0, 1}).Draw(t, "queued")}
		}
		change.Set = append(change.Set, r)
	}
	w.putRules(home, change)
	if rapid.Bool().Draw(t, "await") {
		token := home.newToken(invocation.ID{})
		w.awaited[token] = home.engine.Limits().Book().Version()
		home.evaluate(&AwaitRules{Token: token})
	}
}

func (w *world) putRules(home *leader, change *recordv1.Rules) {
	// The book is noted before it is looked at: see checkRules.
	book := home.engine.Limits().Book()
	next, err := book.Change(change, modelPartitions, w.now)
	if err != nil {
		w.t.Fatalf("the rules %v are refused: %v", change, err)
	}
	if next != nil {
		var after rule.Book
		page, _ := book.Page("", "", 100)
		for _, r := range page {
			if err := after.Put(r); err != nil {
				w.t.Fatal(err)
			}
		}
		if err := after.Take(next); err != nil {
			w.t.Fatal(err)
		}
		w.books[next.Version] = bookText(&after)
	}
	home.evaluate(&ChangeRules{Change: change, Token: home.newToken(invocation.ID{})})
}

func bookText(b *rule.Book) string {
	var text strings.Builder
	page, _ := b.Page("", "", 100)
	for _, r := range page {
		fmt.Fprintf(&text, "%s %v %v %v; ", r.Name, r.Concurrency, r.Rate, r.MaxQueue)
	}
	return text.String()
}

// removeRules removes what may keep invocations from ever running.
func (w *world) removeRules() bool {
	home := w.rulesHome()
	change := &recordv1.Rules{}
	page, _ := home.engine.Limits().Book().Page("", "", 100)
	for _, r := range page {
		change.Remove = append(change.Remove, r.Name)
	}
	if len(change.Remove) == 0 {
		return false
	}
	w.putRules(home, change)
	return true
}

// checkRules holds after every event: each partition has the book as it was after some change, the one
// it says, and none that may still be taken back.
func (w *world) checkRules(l *leader) {
	book, home := l.engine.Limits().Book(), w.rulesHome()
	if l.checked == book && l.version == book.Version() {
		return // It was looked at when it came.
	}
	l.checked, l.version = book, book.Version()
	if got, want := bookText(book), w.books[book.Version()]; got != want {
		w.t.Fatalf("partition %d: the rules of version %d are %q, not %q", l.id, book.Version(), got, want)
	}
	if durable := home.durableRules(); l != home && book.Version() > durable {
		w.t.Fatalf("partition %d has rules of version %d, and version %d is durable where they are decided", l.id, book.Version(), durable)
	}
}

// durableRules is the version of the rules that a crash leaves.
func (l *leader) durableRules() uint64 {
	row := &recordv1.RuleBook{}
	value, _ := l.durable.rows.Get(string(table.RuleBook()))
	if err := proto.Unmarshal(value, row); err != nil {
		l.world.t.Fatal(err)
	}
	return row.Version
}

// rulesReached is called when somebody hears that all partitions have the rules.
func (w *world) rulesReached(token Token) {
	version, ok := w.awaited[token]
	for _, l := range w.leaders {
		if ok && l.durableRules() < version {
			w.t.Fatalf("partition %d has rules of version %d, and all were said to have version %d", l.id, l.durableRules(), version)
		}
	}
}

// checkLimits holds after every event: no limit lets one more run than it says, in all partitions
// together, and what runs has been let.
func (w *world) checkLimits() {
	running := map[string]int{}
	held := map[string]int{}
	if len(w.leaders) < modelPartitions {
		return // The first ones are just being made.
	}
	for _, l := range w.leaders {
		for id, a := range l.attempts {
			lv := l.engine.live[id]
			if a.program.flow == nil || lv == nil {
				continue
			}
			if f := lv.row.Flow; f != nil && int(f.Held) != len(f.Limits) {
				w.t.Fatalf("%s runs and has %d permits of %d", a.program.name, f.Held, len(f.Limits))
			}
			for _, limit := range a.program.flow.Limits {
				if limit.Concurrency > 0 {
					running[limit.Name]++
				}
			}
		}
		w.checkRules(l)
		book := l.engine.Limits().Book()
		for _, s := range l.engine.Limits().Statuses("", false, 1000, w.now) {
			if want := rule.Apply(book.Of(s.Name), s.Declared); s.Settings != want {
				w.t.Fatalf("partition %d: %s lets %+v, by its rules %+v", l.id, s.Name, s.Settings, want)
			}
			held[s.Name] = s.Held
			most := s.Settings.Concurrency
			// A crash may take back that one was given back.
			if most != 0 && s.Held > max(most, 0) && s.Held > w.held[s.Name] && !l.recovered {
				w.t.Fatalf("partition %d: one more permit of %s is held: %d, and it has %d", l.id, s.Name, s.Held, max(most, 0))
			}
			if s.Settings.Rate.Count > 0 {
				continue // A token that has come is seen when the timer fires.
			}
			if s.Waiting > 0 && (most == 0 || s.Held < most) {
				w.t.Fatalf("partition %d: one that waits could begin under %s and nobody let it", l.id, s.Name)
			}
		}
	}
	for name, n := range running {
		if n > held[name] {
			w.t.Fatalf("%d run under %s, and %d permits are held", n, name, held[name])
		}
	}
	w.held = held
	for _, l := range w.leaders {
		l.recovered = false
	}
}

// suspendAll unwinds the handlers that wait, as the invoker does with time.
func (w *world) suspendAll() (did bool) {
	for _, l := range w.leaders {
		for _, a := range l.sortedAttempts() {
			if l.attempts[a.id] == a {
				a.suspend()
				did = did || l.attempts[a.id] != a
			}
		}
	}
	return did
}

// flowText is for describe.
func flowText(row *recordv1.Invocation) string {
	if row.Flow == nil {
		return ""
	}
	return fmt.Sprintf(" %d of %d limits, ask %d", row.Flow.Held, len(row.Flow.Limits), row.Flow.Ask)
}
