package replica

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/perdure/perdure/storage"
	"github.com/perdure/perdure/storage/memstore"
	"github.com/perdure/perdure/storage/nodelog"
)

var (
	crashSeed = flag.Uint64("crash.seed", 0, "run only this seed of TestCrashAtEveryStep")
	crashRuns = flag.Int("crash.runs", 12, "how many seeds TestCrashAtEveryStep runs")
)

// crashImage is what a power failure leaves, and what had been promised before it.
type crashImage struct {
	step  string
	log   Log
	store *memstore.Store
	acked map[GroupID]map[uint64]uint64 // partition → epoch → sequence Committed
}

// crashRecorder takes an image at every append and every store commit, before and after.
type crashRecorder struct {
	log   *memLog
	store *memstore.Store
	rand  *rand.Rand // of the program

	mu struct {
		sync.Mutex
		rand     *rand.Rand // of the images
		watchers map[GroupID]*watcher
		acked    map[GroupID]map[uint64]uint64 // of earlier runs
		images   []crashImage
	}
}

func (r *crashRecorder) take(step string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.watchers == nil {
		return
	}
	acked := make(map[GroupID]map[uint64]uint64)
	for id, w := range r.mu.watchers {
		acked[id] = maps.Clone(r.mu.acked[id])
		if acked[id] == nil {
			acked[id] = make(map[uint64]uint64)
		}
		w.mu.Lock()
		maps.Copy(acked[id], w.mu.committed)
		w.mu.Unlock()
	}
	seed := r.mu.rand.Uint64()
	r.log.frozen(func(log *memLog) {
		r.mu.images = append(r.mu.images, crashImage{
			step: fmt.Sprintf("%s #%d", step, len(r.mu.images)), log: log, store: r.store.Clone(seed), acked: acked,
		})
	})
}

// crashRecord is the payload of (epoch, sequence): a row of its own, and a row that every
// record overwrites, so that one applied twice or late shows.
func crashRecord(epoch, sequence uint64) []byte {
	id := fmt.Sprintf("%d.%d", epoch, sequence)
	return put("row/"+id, strings.Repeat("x", int(sequence%7)), "last", id)
}

// program runs groups with proposals, refused appends, and pauses until budget records were
// accepted, and returns the images on the way.
func (r *crashRecorder) program(t *testing.T, acked map[GroupID]map[uint64]uint64, budget int) []crashImage {
	cfg := config(r.log, r.store, 1, 2, 3)
	cfg.MaxApplyDelay = time.Duration(1+r.rand.IntN(3)) * time.Millisecond
	cfg.RetryDelay = time.Millisecond
	if r.rand.IntN(2) == 0 {
		cfg.MaxApplyBytes = 120 // about two records a commit
	}
	refuse := rand.New(rand.NewPCG(r.rand.Uint64(), 1))
	refuseAt := -1
	if r.rand.IntN(2) == 0 {
		refuseAt = 4 + refuse.IntN(10)
	}
	appends := 0
	r.log.gate = func(written bool) error {
		if written {
			r.take("append written")
			return nil
		}
		appends++
		if appends == refuseAt {
			r.take("append refused")
			return nodelog.ErrNoSpace
		}
		time.Sleep(time.Duration(refuse.IntN(300)) * time.Microsecond) // a disk takes its time
		r.take("append begins")
		return nil
	}
	pace := func(*Host) {}
	if r.rand.IntN(2) == 0 {
		pace = eager
	}
	n := start(t, cfg, pace)
	r.mu.Lock()
	r.mu.watchers, r.mu.acked = n.watchers, acked
	r.mu.Unlock()
	var wg sync.WaitGroup
	for _, w := range n.watchers {
		pause := rand.New(rand.NewPCG(r.rand.Uint64(), 2))
		wg.Go(func() {
			for done := 0; done < budget; {
				epoch := w.lead()
				for sequence := uint64(1); done < budget; {
					err := w.group.Propose(epoch, sequence, crashRecord(epoch, sequence))
					if errors.Is(err, ErrNotLeader) {
						break
					}
					if err != nil {
						t.Errorf("propose: %v", err)
						return
					}
					sequence++
					done++
					switch pause.IntN(4) {
					case 0, 1: // into the append after the one in progress
						time.Sleep(time.Duration(pause.IntN(200)) * time.Microsecond)
					case 2:
						w.wait("committed or stepped down", func() bool {
							return w.mu.committed[epoch] == sequence-1 || w.mu.epoch != epoch
						})
					}
				}
				w.wait("a step down, or the end", func() bool { return w.mu.epoch != epoch || done >= budget })
			}
		})
	}
	wg.Wait()
	r.take("all proposed")
	n.stop()
	r.take("stopped")
	r.log.gate = nil
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.watchers = nil
	return r.mu.images
}

// newRecorder returns a recorder of a store that clone makes, given its hook.
func newRecorder(log *memLog, seed uint64, clone func(onCommit func()) *memstore.Store) *crashRecorder {
	r := &crashRecorder{log: log, rand: rand.New(rand.NewPCG(seed, 0))}
	r.mu.rand = rand.New(rand.NewPCG(seed, 1))
	r.store = clone(func() { r.take("store commits") })
	return r
}

// check opens an image and compares what it holds with what was promised.
func (image crashImage) check(t *testing.T) {
	n, err := tryStart(t, config(image.log, image.store, 1, 2, 3))
	if err != nil {
		t.Errorf("%s: open: %v", image.step, err)
		return
	}
	defer n.stop()
	for id, w := range n.watchers {
		w.lead()
		rows := make(map[uint64]uint64) // epoch → number of rows
		highest := make(map[uint64]uint64)
		var lastEpoch, lastSequence uint64
		s := w.group.Snapshot()
		err := s.Scan(nil, nil, func(key, value []byte) bool {
			name, isRow := strings.CutPrefix(string(key), "row/")
			if !isRow {
				name = string(value)
			}
			epoch, sequence, _ := strings.Cut(name, ".")
			e, err1 := strconv.ParseUint(epoch, 10, 64)
			q, err2 := strconv.ParseUint(sequence, 10, 64)
			if err1 != nil || err2 != nil {
				t.Errorf("%s: partition %d: row %q", image.step, id, key)
			} else if isRow {
				rows[e]++
				highest[e] = max(highest[e], q)
			} else {
				lastEpoch, lastSequence = e, q
			}
			return true
		})
		s.Release()
		if err != nil {
			t.Errorf("%s: %v", image.step, err)
		}
		var newest uint64
		for epoch, n := range rows {
			if n != highest[epoch] {
				t.Errorf("%s: partition %d: epoch %d has %d records up to sequence %d: not contiguous", image.step, id, epoch, n, highest[epoch])
			}
			newest = max(newest, epoch)
		}
		for epoch, sequence := range image.acked[id] {
			if highest[epoch] < sequence {
				t.Errorf("%s: partition %d: epoch %d was committed up to %d, %d is left", image.step, id, epoch, sequence, highest[epoch])
			}
		}
		if newest != 0 && (lastEpoch != newest || lastSequence != highest[newest]) {
			t.Errorf("%s: partition %d: the last record applied is %d.%d, want %d.%d", image.step, id, lastEpoch, lastSequence, newest, highest[newest])
		}
	}
}

func TestCrashAtEveryStep(t *testing.T) {
	seeds := []uint64{*crashSeed}
	if *crashSeed == 0 {
		seeds = seeds[:0]
		for i := range *crashRuns {
			seeds = append(seeds, uint64(i+1))
		}
	}
	images := 0
	for _, seed := range seeds {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			r := newRecorder(newMemLog(), seed, func(onCommit func()) *memstore.Store {
				return memstore.New(memstore.Options{OnCommit: onCommit})
			})
			first := r.program(t, nil, 12)
			for _, image := range first {
				image.check(t)
			}
			images += len(first)
			// A second program on one of the images: crashes after a recovery. The store is
			// copied through snapshots, since a clone does not inherit the hook.
			from := first[r.rand.IntN(len(first))]
			again := newRecorder(from.log.(*memLog).clone(), seed+1000, func(onCommit func()) *memstore.Store {
				return copyStore(t, from.store, onCommit)
			})
			second := again.program(t, from.acked, 6)
			for _, image := range second {
				image.step = "after " + from.step + ": " + image.step
				image.check(t)
			}
			images += len(second)
		})
	}
	t.Logf("%d crash images recovered", images)
	if images < 20*len(seeds) {
		t.Errorf("only %d crash images: the hooks do not work", images)
	}
}

func copyStore(t *testing.T, from *memstore.Store, onCommit func()) *memstore.Store {
	t.Helper()
	var batch storage.Batch
	s := from.Snapshot()
	defer s.Release()
	err := s.Scan(nil, nil, func(key, value []byte) bool {
		batch.Put(append([]byte(nil), key...), append([]byte(nil), value...))
		return true
	})
	to := memstore.New(memstore.Options{OnCommit: onCommit})
	if err == nil {
		err = to.Commit(&batch)
	}
	if err != nil {
		t.Fatal(err)
	}
	return to
}
