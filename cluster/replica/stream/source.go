// Package stream moves snapshots between nodes so that one whose connection is cut goes on from the last
// chunk that the receiver has on its disk, be it after a restart of the receiver.
//
// A Sending keeps its view of the store for that, for as long as it is wanted and makes progress. A
// sender that restarts has lost the view: the store keeps no old versions, so rows of a later view can't be
// put behind those of an earlier one, and the snapshot begins anew.
//
// The receiver keeps a Partial for each group, in Partials and in the store. What is sent and what is kept
// are the same snapshot if their identities are (wire.Header.Identity), and the same place in it if the
// counts and the checksum of all before are.
package stream

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/perdure/perdure/cluster/replica/wire"
	"github.com/perdure/perdure/storage"
)

// ErrLost says that a stream to another node was cut, or could not begin. The snapshot may go on.
var ErrLost = errors.New("replica: the stream to the other node was cut")

// ErrEnded is what a stream gets that outlasts its host.
var ErrEnded = errors.New("replica: the host has stopped")

// Lanes bound what a host sends and receives, and know what it sends. The zero value is ready.
type Lanes struct {
	mu struct {
		sync.Mutex
		sending, receiving int
		free               time.Time // when the next chunk may be sent
		sources            map[*Source]bool
		ended              bool
	}
}

// Send takes a place for a snapshot that is sent, if fewer than most are; EndSend gives it back.
func (l *Lanes) Send(most int) bool { return l.begin(&l.mu.sending, most) }

// EndSend is the end of Send.
func (l *Lanes) EndSend() { l.end(&l.mu.sending) }

// Receive takes a place for a snapshot that is received, if fewer than most are; EndReceive gives it back.
func (l *Lanes) Receive(most int) bool { return l.begin(&l.mu.receiving, most) }

// EndReceive is the end of Receive.
func (l *Lanes) EndReceive() { l.end(&l.mu.receiving) }

func (l *Lanes) begin(count *int, most int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if *count >= most {
		return false
	}
	*count++
	return true
}

func (l *Lanes) end(count *int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	*count--
}

// pause returns how long to wait before so many bytes are sent.
func (l *Lanes) pause(bytes, perSecond int) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.mu.free.Before(now) {
		l.mu.free = now
	}
	wait := l.mu.free.Sub(now)
	l.mu.free = l.mu.free.Add(time.Duration(float64(bytes) / float64(perSecond) * float64(time.Second)))
	return wait
}

// Close releases all that is being sent, and what is opened later: the store is about to be closed.
func (l *Lanes) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.ended = true
	for source := range l.mu.sources {
		source.release()
	}
	l.mu.sources = nil
}

// Limits are those of a source.
type Limits struct {
	// ChunkBytes is about what a chunk holds, and BytesPerSecond what all of a host send together.
	ChunkBytes, BytesPerSecond int
}

// Open makes the source of a snapshot, which is released with it. ended is closed when the host ends.
func (l *Lanes) Open(rows storage.Snapshot, limits Limits, ended <-chan struct{}) *Source {
	s := &Source{lanes: l, limits: limits, ended: ended}
	s.mu.rows = rows
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.ended {
		s.release()
		return s
	}
	if l.mu.sources == nil {
		l.mu.sources = make(map[*Source]bool)
	}
	l.mu.sources[s] = true
	return s
}

// Source reads a snapshot in chunks. It is safe for concurrent use, in which one reads.
type Source struct {
	lanes  *Lanes
	limits Limits
	ended  <-chan struct{}
	mu     struct {
		sync.Mutex
		rows   storage.Snapshot // nil once released
		from   []byte           // the next key is not before
		read   bool             // all rows were
		totals wire.Totals
		skip   uint64 // chunks that the last wind skipped
		most   uint64 // chunks that were read, at most
		// places are where chunks ended, ascending: the last maxPlaces.
		places []place
	}
}

// place is where a chunk ended.
type place struct {
	at   wire.Position
	from []byte
}

// maxPlaces is more chunks than can be on their way to a receiver.
const maxPlaces = 256

// Next returns the next chunk, or io.EOF.
func (s *Source) Next() ([]byte, error) {
	chunk, err := s.next()
	if err != nil {
		return nil, err
	}
	if wait := s.lanes.pause(len(chunk), s.limits.BytesPerSecond); wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-s.ended:
			return nil, ErrEnded
		}
	}
	return chunk, nil
}

func (s *Source) next() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := &s.mu
	switch {
	case m.totals.Ended():
		return nil, io.EOF
	case m.rows == nil:
		return nil, ErrEnded
	case m.read:
		return m.totals.End(), nil
	}
	var chunk wire.Chunk
	most := s.limits.ChunkBytes
	m.read = true
	err := m.rows.Scan(m.from, nil, func(key, value []byte) bool {
		if n := chunk.Bytes(); n >= most || n > 0 && n+len(key)+len(value) > 2*most {
			m.read = false
			return false
		}
		chunk.Add(key, value)
		m.from = append(append(m.from[:0], key...), 0)
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("replica: read the store for a snapshot: %w", err)
	}
	if chunk.Bytes() == 0 {
		return m.totals.End(), nil
	}
	data := m.totals.Take(&chunk)
	if len(m.places) == maxPlaces {
		m.places = append(m.places[:0], m.places[1:]...)
	}
	m.places = append(m.places, place{m.totals.Position, append([]byte(nil), m.from...)})
	m.most = max(m.most, m.totals.Chunks)
	return data, nil
}

// wind makes the chunk behind a position be the next one; if that is no place between two chunks, or one
// too long ago, the first.
func (s *Source) wind(at wire.Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := &s.mu
	keep := len(m.places) - 1
	for keep >= 0 && m.places[keep].at != at {
		keep--
	}
	m.from = nil
	if keep >= 0 {
		m.from = append(m.from, m.places[keep].from...)
	} else {
		at = wire.Position{}
	}
	m.places = m.places[:keep+1]
	m.read, m.totals, m.skip = false, wire.Totals{Position: at}, at.Chunks
}

func (s *Source) skipped() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.skip
}

// reached is how many chunks were read, at most.
func (s *Source) reached() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.most
}

// Close releases the snapshot. A second call does nothing.
func (s *Source) Close() {
	s.release()
	s.lanes.mu.Lock()
	defer s.lanes.mu.Unlock()
	delete(s.lanes.mu.sources, s)
}

func (s *Source) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.rows != nil {
		s.mu.rows.Release()
		s.mu.rows = nil
	}
}
