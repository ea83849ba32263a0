package workload

import (
	"bytes"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/perdure/perdure/bench/internal/system"
)

func TestZipfianDrawsByRank(t *testing.T) {
	const count, draws = 1000, 400_000
	for _, exponent := range []float64{0, 0.9, 0.99} {
		keys := Keys{Count: count, Choice: Choice{Zipf: exponent}, Random: rand.New(rand.NewPCG(1, 2))}
		drawn := make([]int, count)
		for range draws {
			drawn[keys.Draw()]++
		}
		sum := 0.0
		for r := range count {
			sum += math.Pow(float64(r+1), -exponent)
		}
		for _, r := range []int{0, 1, 9, 99, count - 1} {
			want := draws * math.Pow(float64(r+1), -exponent) / sum
			// Five standard deviations of a count.
			if got := float64(drawn[r]); math.Abs(got-want) > 5*math.Sqrt(want) {
				t.Errorf("exponent %v: key %d drawn %v times, want about %.0f", exponent, r, got, want)
			}
		}
	}
}

func TestDistinctKeysDiffer(t *testing.T) {
	keys := Keys{Count: 8, Choice: Choice{Zipf: 0.99}, Random: rand.New(rand.NewPCG(1, 2))}
	for range 100 {
		seen := map[string]bool{}
		for _, name := range keys.Distinct("k", 8) {
			seen[name] = true
		}
		if len(seen) != 8 {
			t.Fatalf("drew %v, want 8 different keys", seen)
		}
	}
}

// TestOneByOneIsTheSameWork counts the keys that a call touches in both forms.
func TestOneByOneIsTheSameWork(t *testing.T) {
	instance := &system.Instance{}
	random := func() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }
	for _, count := range []int{2, 4, 8} {
		together, apart := Mix(count, Choice{}).Calls(instance, random()), MixOneByOne(count, Choice{}).Calls(instance, random())
		updates, keys := 0, 0
		for i := range together {
			if len(together[i]) != 1 || len(apart[i]) != count {
				t.Fatalf("%d keys: %d requests together and %d apart", count, len(together[i]), len(apart[i]))
			}
			for _, request := range apart[i] {
				_, body, _ := bytes.Cut(request, []byte("\r\n\r\n"))
				if !bytes.Contains(together[i][0], body) {
					t.Fatalf("%d keys: %s is not in the transaction", count, body)
				}
				keys++
				if bytes.Contains(request, []byte("/Update ")) {
					updates++
				}
			}
		}
		if share := float64(updates) / float64(keys); math.Abs(share-0.5) > 0.02 {
			t.Errorf("%d keys: %.2f of the operations write, want half", count, share)
		}
	}
	requests := 0
	apart := SmallBankOneByOne(Choice{}).Calls(instance, random())
	for _, call := range apart {
		requests += len(call)
	}
	// 15 % each of 2, 1, 1, 3 and 2 calls, and 25 % of 2.
	if mean := float64(requests) / float64(len(apart)); math.Abs(mean-1.85) > 0.05 {
		t.Errorf("%.2f calls of accounts make up a transaction of SmallBank, want about 1.85", mean)
	}
}
