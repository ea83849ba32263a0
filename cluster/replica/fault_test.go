package replica

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/perdure/perdure/storage"
	"github.com/perdure/perdure/storage/memstore"
	"github.com/perdure/perdure/storage/nodelog"
)

func contains(err error, text string) bool { return err != nil && strings.Contains(err.Error(), text) }

func TestLogWithoutSpaceStepsDownAndComesBack(t *testing.T) {
	log, store := newMemLog(), newStore()
	var full atomic.Bool
	log.gate = func(written bool) error {
		if full.Load() && !written {
			return fmt.Errorf("disk: %w", nodelog.ErrNoSpace)
		}
		return nil
	}
	n := start(t, config(log, store, 1, 2))
	w, other := n.watchers[1], n.watchers[2]
	epoch := w.lead()
	otherEpoch := other.lead()
	w.propose(epoch, 1, "a", "1")
	w.waitCommitted(epoch, 1)
	full.Store(true)
	w.propose(epoch, 2, "a", "2")
	if cause := w.waitStepDown(1); !errors.Is(cause, nodelog.ErrNoSpace) {
		t.Errorf("cause: %v", cause)
	}
	if err := n.host.Health(); !errors.Is(err, nodelog.ErrNoSpace) {
		t.Errorf("health: %v", err)
	}
	full.Store(false)
	next := w.lead()
	if err := n.host.Health(); err != nil {
		t.Errorf("health with space: %v", err)
	}
	if got := contents(t, w.group.Snapshot()); got != "a=1" {
		t.Errorf("holds %q, want what was committed", got)
	}
	w.propose(next, 1, "a", "3")
	w.waitApplied(next, 1)
	other.propose(otherEpoch, 1, "b", "1") // was not in the refused append
	other.waitCommitted(otherEpoch, 1)
	n.stop()
	if left := n.host.intake.mu.backlogBytes; left != 0 {
		t.Errorf("%d bytes left in the backlog", left)
	}
}

// What gathered behind a refused append continues entries that were not written.
func TestRefusedAppendTakesWhatGatheredBehindIt(t *testing.T) {
	log, store := newMemLog(), newStore()
	entered, leave := make(chan struct{}), make(chan error)
	var armed atomic.Bool
	log.gate = func(written bool) error {
		if !written && armed.CompareAndSwap(true, false) {
			entered <- struct{}{}
			return <-leave
		}
		return nil
	}
	n := start(t, config(log, store, 1), eager)
	w := n.watchers[1]
	epoch := w.lead()
	armed.Store(true)
	w.propose(epoch, 1, "a", "1")
	<-entered
	w.propose(epoch, 2, "a", "2")
	for { // until the loop has put it behind the append in progress
		n.host.appender.mu.Lock()
		gathered := n.host.appender.mu.gathering != nil
		n.host.appender.mu.Unlock()
		if gathered {
			break
		}
		time.Sleep(time.Millisecond)
	}
	leave <- nodelog.ErrNoSpace
	w.waitStepDown(1)
	next := w.lead()
	if got := contents(t, w.group.Snapshot()); got != "" {
		t.Errorf("holds %q, want nothing", got)
	}
	w.propose(next, 1, "a", "3")
	w.waitApplied(next, 1)
}

func TestFencedLogEndsRun(t *testing.T) {
	for _, cause := range []error{nodelog.ErrFenced, errInjected} {
		log := newMemLog()
		var broken atomic.Bool
		log.gate = func(written bool) error {
			if broken.Load() && !written {
				return cause
			}
			return nil
		}
		n := start(t, config(log, newStore(), 1, 2))
		epoch := n.watchers[1].lead()
		n.watchers[2].lead()
		broken.Store(true)
		n.watchers[1].propose(epoch, 1, "a", "1")
		if err := n.wait(); !errors.Is(err, cause) {
			t.Errorf("Run returned %v", err)
		}
		for _, w := range n.watchers {
			if got := w.waitStepDown(1); !errors.Is(got, cause) {
				t.Errorf("cause: %v", got)
			}
			if len(w.mu.committed) > 0 {
				t.Errorf("committed %v", w.mu.committed)
			}
		}
		if err := n.host.Health(); !errors.Is(err, cause) {
			t.Errorf("health: %v", err)
		}
	}
}

func TestStoreOfUnknownOutcomeEndsRun(t *testing.T) {
	for _, outcome := range []memstore.Outcome{memstore.NotApplied, memstore.Applied, memstore.Unknown} {
		log, store := newMemLog(), newStore()
		n := start(t, config(log, store, 1))
		w := n.watchers[1]
		epoch := w.lead()
		store.FailCommit(1, outcome)
		w.propose(epoch, 1, "a", "1")
		w.waitCommitted(epoch, 1)
		if err := n.wait(); !errors.Is(err, memstore.ErrInjected) {
			t.Fatalf("Run returned %v", err)
		}
		w.waitStepDown(1)

		m := start(t, config(log, store.Reopen(), 1))
		m.watchers[1].lead()
		if got := contents(t, m.watchers[1].group.Snapshot()); got != "a=1" {
			t.Errorf("outcome %v: holds %q after reopening", outcome, got)
		}
		m.stop()
	}
}

func TestStoreWithoutSpaceFillsTheBacklog(t *testing.T) {
	store := newStore()
	cfg := config(newMemLog(), store, 1, 2)
	cfg.MaxBacklogBytes = 10_000
	n := start(t, cfg)
	w, other := n.watchers[1], n.watchers[2]
	epoch := w.lead()
	otherEpoch := other.lead()
	store.NoSpace(true)
	value := string(make([]byte, 1000))
	sequence := uint64(0)
	for {
		err := w.group.Propose(epoch, sequence+1, put("k", value))
		if errors.Is(err, ErrBacklog) {
			break
		}
		if err != nil || sequence > 20 {
			t.Fatalf("propose %d: %v", sequence+1, err)
		}
		sequence++
	}
	if sequence < 8 {
		t.Errorf("refused after %d records of 1,000 bytes, want about 9", sequence)
	}
	w.waitCommitted(epoch, sequence)
	// A group without unapplied records would never hear of Applied, so it is not refused.
	other.propose(otherEpoch, 1, "k", value)
	if err := other.group.Propose(otherEpoch, 2, put("k", value)); !errors.Is(err, ErrBacklog) {
		t.Errorf("second record of the other group: %v", err)
	}
	other.waitCommitted(otherEpoch, 1)
	for !errors.Is(n.host.Health(), storage.ErrNoSpace) { // once the applier has tried
		time.Sleep(time.Millisecond)
	}
	store.NoSpace(false)
	w.waitApplied(epoch, sequence)
	other.waitApplied(otherEpoch, 1)
	w.propose(epoch, sequence+1, "k", "end")
	other.propose(otherEpoch, 2, "k", "end")
	w.waitApplied(epoch, sequence+1)
	if err := n.host.Health(); err != nil {
		t.Errorf("health with space: %v", err)
	}
}

func TestStopWithFullStoreKeepsTheLog(t *testing.T) {
	log, store := newMemLog(), newStore()
	n := start(t, config(log, store, 1))
	w := n.watchers[1]
	epoch := w.lead()
	store.NoSpace(true)
	w.propose(epoch, 1, "a", "1")
	w.waitCommitted(epoch, 1)
	n.stop()
	store.NoSpace(false)
	m := start(t, config(log, store, 1))
	m.watchers[1].lead()
	if got := contents(t, m.watchers[1].group.Snapshot()); got != "a=1" {
		t.Errorf("holds %q", got)
	}
}

func TestHungDiskIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newMemLog()
		hang := make(chan struct{})
		var armed atomic.Bool
		log.gate = func(written bool) error {
			if !written && armed.Load() {
				<-hang
			}
			return nil
		}
		cfg := config(log, newStore(), 1)
		cfg.RetryDelay = 0
		n := start(t, cfg)
		w := n.watchers[1]
		epoch := w.lead()
		armed.Store(true)
		w.propose(epoch, 1, "a", "1")
		time.Sleep(9 * time.Second)
		if err := n.host.Health(); err != nil {
			t.Errorf("health after 9 s: %v", err)
		}
		time.Sleep(2 * time.Second)
		if err := n.host.Health(); !contains(err, "append in progress has taken 11s") {
			t.Errorf("health after 11 s: %v", err)
		}
		armed.Store(false)
		close(hang)
		w.waitCommitted(epoch, 1)
		if err := n.host.Health(); err != nil {
			t.Errorf("health after the disk came back: %v", err)
		}
		n.stop()
	})
}

func TestIdleHostHasNoTimers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := start(t, config(newMemLog(), newStore(), 1))
		w := n.watchers[1]
		epoch := w.lead()
		w.propose(epoch, 1, "a", "1")
		w.waitApplied(epoch, 1)
		time.Sleep(2 * time.Second) // the watchdog has seen that nothing is under way
		synctest.Wait()
		begin := time.Now()
		select {
		case <-n.host.intake.wake:
			t.Error("the loop was woken")
		case <-time.After(time.Hour):
		}
		if time.Since(begin) != time.Hour {
			t.Error("time did not jump")
		}
		n.stop()
	})
}
