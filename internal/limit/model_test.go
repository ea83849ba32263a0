package limit

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/perdure/perdure/internal/invocation"
)

// TestModel compares a limit with one that keeps a plain list and looks for the next in it.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := Rate{}
		if rapid.Bool().Draw(t, "has a rate") {
			rate = Rate{rapid.Int64Range(1, 5).Draw(t, "count"), rapid.Int64Range(1, 50).Draw(t, "per"), rapid.Int64Range(1, 4).Draw(t, "burst")}
		}
		settings := Settings{Concurrency: rapid.IntRange(0, 3).Draw(t, "concurrency"), Rate: rate, MaxQueue: rapid.IntRange(-1, 4).Draw(t, "queue")}
		now := int64(1000)
		l := New(settings, now)
		m := &model{settings: settings, held: map[invocation.ID]bool{}, tokens: settings.Rate.Burst * settings.Rate.Per, at: now, turns: map[uint8]map[string]uint64{}, virtual: map[uint8]uint64{}}
		drain := func() {
			for {
				a, ok := l.Next(now)
				want := m.next(now)
				if !ok && want == nil {
					return
				}
				if !ok || want == nil || a.ID != want.ID {
					t.Fatalf("next is %+v, want %+v", a, want)
				}
			}
		}
		for i := range rapid.IntRange(1, 80).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"ask", "ask", "ask", "release", "release", "time", "restart"}).Draw(t, "step") {
			case "ask":
				a := &Ask{
					ID: idOf(i), Number: uint64(i + 1), Sequence: uint64(i + 1), At: now, Holds: settings.Concurrency > 0,
					Tenant:   rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(t, "tenant"),
					Priority: rapid.SampledFrom([]int32{0, 0, 0, 1, -100, 1000}).Draw(t, "priority"),
					Begun:    rapid.IntRange(0, 5).Draw(t, "begun") == 0, Firm: rapid.IntRange(0, 3).Draw(t, "firm") == 0,
				}
				clone := *a
				drain()
				if got, want := l.Ask(a, now), m.ask(&clone, now); got != want {
					t.Fatalf("%+v was answered %d, want %d", clone, got, want)
				}
			case "release":
				id := idOf(rapid.IntRange(0, i).Draw(t, "id"))
				_, found := l.Release(id, 0)
				if want := m.release(id); found != want {
					t.Fatalf("released: %v, want %v", found, want)
				}
				drain()
			case "time":
				now += rapid.Int64Range(0, 60).Draw(t, "ms")
				drain()
			case "restart":
				level, at := l.Bucket()
				restored := Restore(settings, level, at)
				for id, permit := range l.held {
					restored.Hold(id, permit)
				}
				for _, a := range l.queue {
					clone := *a
					restored.Queue(&clone)
				}
				l = restored
				m.forget()
			}
			if settings.Concurrency > 0 && l.Held() > settings.Concurrency {
				t.Fatalf("%d permits are held", l.Held())
			}
			if l.Held() != len(m.held) || l.Waiting() != len(m.waiting) {
				t.Fatalf("%d hold and %d wait, want %d and %d", l.Held(), l.Waiting(), len(m.held), len(m.waiting))
			}
			for _, a := range l.queue {
				if l.waiting[a.ID] != a {
					t.Fatalf("%+v waits and can't be found", a)
				}
			}
		}
	})
}

type model struct {
	settings Settings
	held     map[invocation.ID]bool
	waiting  []*Ask
	tokens   int64
	at       int64
	turns    map[uint8]map[string]uint64
	virtual  map[uint8]uint64
}

func (m *model) refill(now int64) {
	m.tokens = min(m.tokens+(now-m.at)*m.settings.Rate.Count, m.settings.Rate.Burst*m.settings.Rate.Per)
	m.at = now
}

func (m *model) may(a *Ask) bool {
	if a.Holds && m.settings.Concurrency > 0 && len(m.held) >= m.settings.Concurrency {
		return false
	}
	return a.Begun || m.settings.Rate.Count == 0 || m.tokens >= m.settings.Rate.Per
}

func (m *model) begin(a *Ask) {
	if !a.Begun && m.settings.Rate.Count > 0 {
		m.tokens -= m.settings.Rate.Per
	}
	if a.Holds {
		m.held[a.ID] = true
	}
}

func (m *model) ask(a *Ask, now int64) Answer {
	m.refill(now)
	first := true
	for _, w := range m.waiting {
		first = first && a.Band() < w.Band()
	}
	if first && m.may(a) {
		m.begin(a)
		return Granted
	}
	if most := m.settings.MaxQueue; most != 0 && !a.Begun && !a.Firm && len(m.waiting) >= max(most, 0) {
		return Refused
	}
	band := a.Band()
	if m.turns[band] == nil {
		m.turns[band] = map[string]uint64{}
	}
	a.Rank = max(m.virtual[band], m.turns[band][a.Tenant])
	m.turns[band][a.Tenant] = a.Rank + 1
	m.waiting = append(m.waiting, a)
	return Waits
}

func (m *model) next(now int64) *Ask {
	m.refill(now)
	if len(m.waiting) == 0 {
		return nil
	}
	first := slices.MinFunc(m.waiting, func(a, b *Ask) int {
		if a.Before(b) {
			return -1
		}
		return 1
	})
	if !m.may(first) {
		return nil
	}
	m.virtual[first.Band()] = max(m.virtual[first.Band()], first.Rank)
	m.drop(first.ID)
	m.begin(first)
	return first
}

func (m *model) drop(id invocation.ID) bool {
	before := len(m.waiting)
	var band uint8
	m.waiting = slices.DeleteFunc(m.waiting, func(a *Ask) bool {
		if a.ID == id {
			band = a.Band()
		}
		return a.ID == id
	})
	if len(m.waiting) == before {
		return false
	}
	if !slices.ContainsFunc(m.waiting, func(a *Ask) bool { return a.Band() == band }) {
		delete(m.turns, band)
		delete(m.virtual, band)
	}
	return true
}

func (m *model) release(id invocation.ID) bool {
	if m.held[id] {
		delete(m.held, id)
		return true
	}
	return m.drop(id)
}

// forget is what a restart leaves of the turns: those that the ones who wait have.
func (m *model) forget() {
	m.turns, m.virtual = map[uint8]map[string]uint64{}, map[uint8]uint64{}
	for _, a := range m.waiting {
		band := a.Band()
		if m.turns[band] == nil {
			m.turns[band], m.virtual[band] = map[string]uint64{}, a.Rank
		}
		m.virtual[band] = min(m.virtual[band], a.Rank)
		m.turns[band][a.Tenant] = max(m.turns[band][a.Tenant], a.Rank+1)
	}
}
