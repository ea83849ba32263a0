package nodelog

import (
	"errors"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/perdure/perdure/storage/vfs"
	"pgregory.net/rapid"
)

// workload runs seeded random steps with reopenings in between until one fails. It returns
// what was acknowledged and what may be there on top of it: the step in flight.
func workload(fs vfs.FS, seed uint64, steps int) (acked, inFlight model, err error) {
	random := rand.New(rand.NewPCG(seed, 1))
	acked = make(model)
	inFlight = acked
	l, err := Open(testOptions(fs))
	if err != nil {
		return acked, inFlight, err
	}
	defer func() {
		if l != nil {
			_ = l.Close()
		}
	}()
	for range steps {
		if random.IntN(15) == 0 {
			err := l.Close()
			l = nil
			if err != nil {
				return acked, acked, err
			}
			if l, err = Open(testOptions(fs)); err != nil {
				return acked, acked, err
			}
			acked.sync(l)
		}
		s := randomStep(random, acked, 1500)
		inFlight = acked.clone()
		s.model(inFlight)
		if err := s.do(l); err != nil {
			return acked, inFlight, err
		}
		acked = inFlight
	}
	return acked, acked, nil
}

// sync takes the truncation points from a log that was opened again.
func (m model) sync(l *Log) {
	for id, g := range m {
		first, _ := l.Bounds(id)
		g.truncIndex = first - 1
		g.truncTerm, _ = l.Term(id, first-1)
		m[id] = g
	}
}

// checkCrashed opens what a crash left and compares it with what was acknowledged.
func checkCrashed(t *testing.T, disk *vfs.Mem, acked, inFlight model) *Log {
	t.Helper()
	l, err := Open(testOptions(disk))
	if err != nil {
		t.Fatalf("open after crash: %v", err)
	}
	ackedErr := acked.diff(l, true)
	if ackedErr == nil {
		return l
	}
	if err := inFlight.diff(l, true); err != nil {
		t.Fatalf("neither what was acknowledged (%v) nor that and the step in flight (%v)", ackedErr, err)
	}
	return l
}

func TestPowerCutAtEveryOperation(t *testing.T) {
	const steps = 60
	seeds := uint64(3)
	if testing.Short() {
		seeds = 1
	}
	for seed := uint64(1); seed <= seeds; seed++ {
		whole := vfs.NewMem()
		if _, _, err := workload(whole, seed, steps); err != nil {
			t.Fatal(err)
		}
		total := whole.Changes()
		if whole.Ops(vfs.OpCreate) < 8 || whole.Ops(vfs.OpRemove) < 2 {
			t.Fatalf("seed %d: the workload makes %d and removes %d files: too tame", seed, whole.Ops(vfs.OpCreate), whole.Ops(vfs.OpRemove))
		}
		for cut := range total {
			mem := vfs.NewMem()
			mem.CutPowerAfter(cut)
			acked, inFlight, err := workload(mem, seed, steps)
			if err != nil && !errors.Is(err, vfs.ErrPowerCut) {
				t.Fatalf("seed %d, cut %d: %v", seed, cut, err)
			}
			for disk := uint64(0); disk < 8; disk++ {
				afterPowerCut(t, mem.PowerCut(disk*1000+uint64(cut)), acked, inFlight, cut%7 == 0)
				if t.Failed() {
					t.Fatalf("seed %d, cut %d of %d, disk %d", seed, cut, total, disk)
				}
			}
		}
	}
}

// afterPowerCut checks the log, that it goes on working, and if again is set that a second
// power cut at any operation of recovery does no harm either.
func afterPowerCut(t *testing.T, disk *vfs.Mem, acked, inFlight model, again bool) {
	t.Helper()
	if again {
		for cut := 0; ; cut++ {
			second := disk.PowerCut(0)
			second.CutPowerAfter(cut)
			l, err := Open(testOptions(second))
			if err == nil {
				_ = l.Close()
				break
			}
			if !errors.Is(err, vfs.ErrPowerCut) {
				t.Fatalf("open: %v", err)
			}
			mustClose(t, checkCrashed(t, second.PowerCut(uint64(cut)), acked, inFlight))
		}
	}
	l := checkCrashed(t, disk, acked, inFlight)
	now := acked
	if acked.diff(l, true) != nil {
		now = inFlight
	}
	now = now.clone()
	now.sync(l)
	random := rand.New(rand.NewPCG(7, 7))
	for range 3 {
		s := randomStep(random, now, 1500)
		if err := s.do(l); err != nil {
			t.Fatalf("after the crash: %s: %v", s.name, err)
		}
		s.model(now)
	}
	mustClose(t, l)
	l = mustOpen(t, testOptions(disk))
	if err := now.diff(l, true); err != nil {
		t.Fatalf("after the crash and reopening: %v", err)
	}
	mustClose(t, l)
}

// TestKillAtEveryOperation is a kill of the process: what was written is there, synced or not.
func TestKillAtEveryOperation(t *testing.T) {
	whole := vfs.NewMem()
	if _, _, err := workload(whole, 5, 60); err != nil {
		t.Fatal(err)
	}
	for cut := range whole.Changes() {
		mem := vfs.NewMem()
		mem.CutPowerAfter(cut)
		acked, inFlight, _ := workload(mem, 5, 60)
		afterPowerCut(t, mem.Clone(), acked, inFlight, false)
	}
}

func TestFaultAtEveryOperation(t *testing.T) {
	whole := vfs.NewMem()
	if _, _, err := workload(whole, 9, 60); err != nil {
		t.Fatal(err)
	}
	kinds := []vfs.OpKind{vfs.OpWrite, vfs.OpSync, vfs.OpCreate, vfs.OpPreallocate, vfs.OpSyncDir, vfs.OpRemove}
	for _, kind := range kinds {
		for n := range whole.Ops(kind) {
			for _, cause := range []error{syscall.EIO, syscall.ENOSPC} {
				mem := vfs.NewMem()
				fault := vfs.Fault{Op: kind, After: n, Err: cause, Written: n * 37 % 600, LosesDirty: kind == vfs.OpSync}
				mem.Inject(fault)
				acked, inFlight, err := workload(mem, 9, 60)
				if errors.Is(err, ErrNoSpace) {
					inFlight = acked // it says that nothing was written
				}
				mem.ClearFaults()
				// The process starts again, and only then the power fails.
				for range 2 {
					l := checkCrashed(t, mem, acked, inFlight)
					if acked.diff(l, true) != nil {
						acked = inFlight // it was shown, so it must stay
					} else {
						inFlight = acked
					}
					acked.sync(l)
					if err := l.Close(); err != nil {
						t.Fatal(err)
					}
					mem = mem.PowerCut(1)
				}
				if t.Failed() {
					t.Fatalf("fault %+v", fault)
				}
			}
		}
	}
}

func TestRandomProgramsAgainstModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		mem := vfs.NewMem()
		opts := testOptions(mem)
		opts.CacheBytes = rapid.SampledFrom([]int64{-1, 600, 1 << 20}).Draw(rt, "cache")
		l := mustOpen(t, opts)
		now := make(model)
		seed := rapid.Uint64().Draw(rt, "seed")
		random := rand.New(rand.NewPCG(seed, 2))
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			s := randomStep(random, now, rapid.SampledFrom([]int{40, 1000, 9000}).Draw(rt, "size"))
			if err := s.do(l); err != nil {
				rt.Fatalf("%s: %v", s.name, err)
			}
			s.model(now)
			if err := now.diff(l, false); err != nil {
				rt.Fatalf("after %s: %v", s.name, err)
			}
			if random.IntN(10) != 0 {
				continue
			}
			if random.IntN(2) == 0 {
				mustClose(t, l)
			} else {
				mem = mem.Clone()
				opts.FS = mem
			}
			l = mustOpen(t, opts)
			if err := now.diff(l, true); err != nil {
				rt.Fatalf("reopened after %s: %v", s.name, err)
			}
			now.sync(l)
		}
		mustClose(t, l)
	})
}

// TestEmptySegmentKeepsItsPredecessor: a segment without live entries still holds the groups'
// states until the next one starts with a checkpoint.
func TestEmptySegmentKeepsItsPredecessor(t *testing.T) {
	mem := vfs.NewMem()
	l := mustOpen(t, testOptions(mem))
	state := []byte("vote")
	mustAppend(t, l, GroupWrite{Group: 1, State: state})
	l.writeMu.Lock()
	err := l.rotate(100)
	l.writeMu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	mem = mem.Clone() // the process is killed before the frame
	l = mustOpen(t, testOptions(mem))
	l.deleteSegments()
	if n := l.Stats().Segments; n != 2 {
		t.Fatalf("%d segments", n)
	}
	mem = mem.Clone()
	l = mustOpen(t, testOptions(mem))
	if got := string(l.State(1)); got != "vote" {
		t.Fatalf("state %q", got)
	}
	mustAppend(t, l, GroupWrite{Group: 2, State: state})
	if n := l.Stats().Segments; n != 1 {
		t.Fatalf("%d segments after the checkpoint", n)
	}
	mustClose(t, l)
}
