package replica_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/perdure/perdure/cluster/replica"
	"github.com/perdure/perdure/storage"
	"github.com/perdure/perdure/storage/badgerstore"
	"github.com/perdure/perdure/storage/nodelog"
)

// sequencer is what a partition is to its group: it numbers records and wakes who waits.
type sequencer struct {
	group *replica.Group
	ready chan struct{}

	mu struct {
		sync.Mutex
		epoch, next, committed uint64
		waiting                []waiter
	}
}

type waiter struct {
	sequence uint64
	wake     chan struct{}
}

func (s *sequencer) Lead(epoch uint64) {
	s.mu.Lock()
	s.mu.epoch, s.mu.next, s.mu.committed = epoch, 1, 0
	s.mu.Unlock()
	close(s.ready)
}

func (s *sequencer) StepDown(uint64, error) {}

func (s *sequencer) LeaderChanged(uint64, uint64) {}

func (s *sequencer) Applied(uint64, uint64) {}

func (s *sequencer) Committed(_, sequence uint64) {
	s.mu.Lock()
	n := 0
	for n < len(s.mu.waiting) && s.mu.waiting[n].sequence <= sequence {
		s.mu.waiting[n].wake <- struct{}{}
		n++
	}
	s.mu.waiting = append(s.mu.waiting[:0], s.mu.waiting[n:]...)
	s.mu.Unlock()
}

func (s *sequencer) commit(payload []byte, wake chan struct{}) error {
	for {
		s.mu.Lock()
		sequence := s.mu.next
		err := s.group.Propose(s.mu.epoch, sequence, payload)
		if err == nil {
			s.mu.next++
			s.mu.waiting = append(s.mu.waiting, waiter{sequence, wake})
		}
		s.mu.Unlock()
		if err == nil {
			<-wake
			return nil
		}
		if err != replica.ErrBacklog {
			return err
		}
		time.Sleep(time.Millisecond) // a benchmark's stand-in for waiting for Applied
	}
}

// discard is a log that takes about a millisecond (a sleep of 0.3), as a slow sync does, and hardly
// any CPU.
type discard struct {
	sync.Mutex
	groups map[uint32]*bounds
}

type bounds struct {
	state     []byte
	last      uint64
	firstTerm uint64
	first     uint64
	entries   []nodelog.Entry
}

func (d *discard) Append(writes []nodelog.GroupWrite) error {
	time.Sleep(300 * time.Microsecond)
	d.Lock()
	defer d.Unlock()
	for _, w := range writes {
		b := d.groups[w.Group]
		if b == nil {
			b = &bounds{first: 1}
			d.groups[w.Group] = b
		}
		for _, e := range w.Entries {
			b.entries = append(b.entries, e)
			b.last = e.Index
		}
		if w.State != nil {
			b.state = append(b.state[:0], w.State...)
		}
	}
	return nil
}

func (d *discard) Groups() []uint32 { return nil }

func (d *discard) State(group uint32) []byte { return d.groups[group].state }

func (d *discard) Bounds(group uint32) (uint64, uint64) {
	b := d.groups[group]
	return b.first, b.last
}

func (d *discard) Term(group uint32, index uint64) (uint64, error) {
	b := d.groups[group]
	if index < b.first {
		return b.firstTerm, nil
	}
	return b.entries[index-b.first].Term, nil
}

func (d *discard) Entries(group uint32, lo, hi, _ uint64) ([]nodelog.Entry, error) {
	b := d.groups[group]
	return b.entries[lo-b.first : hi-b.first], nil
}

func (d *discard) TruncatePrefix(group uint32, index, term uint64) {
	d.Lock()
	defer d.Unlock()
	b := d.groups[group]
	b.entries = slices.Clone(b.entries[index+1-b.first:])
	b.first, b.firstTerm = index+1, term
}

func (d *discard) Close() error { return nil }

// empty is a store that forgets.
type empty struct{}

func (empty) Snapshot() storage.Snapshot                             { return empty{} }
func (empty) Commit(*storage.Batch) error                            { return nil }
func (empty) Close() error                                           { return nil }
func (empty) Get([]byte) ([]byte, bool, error)                       { return nil, false, nil }
func (empty) Scan(_, _ []byte, _ func(key, value []byte) bool) error { return nil }
func (empty) Release()                                               {}

func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func measure(b *testing.B, log replica.Log, store storage.Store, proposers, groups int) {
	var ids []replica.GroupID
	for id := range replica.GroupID(groups) {
		ids = append(ids, id)
	}
	host, err := replica.Open(replica.Config{Log: log, Store: store, NodeID: 1, Groups: ids, Found: true, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	var sequencers []*sequencer
	for _, id := range ids {
		s := &sequencer{ready: make(chan struct{})}
		s.group = host.Attach(id, s)
		sequencers = append(sequencers, s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- host.Run(ctx) }()
	for _, s := range sequencers {
		<-s.ready
	}

	latencies := make([][]time.Duration, proposers)
	var wg sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	cpu := cpuTime()
	for p := range proposers {
		count := b.N / proposers
		if p < b.N%proposers {
			count++
		}
		wg.Go(func() {
			s := sequencers[p%groups]
			wake := make(chan struct{}, 1)
			key := make([]byte, 16)
			value := make([]byte, 230)
			for i := range count {
				binary.BigEndian.PutUint64(key, uint64(p*1000+i%1000))
				var batch storage.Batch
				batch.Put(key, value)
				begin := time.Now()
				if err := s.commit(batch.AppendEncoded(make([]byte, 0, 256)), wake); err != nil {
					b.Error(err)
					return
				}
				latencies[p] = append(latencies[p], time.Since(begin))
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	cpu = cpuTime() - cpu
	all := slices.Concat(latencies...)
	slices.Sort(all)
	b.ReportMetric(float64(cpu.Nanoseconds())/float64(b.N)/1e3, "cpu-µs/op")
	if len(all) > 0 {
		b.ReportMetric(float64(all[len(all)/2].Nanoseconds())/1e3, "p50-µs")
		b.ReportMetric(float64(all[len(all)*99/100].Nanoseconds())/1e3, "p99-µs")
	}
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}

var shapes = []struct{ proposers, groups int }{{1, 1}, {1, 16}, {64, 1}, {64, 16}}

// BenchmarkPropose is a record from Propose to Committed on the real log and store.
func BenchmarkPropose(b *testing.B) {
	for _, shape := range shapes {
		b.Run(fmt.Sprintf("proposers=%d/groups=%d", shape.proposers, shape.groups), func(b *testing.B) {
			dir := b.TempDir()
			log, err := nodelog.Open(nodelog.Options{Dir: filepath.Join(dir, "log"), Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				b.Fatal(err)
			}
			defer log.Close()
			store, err := badgerstore.Open(badgerstore.Options{Dir: filepath.Join(dir, "store")})
			if err != nil {
				b.Fatal(err)
			}
			defer store.Close()
			measure(b, log, store, shape.proposers, shape.groups)
		})
	}
}

// BenchmarkProposeWithoutDisk is the host's own work: see cpu-µs/op, which includes the proposers'.
func BenchmarkProposeWithoutDisk(b *testing.B) {
	for _, shape := range shapes {
		b.Run(fmt.Sprintf("proposers=%d/groups=%d", shape.proposers, shape.groups), func(b *testing.B) {
			measure(b, &discard{groups: make(map[uint32]*bounds)}, empty{}, shape.proposers, shape.groups)
		})
	}
}

// BenchmarkFloor is one writer appending 256 bytes and calling fdatasync: what no durable record
// can beat.
func BenchmarkFloor(b *testing.B) {
	file, err := os.Create(filepath.Join(b.TempDir(), "floor"))
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	data := make([]byte, 256)
	var latencies []time.Duration
	for b.Loop() {
		begin := time.Now()
		if _, err := file.Write(data); err != nil {
			b.Fatal(err)
		}
		if err := unix.Fdatasync(int(file.Fd())); err != nil {
			b.Fatal(err)
		}
		latencies = append(latencies, time.Since(begin))
	}
	slices.Sort(latencies)
	b.ReportMetric(float64(latencies[len(latencies)/2].Nanoseconds())/1e3, "p50-µs")
	b.ReportMetric(float64(latencies[len(latencies)*99/100].Nanoseconds())/1e3, "p99-µs")
}
