// Package histogram counts durations in buckets whose width grows with the value, so that a quantile is right
// within 1.6 % from a nanosecond to hours at a fixed 30 KB.
package histogram

import (
	"math"
	"math/bits"
	"time"
)

const (
	// mantissaBits is how many leading bits of a value choose its bucket: 64 buckets for each power of two.
	mantissaBits = 6
	subBuckets   = 1 << mantissaBits
	buckets      = (65 - mantissaBits) * subBuckets
)

// Histogram counts durations. The zero value is empty and ready. It is not safe for concurrent use.
type Histogram struct {
	counts [buckets]uint64
	count  uint64
	sum    time.Duration
	max    time.Duration
}

// bucketOf maps v to its bucket: values below 2*subBuckets have one each, above that they share.
func bucketOf(v uint64) int {
	shift := bits.Len64(v) - mantissaBits - 1
	if shift <= 0 {
		return int(v)
	}
	return shift<<mantissaBits + int(v>>shift)
}

// middleOf is the value in the middle of bucket i.
func middleOf(i int) uint64 {
	if i < 2*subBuckets {
		return uint64(i)
	}
	shift := i>>mantissaBits - 1
	low := uint64(i-shift<<mantissaBits) << shift
	return low + 1<<shift/2
}

// Record counts one duration. A negative one counts as zero.
func (h *Histogram) Record(d time.Duration) {
	d = max(d, 0)
	h.counts[bucketOf(uint64(d))]++
	h.count++
	h.sum += d
	h.max = max(h.max, d)
}

// Merge adds what other counted.
func (h *Histogram) Merge(other *Histogram) {
	for i, n := range other.counts {
		h.counts[i] += n
	}
	h.count += other.count
	h.sum += other.sum
	h.max = max(h.max, other.max)
}

// Count is how many durations were recorded.
func (h *Histogram) Count() uint64 { return h.count }

// Max is the longest duration recorded, exactly; 0 when there is none.
func (h *Histogram) Max() time.Duration { return h.max }

// Mean is the exact mean; 0 when nothing was recorded.
func (h *Histogram) Mean() time.Duration {
	if h.count == 0 {
		return 0
	}
	return h.sum / time.Duration(h.count)
}

// Quantile is the smallest recorded duration that at least the share q (0 to 1) of all are not above, within 1.6 %;
// 0 when nothing was recorded.
func (h *Histogram) Quantile(q float64) time.Duration {
	if h.count == 0 {
		return 0
	}
	rank := uint64(math.Ceil(min(max(q, 0), 1) * float64(h.count)))
	rank = max(rank, 1)
	var seen uint64
	for i, n := range h.counts {
		seen += n
		if seen >= rank {
			return min(time.Duration(middleOf(i)), h.max)
		}
	}
	return h.max
}
