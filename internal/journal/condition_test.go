package journal

import (
	"errors"
	"math/rand/v2"
	"testing"

	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// judgePlainly is what Decided says, by the definition of the quantifiers.
func judgePlainly(c *recordv1.Condition, completed map[uint32]bool) (done, failure bool) {
	if c.GetQuantifier() == recordv1.Quantifier_QUANTIFIER_ENTRY {
		if c.GetEntry() == 0 {
			return true, true
		}
		failed, ok := completed[c.GetEntry()]
		return ok, failed
	}
	parts := c.GetParts()
	for _, entry := range c.GetEntries() {
		parts = append(parts, &recordv1.Condition{Entry: entry})
	}
	all := true
	for position, part := range parts {
		was, failed := judgePlainly(part, completed)
		all = all && was
		switch c.GetQuantifier() {
		case recordv1.Quantifier_QUANTIFIER_FIRST:
			if was {
				return true, failed
			}
		case recordv1.Quantifier_QUANTIFIER_ANY:
			if was && !failed {
				return true, false
			}
		case recordv1.Quantifier_QUANTIFIER_ALL:
			if was && failed {
				return true, true
			}
		case recordv1.Quantifier_QUANTIFIER_TIMEOUT:
			if was {
				return true, failed || position == 1
			}
		}
	}
	return all, all && c.GetQuantifier() == recordv1.Quantifier_QUANTIFIER_ANY
}

func arbitraryCondition(choice *rand.Rand, depth int) *recordv1.Condition {
	c := &recordv1.Condition{Quantifier: recordv1.Quantifier(choice.IntN(6))}
	if depth == 0 || c.Quantifier == recordv1.Quantifier_QUANTIFIER_ENTRY {
		return &recordv1.Condition{Entry: uint32(choice.IntN(8))}
	}
	count := choice.IntN(4)
	if c.Quantifier == recordv1.Quantifier_QUANTIFIER_TIMEOUT {
		count = 2
	}
	flat := choice.IntN(3) == 0
	for range count {
		if flat {
			c.Entries = append(c.Entries, uint32(1+choice.IntN(7)))
		} else {
			c.Parts = append(c.Parts, arbitraryCondition(choice, depth-1))
		}
	}
	return c
}

// TestDecided lets the entries of arbitrary conditions complete one after the other.
func TestDecided(t *testing.T) {
	for seed := range uint64(20_000) {
		choice := rand.New(rand.NewPCG(seed, 1))
		c := arbitraryCondition(choice, 3)
		completed := map[uint32]bool{}
		ended := func(entry uint32) (bool, bool, error) {
			failed, ok := completed[entry]
			return ok, failed, nil
		}
		changed := uint32(0)
		for {
			want, _ := judgePlainly(c, completed)
			got, err := Decided(c, changed, ended)
			full, fullErr := Decided(c, 0, ended)
			if err != nil || fullErr != nil || got != want || full != want {
				t.Fatalf("seed %d: %s with %v, %d completed last: %v %v, in full %v %v, want %v", seed, DescribeCondition(c), completed, changed, got, err, full, fullErr, want)
			}
			if want || len(completed) == 7 {
				break
			}
			for changed = 0; changed == 0; {
				entry := uint32(1 + choice.IntN(7))
				if _, ok := completed[entry]; !ok {
					changed = entry
				}
			}
			completed[changed] = choice.IntN(2) == 0
		}
	}
}

func TestDecidedLooksAtLittle(t *testing.T) {
	c := &recordv1.Condition{Quantifier: recordv1.Quantifier_QUANTIFIER_ALL}
	for entry := range uint32(10_000) {
		c.Entries = append(c.Entries, entry+1)
	}
	looks := 0
	for entry := uint32(1); entry < 10_000; entry++ {
		decided, err := Decided(c, entry, func(asked uint32) (bool, bool, error) { looks++; return asked <= entry, false, nil })
		if decided || err != nil {
			t.Fatal(entry, decided, err)
		}
	}
	if looks > 20_000 {
		t.Errorf("%d looks for 9,999 completions", looks)
	}
}

func TestDecidedFails(t *testing.T) {
	broken := errors.New("broken")
	c := &recordv1.Condition{Quantifier: recordv1.Quantifier_QUANTIFIER_ALL, Entries: []uint32{1}}
	if _, err := Decided(c, 0, func(uint32) (bool, bool, error) { return false, false, broken }); !errors.Is(err, broken) {
		t.Error(err)
	}
}

func TestDescribeCondition(t *testing.T) {
	c := &recordv1.Condition{Quantifier: recordv1.Quantifier_QUANTIFIER_FIRST, Parts: []*recordv1.Condition{
		{Entry: 3}, {Quantifier: recordv1.Quantifier_QUANTIFIER_ALL, Entries: []uint32{4, 5}},
	}}
	if got := DescribeCondition(c); got != "the first of (3, all of (4, 5))" {
		t.Error(got)
	}
}
