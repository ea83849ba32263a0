package nodelog

import (
	"sync/atomic"
	"time"
)

// Stats is what the log did since Open and what it holds now.
type Stats struct {
	// Segments and Bytes are the files and their allocated size; LiveBytes is what of it are
	// entries still needed.
	Segments  int
	Bytes     int64
	LiveBytes int64
	// CachedBytes is the memory that recent entries take.
	CachedBytes int64
	// Appends are frames written; WrittenBytes all bytes written, markers and headers
	// included; CarriedBytes what of it moved old entries forward.
	Appends, Syncs             uint64
	WrittenBytes, CarriedBytes uint64
	// LastSync is how long the last fdatasync took.
	LastSync time.Duration
	// Fenced is whether an earlier write failed: see ErrFenced.
	Fenced bool
}

type counters struct {
	appends, syncs, written, carried atomic.Uint64
	// durable is the sequence of the last frame that was synced.
	durable  atomic.Uint64
	lastSync atomic.Int64
	fenced   atomic.Bool
}

// Stats returns a snapshot.
func (l *Log) Stats() Stats {
	stats := Stats{
		Appends:      l.counts.appends.Load(),
		Syncs:        l.counts.syncs.Load(),
		WrittenBytes: l.counts.written.Load(),
		CarriedBytes: l.counts.carried.Load(),
		LastSync:     time.Duration(l.counts.lastSync.Load()),
		Fenced:       l.counts.fenced.Load(),
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	stats.Segments = len(l.mu.segments)
	stats.CachedBytes = l.mu.cachedBytes
	for _, s := range l.mu.segments {
		stats.Bytes += s.capacity
		stats.LiveBytes += s.liveBytes
	}
	return stats
}
