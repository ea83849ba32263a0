package workload

import (
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
)

// Keys draws numbers of keys, 0 to Count-1. It is not safe for concurrent use.
type Keys struct {
	Count  int
	Choice Choice
	Random *rand.Rand

	// upTo[r] is the weight of the keys 0 to r. The standard library's Zipf wants an exponent above 1, so this is a table
	// to search; nothing is drawn while it is measured.
	upTo []float64
}

// Draw is the number of one key.
func (k *Keys) Draw() int {
	if k.Choice.Zipf == 0 {
		return k.Random.IntN(k.Count)
	}
	if k.upTo == nil {
		k.upTo = make([]float64, k.Count)
		sum := 0.0
		for r := range k.upTo {
			sum += math.Pow(float64(r+1), -k.Choice.Zipf)
			k.upTo[r] = sum
		}
	}
	at, _ := slices.BinarySearch(k.upTo, k.Random.Float64()*k.upTo[k.Count-1])
	return min(at, k.Count-1)
}

// Distinct is the names of count different keys in the order in which they were drawn, which is no order: transactions
// that lock them as they come can deadlock. There must be as many keys.
func (k *Keys) Distinct(prefix string, count int) []string {
	chosen := make([]string, 0, count)
	for len(chosen) < count {
		if name := prefix + strconv.Itoa(k.Draw()); !slices.Contains(chosen, name) {
			chosen = append(chosen, name)
		}
	}
	return chosen
}
