package rule

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/perdure/perdure/internal/limit"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

func most(n int32) *recordv1.Bound { return &recordv1.Bound{Most: n} }

func TestNames(t *testing.T) {
	for text, want := range map[string]Name{
		"a.v1.S/x":        {Declared: "a.v1.S/x"},
		"a.v1.S/H/x":      {Declared: "a.v1.S/H/x"},
		"a.v1.S/x=alice":  {Declared: "a.v1.S/x", Value: "alice", Apart: true},
		"a.v1.S/x=a/b=c":  {Declared: "a.v1.S/x", Value: "a/b=c", Apart: true},
		"a.v1.S/x=":       {Declared: "a.v1.S/x", Apart: true},
		"a.v1.S/x=al*":    {Declared: "a.v1.S/x", Value: "al", Apart: true, Prefix: true},
		"a.v1.S/x=a*l":    {Declared: "a.v1.S/x", Value: "a*l", Apart: true},
		"a.v1.S/H/x=y=z*": {Declared: "a.v1.S/H/x", Value: "y=z", Apart: true, Prefix: true},
	} {
		got, err := ParseName(text)
		if err != nil || got != want || got.String() != text {
			t.Errorf("%s is %+v (%s), %v", text, got, got, err)
		}
	}
	if got, err := ParseName("a.v1.S/x=*"); err != nil || got.String() != "a.v1.S/x" {
		t.Errorf("every value is %v, %v", got, err)
	}
	for text, want := range map[string]string{
		"":                        "empty",
		"x":                       "SERVICE/LIMIT",
		"a.v1.S/":                 "SERVICE/LIMIT",
		"/x":                      "SERVICE/LIMIT",
		"a.v1.S/H/x/y":            "SERVICE/LIMIT",
		"a.v1.S/*":                "only the last letter",
		"*=alice":                 "SERVICE/LIMIT",
		"a.v1.S/x=\xff":           "utf-8",
		strings.Repeat("x", 2000): "1024",
	} {
		if _, err := ParseName(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

// TestMostExactCounts compares a book with a search through all of its rules.
func TestMostExactCounts(t *testing.T) {
	names := []string{"s/x", "s/x=", "s/x=a", "s/x=ab", "s/x=a*", "s/x=ab*", "s/x=abc*", "s/x=b*", "s/y", "s/y=a*", "s/H/x"}
	rapid.Check(t, func(t *rapid.T) {
		var book Book
		there := map[string]*recordv1.LimitRule{}
		for range rapid.IntRange(0, 20).Draw(t, "changes") {
			name := rapid.SampledFrom(names).Draw(t, "name")
			if rapid.Bool().Draw(t, "remove") {
				book.Remove(name)
				delete(there, name)
				continue
			}
			there[name] = &recordv1.LimitRule{Name: name, Concurrency: most(rapid.Int32Range(-1, 9).Draw(t, "most"))}
			if err := book.Put(there[name]); err != nil {
				t.Fatal(err)
			}
		}
		if book.Len() != len(there) {
			t.Fatalf("%d rules of %d", book.Len(), len(there))
		}
		for _, of := range []string{"s/x", "s/x=", "s/x=a", "s/x=ab", "s/x=abc", "s/x=abcd", "s/x=b", "s/x=c", "s/y=ab", "s/y", "s/H/x", "s/z", "t/x"} {
			var want *recordv1.LimitRule
			longest := -1
			for name, r := range there {
				exact := -1
				declared, _, _ := strings.Cut(of, "=")
				switch prefix, star := strings.CutSuffix(name, "*"); {
				case name == of && name != declared:
					exact = 1000
				case star && strings.HasPrefix(of, prefix) && of != declared:
					exact = len(prefix)
				case name == declared:
					exact = 0
				}
				if exact > longest {
					want, longest = r, exact
				}
			}
			if got := book.Of(of); got != want {
				t.Fatalf("for %s counts %v, not %v of %v", of, got.GetName(), want.GetName(), there)
			}
		}
	})
}

func TestApply(t *testing.T) {
	declared := limit.Settings{Concurrency: 5, Rate: limit.Rate{Count: 10, Per: 1000, Burst: 20}, MaxQueue: 100}
	for _, c := range []struct {
		rule *recordv1.LimitRule
		want limit.Settings
	}{
		{nil, declared},
		{&recordv1.LimitRule{Concurrency: most(2)}, limit.Settings{Concurrency: 2, Rate: declared.Rate, MaxQueue: 100}},
		{&recordv1.LimitRule{Concurrency: most(limit.None)}, limit.Settings{Concurrency: limit.None, Rate: declared.Rate, MaxQueue: 100}},
		{&recordv1.LimitRule{Concurrency: most(0), Rate: &recordv1.Rate{}, MaxQueue: most(0)}, limit.Settings{}},
		{
			&recordv1.LimitRule{Rate: &recordv1.Rate{Count: 1, PerMs: 60_000, Burst: 3}, MaxQueue: most(limit.NoQueue)},
			limit.Settings{Concurrency: 5, Rate: limit.Rate{Count: 1, Per: 60_000, Burst: 3}, MaxQueue: limit.NoQueue},
		},
	} {
		if got := Apply(c.rule, declared); got != c.want {
			t.Errorf("%v makes it %+v", c.rule, got)
		}
	}
	// Nobody holds a permit of a limit without a concurrency.
	if got := Apply(&recordv1.LimitRule{Concurrency: most(1)}, limit.Settings{Rate: declared.Rate}); got.Concurrency != 0 {
		t.Errorf("a concurrency where none is declared makes it %+v", got)
	}
}

func TestChange(t *testing.T) {
	var book Book
	ask := func(change *recordv1.Rules, partitions uint32) (*recordv1.Rules, error) {
		next, err := book.Change(change, partitions, 7)
		if next != nil {
			if err := book.Take(next); err != nil {
				t.Fatal(err)
			}
		}
		return next, err
	}
	set := func(rules ...*recordv1.LimitRule) *recordv1.Rules { return &recordv1.Rules{Set: rules} }
	one := &recordv1.LimitRule{Name: "s/x", Concurrency: most(1)}
	if next, err := ask(set(one), 4); err != nil || next.Version != 1 || next.Set[0].SetAt != 7 || one.SetAt != 0 {
		t.Errorf("the first change is %v, %v", next, err)
	}
	if next, err := ask(set(one), 4); err != nil || next != nil {
		t.Errorf("the same again is %v, %v", next, err)
	}
	if next, err := ask(&recordv1.Rules{Set: []*recordv1.LimitRule{one, {Name: "s/y=a*", MaxQueue: most(3)}}, Remove: []string{"s/z"}}, 4); err != nil || next.Version != 2 || len(next.Set) != 1 || len(next.Remove) != 0 {
		t.Errorf("what is new of three is %v, %v", next, err)
	}
	for _, c := range []struct {
		change     *recordv1.Rules
		partitions uint32
		want       []string
	}{
		{set(), 4, []string{"0 rules"}},
		{&recordv1.Rules{Remove: make([]string, MaxChange+1)}, 4, []string{"101 rules"}},
		{set(one, one), 4, []string{"s/x is there twice"}},
		{&recordv1.Rules{Set: []*recordv1.LimitRule{one}, Remove: []string{"s/x"}}, 4, []string{"twice"}},
		// All that is wrong is told at once.
		{
			set(&recordv1.LimitRule{Name: "s/a"}, &recordv1.LimitRule{Name: "nothing"}, &recordv1.LimitRule{Name: "s/b", Concurrency: most(-2), MaxQueue: most(2_000_000_000)}), 4,
			[]string{"s/a says nothing", `"nothing" is not`, "the concurrency is -2", "the bound of those that wait is 2000000000"},
		},
		{set(&recordv1.LimitRule{Name: "s/x=*", Concurrency: most(1)}), 4, []string{"must be written s/x"}},
		{set(&recordv1.LimitRule{Name: "s/x", Rate: &recordv1.Rate{Count: 1}}), 4, []string{"each 0 ms"}},
		{set(&recordv1.LimitRule{Name: "s/x", Rate: &recordv1.Rate{Count: 1, PerMs: limit.MaxPer + 1, Burst: 1}}), 4, []string{"366 days"}},
		{set(&recordv1.LimitRule{Name: "s/x", Rate: &recordv1.Rate{Count: -1, PerMs: 1, Burst: 1}}), 4, []string{"1 or more"}},
		{set(&recordv1.LimitRule{Name: "s/x", Rate: &recordv1.Rate{Count: 1, PerMs: limit.MaxPer, Burst: 1 << 40}}), 4, []string{"can be counted"}},
		{set(&recordv1.LimitRule{Name: "s/x", MaxQueue: most(1), Description: strings.Repeat("x", 501)}), 4, []string{"501 bytes"}},
		{set(&recordv1.LimitRule{Name: "s/x", MaxQueue: most(1), Description: strings.Repeat("x", 500)}, &recordv1.LimitRule{Name: "s/y", MaxQueue: most(1), Description: strings.Repeat("x", 500)}), 1024, []string{"1024 partitions", "make several"}},
	} {
		before := book.Version()
		_, err := ask(c.change, c.partitions)
		for _, want := range c.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v: %v, want %s", c.change, err, want)
			}
		}
		if refused, ok := err.(*Refused); !ok || refused.Full || book.Version() != before {
			t.Errorf("%v: %#v", c.change, err)
		}
	}
}

func TestFullBookAndPages(t *testing.T) {
	var book Book
	for i := range MaxRules {
		if err := book.Put(&recordv1.LimitRule{Name: fmt.Sprintf("s/x=%05d", i), Concurrency: most(1)}); err != nil {
			t.Fatal(err)
		}
	}
	_, err := book.Change(&recordv1.Rules{Set: []*recordv1.LimitRule{{Name: "s/y", Concurrency: most(1)}}}, 4, 7)
	if refused, ok := err.(*Refused); !ok || !refused.Full || !strings.Contains(err.Error(), "10000") {
		t.Errorf("one too many: %v", err)
	}
	if _, err := book.Change(&recordv1.Rules{Set: []*recordv1.LimitRule{{Name: "s/y", Concurrency: most(1)}}, Remove: []string{"s/x=00001"}}, 4, 7); err != nil {
		t.Errorf("one for another: %v", err)
	}
	page, more := book.Page("s/x=000", "s/x=00097", 10)
	if len(page) != 2 || more || page[1].Name != "s/x=00099" {
		t.Errorf("the end of what begins so is %v, %v", page, more)
	}
	if page, more = book.Page("", "", 3); len(page) != 3 || !more || page[0].Name != "s/x=00000" {
		t.Errorf("the first page is %v, %v", page, more)
	}
}
