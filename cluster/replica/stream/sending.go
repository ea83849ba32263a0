package stream

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/perdure/perdure/cluster/replica/wire"
)

// Patience is how long a sender keeps a snapshot that makes no progress: its view keeps the store
// from forgetting what was overwritten since.
const Patience = time.Minute

// resumePause is between two tries.
const resumePause = 500 * time.Millisecond

// Sending is a snapshot on its way to another node.
type Sending struct {
	Lanes  *Lanes
	Source *Source
	// Header is that of the first stream.
	Header wire.Header
	// Most is how many may be sent at once.
	Most int
	// Start begins a stream, which reads and then closes reader, and calls done with what the other node
	// answered; with an error that wraps ErrLost if that is not known.
	Start func(header []byte, reader *Reader, done func(answer []byte, err error))
	// Wanted is whether the snapshot, if it gets there, is of use.
	Wanted func() bool
	// Resumed, if set, is told that the stream goes on, and where.
	Resumed func(at wire.Position)
	// Ended is closed when the host ends.
	Ended <-chan struct{}
}

// Run streams until the other node has the snapshot or it is of no use to go on, and returns why. Its place
// among those that are sent was taken, and Run gives it back. It closes the source.
func (s *Sending) Run() error {
	defer s.Source.Close()
	progress, best := time.Now(), uint64(0)
	err := s.stream()
	s.Lanes.EndSend()
	for errors.Is(err, ErrLost) {
		if reached := s.Source.reached(); reached > best {
			progress, best = time.Now(), reached
		}
		if time.Since(progress) >= Patience || !s.pause() || !s.Wanted() {
			break
		}
		if !s.Lanes.Send(s.Most) {
			continue
		}
		if err = s.position(); err == nil {
			err = s.stream()
		}
		s.Lanes.EndSend()
	}
	return err
}

// stream tries once. An error that is not ErrLost is the other node's.
func (s *Sending) stream() error {
	header := s.Header
	header.Skip = s.Source.skipped()
	_, err := s.send(header, s.Source.Next)
	return err
}

// position asks what the other node has, and winds the source there.
func (s *Sending) position() error {
	header := s.Header
	header.Asks = true
	answer, err := s.send(header, func() ([]byte, error) { return nil, io.EOF })
	if err != nil {
		return err
	}
	if len(answer) == 0 {
		return fmt.Errorf("%w: the other node has not noticed yet", ErrLost)
	}
	at, err := wire.DecodePosition(answer)
	if err != nil {
		return err
	}
	s.Source.wind(at)
	if s.Resumed != nil {
		s.Resumed(at)
	}
	return nil
}

// send waits until a stream is over on this side, too.
func (s *Sending) send(header wire.Header, next func() ([]byte, error)) (answer []byte, err error) {
	reader := &Reader{next: next, closed: make(chan struct{})}
	done := make(chan struct{})
	var once sync.Once
	s.Start(wire.AppendHeader(nil, header), reader, func(a []byte, e error) {
		once.Do(func() { answer, err = a, e; close(done) })
	})
	<-done
	<-reader.closed
	return answer, err
}

// Reader is what one stream reads. It is used by one goroutine.
type Reader struct {
	next   func() ([]byte, error)
	once   sync.Once
	closed chan struct{}
}

// Next returns the next chunk, or io.EOF.
func (r *Reader) Next() ([]byte, error) { return r.next() }

// Close says that no more is read. A second call does nothing.
func (r *Reader) Close() { r.once.Do(func() { close(r.closed) }) }

// pause waits before the next try; false: the host has ended.
func (s *Sending) pause() bool {
	timer := time.NewTimer(resumePause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.Ended:
		return false
	}
}
