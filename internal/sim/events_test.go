package sim

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"
)

// event is something that a node, the network or a caller did. All of them together are the trace
// that must be the same each time a seed is run.
type event struct {
	at       time.Duration
	what     string
	from, to int // nodes, partitions, or what else there are several of
	size     int
	content  uint64 // a hash
	chosen   uint64 // how often a goroutine was chosen before
}

func (e event) String() string {
	return fmt.Sprintf("%12s  %s %d %d, size %d, content %016x, chosen %d", e.at, e.what, e.from, e.to, e.size, e.content, e.chosen)
}

// events are those of one run, and what the runtime says of it.
type events struct {
	began time.Time
	// kept is whether there are any: they cost a twentieth of a run that nobody compares with another.
	kept bool
	mu   struct {
		sync.Mutex
		all []event
	}
	// chosen is how often the runtime has chosen a goroutine, and choices a digest of which: 0 if it does not follow the seed.
	chosen, choices uint64
}

func (e *events) add(what string, from, to, size int, content uint64) {
	if !e.kept {
		return
	}
	chosen, _ := replayDigest()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mu.all = append(e.mu.all, event{time.Since(e.began), what, from, to, size, content, chosen})
}

func (e *events) bytes(what string, from, to int, content []byte) {
	if e.kept {
		e.add(what, from, to, len(content), xxhash.Sum64(content))
	}
}

func (e *events) text(what string, from, to int, content ...any) {
	if e.kept {
		text := fmt.Sprintln(content...)
		e.add(what, from, to, len(text), xxhash.Sum64String(text))
	}
}

// digest is different if anything is.
func (e *events) digest() string {
	h := xxhash.New()
	for _, e := range e.mu.all {
		_, _ = fmt.Fprintln(h, e)
	}
	_, _ = fmt.Fprintln(h, e.chosen, e.choices)
	return fmt.Sprintf("%d events, goroutines chosen %d times, digest %016x", len(e.mu.all), e.chosen, h.Sum64())
}

// before is how many events before a difference are told.
const before = 20

// differs says where two runs part, or "".
func (e *events) differs(again *events) string {
	one, two := e.mu.all, again.mu.all
	at := 0
	for at < len(one) && at < len(two) && one[at] == two[at] {
		at++
	}
	if at == len(one) && at == len(two) {
		if e.chosen != again.chosen || e.choices != again.choices {
			return fmt.Sprintf("all %d events are the same, but not which goroutines ran: %d, and then %d were chosen", at, e.chosen, again.chosen)
		}
		return ""
	}
	var told strings.Builder
	for _, e := range one[max(0, at-before):at] {
		fmt.Fprintf(&told, "  both  %s\n", e)
	}
	for i, all := range [][]event{one, two} {
		for _, e := range all[at:min(at+3, len(all))] {
			fmt.Fprintf(&told, "%6s  %s\n", []string{"first", "then"}[i], e)
		}
	}
	return fmt.Sprintf("of %d and then %d events, number %d is the first that differs:\n%s", len(one), len(two), at+1, told.String())
}
