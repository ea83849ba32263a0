package stream

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/perdure/perdure/cluster/replica/wire"
)

// Partial is a snapshot of which a node has the beginning. The store knows of it, too: with each chunk
// a row says, in the batch that ends it, what the chunks are of, in which generation of the group's rows
// they are and where they end. As long as that row is there all of the chunks are; so whoever gives a
// partial up deletes the row first, durably, and then the rest.
type Partial struct {
	identity   [sha256.Size]byte
	generation uint8
	at         wire.Position // of who writes to it, while it is busy
	idle       time.Time     // since when nobody writes to it
	busy       bool          // it is being written to, or given up; guarded by Partials
}

// Generation is where its rows are.
func (p *Partial) Generation() uint8 { return p.generation }

// At is where it ends. It is for who writes to it, as Advance is.
func (p *Partial) At() wire.Position { return p.at }

// Advance says that the store has it up to there.
func (p *Partial) Advance(at wire.Position) { p.at = at }

// Row is what the store is to say of it once it ends at a position.
func (p *Partial) Row(at wire.Position) []byte {
	row := append([]byte{partialFormat, p.generation}, p.identity[:]...)
	return wire.AppendPosition(row, at)
}

const partialFormat = 1

// ReceiverPatience is how long a partial waits for its sender, which gives up before.
const ReceiverPatience = Patience + 10*time.Second

// DecodePartial returns nil for a row that this build does not understand: what it tells of is rubbish then.
func DecodePartial(row []byte) *Partial {
	const head = 2 + sha256.Size
	if len(row) < head || row[0] != partialFormat {
		return nil
	}
	at, err := wire.DecodePosition(row[head:])
	if err != nil {
		return nil
	}
	return &Partial{identity: [sha256.Size]byte(row[2:head]), generation: row[1], at: at}
}

// Partials are those of a host, one of each group at most. The functions are set before it is used.
type Partials struct {
	// Refused is what an error of Begin wraps if the stream can't be taken.
	Refused error
	// Delete deletes the row that tells of a group's partial, durably, and then the rows of the generation
	// in the background.
	Delete func(group uint32, generation uint8) error
	// Fresh returns a generation of the group without rows.
	Fresh func(group uint32) uint8
	// Kept is called when there is a partial that waits for its sender.
	Kept func()

	mu struct {
		sync.Mutex
		of map[uint32]*Partial
	}
}

// Add adds a partial that the store has. It waits for its sender from now on.
func (ps *Partials) Add(group uint32, p *Partial) {
	p.idle = time.Now()
	ps.set(group, p)
}

func (ps *Partials) set(group uint32, p *Partial) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.mu.of == nil {
		ps.mu.of = make(map[uint32]*Partial)
	}
	ps.mu.of[group] = p
}

// Generation is that of a group's partial, if there is one.
func (ps *Partials) Generation(group uint32) (generation uint8, ok bool) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if p := ps.mu.of[group]; p != nil {
		return p.generation, true
	}
	return 0, false
}

// Position is where the header's snapshot goes on, encoded; nil while the last stream of it is not over here.
func (ps *Partials) Position(group uint32, header wire.Header) []byte {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p := ps.mu.of[group]
	switch {
	case p == nil || p.identity != header.Identity():
		return wire.AppendPosition(nil, wire.Position{})
	case p.busy:
		return nil
	}
	return wire.AppendPosition(nil, p.at)
}

// Begin returns what the chunks that come are written to: the partial that there is, if they go on
// where it ends, or a new one in its place. It ends with Keep, End or GiveUp.
func (ps *Partials) Begin(group uint32, header wire.Header) (*Partial, error) {
	identity := header.Identity()
	ps.mu.Lock()
	p := ps.mu.of[group]
	if p != nil && p.busy {
		ps.mu.Unlock()
		return nil, fmt.Errorf("%w: what there is of another one is being deleted", ps.Refused)
	}
	if p != nil {
		p.busy = true
	}
	ps.mu.Unlock()
	if p != nil && p.identity == identity && p.at.Chunks == header.Skip {
		return p, nil
	}
	if p != nil {
		if err := ps.GiveUp(group, p); err != nil {
			return nil, err
		}
	}
	if header.Skip > 0 {
		return nil, fmt.Errorf("%w: %d chunks of it are not here", ps.Refused, header.Skip)
	}
	p = &Partial{identity: identity, generation: ps.Fresh(group), busy: true}
	ps.set(group, p)
	return p, nil
}

// Keep leaves a partial to whoever goes on with it.
func (ps *Partials) Keep(p *Partial) {
	ps.mu.Lock()
	p.busy, p.idle = false, time.Now()
	ps.mu.Unlock()
	ps.Kept()
}

// End forgets a partial that is whole, and whose row is deleted.
func (ps *Partials) End(group uint32, p *Partial) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.mu.of[group] == p {
		delete(ps.mu.of, group)
	}
}

// GiveUp deletes a partial. If that fails it is kept.
func (ps *Partials) GiveUp(group uint32, p *Partial) error {
	if err := ps.Delete(group, p.generation); err != nil {
		ps.Keep(p)
		return err
	}
	ps.End(group, p)
	return nil
}

// GiveUpOld gives up those that waited too long for their sender, and returns when to look again; 0: when
// Kept is called.
func (ps *Partials) GiveUpOld() (again time.Duration, err error) {
	olds := make(map[uint32]*Partial)
	ps.mu.Lock()
	for group, p := range ps.mu.of {
		if p.busy {
			continue
		}
		if left := ReceiverPatience - time.Since(p.idle); left <= 0 {
			p.busy = true
			olds[group] = p
		} else if again == 0 || left < again {
			again = left
		}
	}
	ps.mu.Unlock()
	for group, p := range olds {
		if failed := ps.GiveUp(group, p); failed != nil {
			err = errors.Join(err, fmt.Errorf("partition %d: give up a snapshot whose sender does not go on: %w", group, failed))
		}
	}
	return again, err
}
