package nodelog

import (
	"sync"
	"time"

	"github.com/perdure/perdure/storage/vfs"
)

// upkeep is the log's one background goroutine: it marks the last frame of an idle log and
// deletes segments, so that neither waits in an Append.
type upkeep struct {
	log    *Log
	inline bool
	// wakeups holds at most one: a second before the first was taken adds nothing.
	wakeups chan struct{}
	done    chan struct{}
	ended   sync.WaitGroup

	mu struct {
		sync.Mutex
		// armed is whether the goroutine will look at the log within MarkerDelay anyway.
		armed bool
	}
}

func (u *upkeep) start(l *Log) {
	u.log = l
	u.inline = l.opts.inlineUpkeep
	u.wakeups = make(chan struct{}, 1)
	u.done = make(chan struct{})
	if u.inline {
		return
	}
	u.ended.Go(u.run)
	u.wake() // what recovery found may be marked and deleted as well
}

func (u *upkeep) stop() {
	close(u.done)
	u.ended.Wait()
}

func (u *upkeep) wake() {
	select {
	case u.wakeups <- struct{}{}:
	default:
	}
}

// appended is called after each frame, with writeMu held.
func (u *upkeep) appended(deletable bool) {
	if u.inline {
		u.log.deleteSegments()
		return
	}
	u.mu.Lock()
	armed := u.mu.armed
	u.mu.armed = true
	u.mu.Unlock()
	if !armed || deletable {
		u.wake()
	}
}

func (u *upkeep) run() {
	l := u.log
	delay := l.opts.MarkerDelay
	timer := time.NewTimer(max(delay, time.Millisecond))
	defer timer.Stop()
	seen := uint64(0)
	for {
		select {
		case <-u.done:
			return
		case <-u.wakeups:
			if l.starved.Load() {
				l.writeMu.Lock()
				l.makeRoom()
				l.writeMu.Unlock()
			}
			l.deleteSegments()
			if delay > 0 {
				timer.Reset(delay)
			}
		case <-timer.C:
			if delay < 0 {
				continue
			}
			u.mu.Lock()
			u.mu.armed = false
			u.mu.Unlock()
			var idle bool
			if seen, idle = l.markIfIdle(seen); !idle {
				u.mu.Lock()
				u.mu.armed = true
				u.mu.Unlock()
				timer.Reset(delay)
			}
		}
	}
}

// markIfIdle marks the last frame if none was written since seen; otherwise idle is false and
// the caller comes back. It never waits for an append in progress.
func (l *Log) markIfIdle(seen uint64) (sequence uint64, idle bool) {
	if !l.writeMu.TryLock() {
		return seen, false
	}
	defer l.writeMu.Unlock()
	if l.closed || l.fenced != nil || l.marked || !l.markable {
		return l.sequence, true
	}
	if l.sequence != seen {
		return l.sequence, false
	}
	if err := l.writeMarker(frameMarker); err != nil {
		// The frame itself is safe; only its proof is missing. The next append will tell.
		l.logger.Warn("last frame not marked as synced", "path", l.current.path, "error", err)
	}
	return l.sequence, true
}

// deleteSegments deletes the oldest segments that nothing needs, one by one with the directory
// synced in between: a power cut must leave no gap. One that cannot be deleted is tried again
// the next time.
func (l *Log) deleteSegments() {
	l.deleteMu.Lock()
	defer l.deleteMu.Unlock()
	for {
		l.mu.RLock()
		if l.mu.closed || l.mu.deletable() == 0 {
			l.mu.RUnlock()
			return
		}
		oldest := l.mu.segments[0]
		l.mu.RUnlock()
		// deleteMu is held, and a segment without live entries gets none again.
		err := l.opts.FS.Remove(oldest.path)
		if err == nil || vfs.IsNotExist(err) {
			err = l.opts.FS.SyncDir(l.opts.Dir)
		}
		if err != nil {
			l.logger.Warn("segment not deleted", "path", oldest.path, "error", err)
			return
		}
		l.mu.Lock()
		l.mu.segments = append([]*segment(nil), l.mu.segments[1:]...)
		l.mu.Unlock()
		if err := oldest.release(); err != nil {
			l.logger.Warn("segment not closed", "path", oldest.path, "error", err)
		}
	}
}
