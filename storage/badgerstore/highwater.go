package badgerstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/perdure/perdure/storage"
)

const (
	highWaterFile  = "HIGHWATER"
	highWaterMagic = "PHW1"
	highWaterBytes = 16
	highWaterDelay = time.Second
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// highWater is the file that remembers the last commit sequence known to be on disk:
// "PHW1", sequence (8 bytes big endian), CRC32C of both. It is what tells a Badger that lost
// the end of its write-ahead log from one that never had it. It is rewritten at most once a
// second and at close; what was committed since is for the node log to notice.
//
// The record is overwritten in place: 16 bytes at offset 0 lie in one sector.
type highWater struct {
	file *os.File
	// onError is called, without the lock, when a delayed write failed.
	onError func(error)
	// timers counts armed timers, so that close can wait for one that fired.
	timers sync.WaitGroup

	mu struct {
		sync.Mutex
		reached uint64 // last sequence committed
		written uint64 // last sequence in the file; written ≤ reached
		timer   *time.Timer
		armed   bool
		closed  bool
	}
}

// readHighWater returns the recorded sequence.
func readHighWater(path string) (uint64, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("%w: %s does not exist; restore the directory from a backup or re-seed the node", storage.ErrDataLoss, path)
	}
	if err != nil {
		return 0, err
	}
	if len(data) != highWaterBytes || string(data[:4]) != highWaterMagic ||
		crc32.Checksum(data[:12], castagnoli) != binary.BigEndian.Uint32(data[12:]) {
		return 0, fmt.Errorf("%w: %s (%d bytes) fails its checksum; restore the directory from a backup or re-seed the node",
			storage.ErrDamaged, path, len(data))
	}
	return binary.BigEndian.Uint64(data[4:]), nil
}

func openHighWater(path string, sequence uint64, onError func(error)) (*highWater, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	h := &highWater{file: file, onError: onError}
	h.mu.reached, h.mu.written = sequence, sequence
	return h, nil
}

// raise records that sequence is committed. The write follows within a second: a timer rather
// than a check in the next commit, since an idle store must get its last commits covered too.
func (h *highWater) raise(sequence uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.reached = sequence
	if h.mu.armed || h.mu.closed {
		return
	}
	h.mu.armed = true
	h.timers.Add(1)
	h.mu.timer = time.AfterFunc(highWaterDelay, h.fire)
}

func (h *highWater) fire() {
	defer h.timers.Done()
	h.mu.Lock()
	h.mu.armed = false
	var err error
	if !h.mu.closed {
		err = h.writeLocked()
	}
	h.mu.Unlock()
	if err != nil {
		h.onError(err)
	}
}

func (h *highWater) writeLocked() error {
	if h.mu.written == h.mu.reached {
		return nil
	}
	if err := writeHighWater(h.file, h.mu.reached); err != nil {
		return fmt.Errorf("write %s: %w", h.file.Name(), err)
	}
	h.mu.written = h.mu.reached
	return nil
}

func writeHighWater(file *os.File, sequence uint64) error {
	record := append(make([]byte, 0, highWaterBytes), highWaterMagic...)
	record = binary.BigEndian.AppendUint64(record, sequence)
	record = binary.BigEndian.AppendUint32(record, crc32.Checksum(record, castagnoli))
	if _, err := file.WriteAt(record, 0); err != nil {
		return err
	}
	return file.Sync()
}

// close writes what is due and waits for the timer's goroutine.
func (h *highWater) close() error {
	h.mu.Lock()
	h.mu.closed = true
	if h.mu.armed && h.mu.timer.Stop() {
		h.timers.Done()
	}
	err := h.writeLocked()
	h.mu.Unlock()
	h.timers.Wait()
	return errors.Join(err, h.file.Close())
}
