package remote

import (
	"bytes"
	"maps"
	"slices"
	"time"

	"github.com/perdure/perdure/internal/invoker"
	"github.com/perdure/perdure/internal/telemetry"
)

// await has the attempt placed once there is a node for it. What is stored waits as long as it takes;
// what is not, or is part of a transaction that holds other objects, waits HostWait.
func (inv *Invoker) await(f *forwarded) {
	var until time.Time
	if !f.attempt.Stored {
		until = time.Now().Add(inv.config.HostWait)
	}
	inv.mu.Lock()
	defer inv.mu.Unlock()
	if inv.mu.closed {
		return
	}
	inv.mu.waiting[f] = until
	if !inv.mu.placing {
		inv.mu.placing = true
		inv.running.Go(inv.placeWaiting)
		return
	}
	inv.lookAgain()
}

// lookAgain has what waits looked at.
func (inv *Invoker) lookAgain() {
	select {
	case inv.wake <- struct{}{}:
	default:
	}
}

// Waiting counts the attempts that wait for a node, by service.
func (inv *Invoker) Waiting() map[string]int {
	inv.mu.Lock()
	defer inv.mu.Unlock()
	counts := map[string]int{}
	for f := range inv.mu.waiting {
		counts[f.attempt.Target.Service]++
	}
	return counts
}

// restAfter is the least time between two looks at all that wait.
const restAfter = 5 * time.Millisecond

// placeWaiting runs as long as any wait.
func (inv *Invoker) placeWaiting() {
	told := map[string]bool{}
	for {
		changed := inv.config.Directory.Changed()
		inv.mu.Lock()
		waiting := maps.Clone(inv.mu.waiting)
		if len(waiting) == 0 || inv.mu.closed {
			inv.mu.placing = false
			inv.mu.Unlock()
			return
		}
		inv.mu.Unlock()
		began := time.Now()
		due := inv.placeThese(waiting, told)
		// Many may wait, and each that comes wakes this: it takes a tenth of a core at most.
		select {
		case <-time.After(restAfter + 9*time.Since(began)):
		case <-inv.ctx.Done():
		}
		if due.IsZero() {
			due = time.Now().Add(time.Hour)
		}
		timer := time.NewTimer(time.Until(due))
		select {
		case <-changed:
		case <-timer.C:
		case <-inv.wake:
		case <-inv.ctx.Done():
		}
		timer.Stop()
	}
}

// placeThese gives attempts to nodes, ends those that have waited too long, and says when to look
// again though nothing has changed; zero: there is no need.
func (inv *Invoker) placeThese(waiting map[*forwarded]time.Time, told map[string]bool) (due time.Time) {
	soonest := func(at time.Time) {
		if !at.IsZero() && (due.IsZero() || at.Before(due)) {
			due = at
		}
	}
	type wanted struct{ service, handler, deployment string }
	none := map[wanted]time.Time{} // what no node can run, and when to look again
	// In an order that follows from nothing but what waits, as of everything that a seed of the simulation replays.
	inOrder := slices.SortedFunc(maps.Keys(waiting), func(a, b *forwarded) int { return bytes.Compare(a.attempt.ID[:], b.attempt.ID[:]) })
	for _, f := range inOrder {
		until, target := waiting[f], f.attempt.Target
		want := wanted{target.Service, target.Handler, f.attempt.Deployment}
		again, nobody := none[want]
		if !nobody {
			var node uint64
			if node, again = inv.choose(target, f.attempt.Deployment); node == 0 {
				nobody, none[want] = true, again
			}
		}
		if !nobody && until.IsZero() && !f.attempt.Mode.Journaled() {
			// What time it has is counted from when it first began.
			f.end(&invoker.Outcome{Lost: true, Anew: true})
			continue
		}
		if !nobody && f.place() {
			inv.mu.Lock()
			delete(inv.mu.waiting, f)
			inv.mu.Unlock()
			continue
		}
		if !until.IsZero() && !time.Now().Before(until) {
			f.end(&invoker.Outcome{Result: inv.unhosted(target, nil), Unhosted: true})
			continue
		}
		if !nobody { // there was one a moment ago
			again = time.Now().Add(inv.config.Avoid)
		}
		soonest(until)
		soonest(again)
		if !told[target.Service] && inv.settled.Load() {
			told[target.Service] = true
			inv.config.Logger.Warn("no live node hosts a service: what calls it waits until one does", telemetry.KeyService, target.Service)
		}
	}
	return due
}
