package replica

import (
	"fmt"
	"maps"
	"sync"
	"testing"

	"github.com/perdure/perdure/storage/memstore"
	"github.com/perdure/perdure/storage/nodelog"
	"github.com/perdure/perdure/storage/vfs"
)

func openNodeLog(t *testing.T, fs vfs.FS) *nodelog.Log {
	t.Helper()
	log, err := nodelog.Open(nodelog.Options{Dir: "log", FS: fs, SegmentBytes: 4 << 10, MinFreeBytes: -1, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// TestPowerCutAtEveryDiskOperation runs a program on the real log until its n-th change of the
// disk, for every n, and checks what is there after the power is back.
func TestPowerCutAtEveryDiskOperation(t *testing.T) {
	const records = 40
	cuts := 0
	for n, finished := 0, false; !finished; n++ {
		if testing.Short() && n%7 != 0 {
			continue
		}
		disk := vfs.NewMem()
		log := openNodeLog(t, disk)
		store := memstore.New(memstore.Options{})
		disk.CutPowerAfter(n)
		acked := make(map[GroupID]map[uint64]uint64)
		if node, err := tryStart(t, config(log, store, 1, 2, 3)); err == nil {
			finished = runUntilCut(node, records)
			node.cancel()
			_ = node.wait()
			for id, w := range node.watchers {
				acked[id] = maps.Clone(w.mu.committed)
			}
		}
		_ = log.Close()
		cuts++
		for seed := range uint64(3) {
			after := openNodeLog(t, disk.PowerCut(seed))
			image := crashImage{step: fmt.Sprintf("n=%d seed=%d", n, seed), log: after, store: store.Clone(seed), acked: acked}
			image.check(t)
			if err := after.Close(); err != nil {
				t.Error(err)
			}
		}
		if t.Failed() {
			return
		}
	}
	if cuts < 20 && !testing.Short() {
		t.Errorf("only %d cuts: the program does not reach the disk", cuts)
	}
}

// runUntilCut proposes records in every group, waiting for every third, and reports whether
// all of them were committed.
func runUntilCut(node *node, records uint64) bool {
	var wg sync.WaitGroup
	all := make(chan bool, len(node.watchers))
	for _, w := range node.watchers {
		wg.Go(func() {
			var epoch uint64
			w.wait("Lead, or the end of Run", func() bool { epoch = w.mu.epoch; return epoch != 0 || w.mu.ended })
			for sequence := uint64(1); sequence <= records; sequence++ {
				if w.group.Propose(epoch, sequence, crashRecord(epoch, sequence)) != nil {
					return
				}
				if sequence%3 == 0 || sequence == records {
					w.wait("Committed or StepDown", func() bool { return w.mu.committed[epoch] >= sequence || w.mu.epoch != epoch })
				}
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			all <- w.mu.committed[epoch] == records
		})
	}
	wg.Wait()
	close(all)
	finished := 0
	for done := range all {
		if done {
			finished++
		}
	}
	return finished == len(node.watchers)
}
