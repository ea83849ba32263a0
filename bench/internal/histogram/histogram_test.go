package histogram

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestQuantileIsWithinTheBucketWidth(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var h Histogram
	values := make([]time.Duration, 20_000)
	for i := range values {
		values[i] = time.Duration(math.Exp(random.Float64() * 25))
		h.Record(values[i])
	}
	slices.Sort(values)
	for _, q := range []float64{0, 0.01, 0.5, 0.9, 0.99, 0.999, 1} {
		rank := max(int(math.Ceil(q*float64(len(values)))), 1)
		want, got := values[rank-1], h.Quantile(q)
		if diff := math.Abs(float64(got - want)); diff > 1+0.016*float64(want) {
			t.Errorf("Quantile(%v) = %v, want %v within 1.6 %%", q, got, want)
		}
	}
	if h.Max() != values[len(values)-1] || h.Count() != uint64(len(values)) {
		t.Errorf("Max, Count = %v, %d, want %v, %d", h.Max(), h.Count(), values[len(values)-1], len(values))
	}
}

func TestBucketsAreOrderedAndCoverEveryValue(t *testing.T) {
	for _, v := range []uint64{0, 1, 63, 64, 127, 128, 129, 255, 256, 1 << 20, 1<<20 + 1, 1<<63 - 1, math.MaxUint64} {
		i := bucketOf(v)
		if i < 0 || i >= buckets {
			t.Fatalf("bucketOf(%d) = %d, want 0 to %d", v, i, buckets-1)
		}
		if back := bucketOf(middleOf(i)); back != i {
			t.Errorf("bucketOf(middleOf(%d)) = %d: the middle lies outside its bucket", i, back)
		}
		if v > 0 && bucketOf(v-1) > i {
			t.Errorf("bucketOf(%d) > bucketOf(%d)", v-1, v)
		}
	}
}

func TestMergeAndEmpty(t *testing.T) {
	var a, b Histogram
	if a.Quantile(0.5) != 0 || a.Mean() != 0 || a.Max() != 0 {
		t.Error("an empty histogram is not all zero")
	}
	a.Record(time.Millisecond)
	b.Record(3 * time.Millisecond)
	b.Record(-1)
	a.Merge(&b)
	if a.Count() != 3 || a.Max() != 3*time.Millisecond || a.Mean() != 4*time.Millisecond/3 || a.Quantile(0) != 0 {
		t.Errorf("merged: count %d, max %v, mean %v", a.Count(), a.Max(), a.Mean())
	}
}

func BenchmarkRecord(b *testing.B) {
	var h Histogram
	for i := 0; b.Loop(); i++ {
		h.Record(time.Duration(i) * 1009)
	}
}
