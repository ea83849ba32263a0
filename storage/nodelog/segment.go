package nodelog

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/perdure/perdure/storage/vfs"
)

const (
	formatVersion = 1
	// segmentHeaderBytes is a whole sector, so that no frame write ever rewrites the header.
	segmentHeaderBytes = 512
	segmentHeaderUsed  = 64
	segmentSuffix      = ".seg"

	lockName      = "LOCK"
	identityName  = "IDENTITY"
	identityBytes = 64
)

var (
	segmentMagic  = [8]byte{'P', 'R', 'D', 'N', 'S', 'E', 'G', '\n'}
	identityMagic = [8]byte{'P', 'R', 'D', 'N', 'L', 'O', 'G', '\n'}
)

// logID tells the files of one log from those of another.
type logID [16]byte

// String returns the id in hex.
func (id logID) String() string { return hex.EncodeToString(id[:]) }

// segmentHeader says what a segment is and what it follows. Layout, little endian: magic 8
// bytes, version u32, number u32, log id 16 bytes, capacity u64, previous sequence u64,
// previous end u64, zeros up to 60, checksum u32. Magic, version and the place of the checksum
// hold for every version, so that a newer file can be told from a damaged one.
type segmentHeader struct {
	id       logID
	number   uint32
	capacity int64
	// previousSequence is the last frame before this segment and previousEnd where it ended
	// in the segment before: all of that was synced when this header was written.
	previousSequence uint64
	previousEnd      int64
}

func (h segmentHeader) encode() []byte {
	dst := make([]byte, segmentHeaderBytes)
	putPreamble(dst, segmentMagic, h.number, h.id)
	binary.LittleEndian.PutUint64(dst[32:], uint64(h.capacity))
	binary.LittleEndian.PutUint64(dst[40:], h.previousSequence)
	binary.LittleEndian.PutUint64(dst[48:], uint64(h.previousEnd))
	binary.LittleEndian.PutUint32(dst[60:], crc32.Checksum(dst[:60], castagnoli))
	return dst
}

func putPreamble(dst []byte, magic [8]byte, number uint32, id logID) {
	copy(dst, magic[:])
	binary.LittleEndian.PutUint32(dst[8:], formatVersion)
	binary.LittleEndian.PutUint32(dst[12:], number)
	copy(dst[16:32], id[:])
}

func encodeIdentity(id logID) []byte {
	dst := make([]byte, identityBytes)
	putPreamble(dst, identityMagic, 0, id)
	binary.LittleEndian.PutUint32(dst[60:], crc32.Checksum(dst[:60], castagnoli))
	return dst
}

// checkPreamble verifies magic, checksum and version of the first 64 bytes of a file.
func checkPreamble(file string, src []byte, magic [8]byte) error {
	switch {
	case len(src) < segmentHeaderUsed:
		return &DamageError{File: file, Reason: fmt.Sprintf("file header cut short at %d bytes", len(src))}
	case [8]byte(src[:8]) != magic:
		return &DamageError{File: file, Reason: "bad magic in the file header"}
	case binary.LittleEndian.Uint32(src[60:]) != crc32.Checksum(src[:60], castagnoli):
		return &DamageError{File: file, Reason: "checksum mismatch in the file header"}
	}
	if version := binary.LittleEndian.Uint32(src[8:]); version != formatVersion {
		return &VersionError{File: file, Found: version, Supported: formatVersion}
	}
	return nil
}

func parseSegmentHeader(file string, src []byte) (segmentHeader, error) {
	if err := checkPreamble(file, src, segmentMagic); err != nil {
		return segmentHeader{}, err
	}
	return segmentHeader{
		id:               logID(src[16:32]),
		number:           binary.LittleEndian.Uint32(src[12:]),
		capacity:         int64(binary.LittleEndian.Uint64(src[32:])),
		previousSequence: binary.LittleEndian.Uint64(src[40:]),
		previousEnd:      int64(binary.LittleEndian.Uint64(src[48:])),
	}, nil
}

func segmentName(number uint32) string { return fmt.Sprintf("%010d%s", number, segmentSuffix) }

// listSegments returns the numbers of the segments in dir, ascending.
func listSegments(fs vfs.FS, dir string) ([]uint32, error) {
	names, err := fs.List(dir)
	if err != nil {
		return nil, err
	}
	var numbers []uint32
	for _, name := range names {
		digits, ok := strings.CutSuffix(name, segmentSuffix)
		if !ok {
			continue
		}
		number, err := strconv.ParseUint(digits, 10, 32)
		if err != nil || segmentName(uint32(number)) != name || number == 0 {
			return nil, &DamageError{File: filepath.Join(dir, name), Reason: "not a segment's name"}
		}
		numbers = append(numbers, uint32(number))
	}
	sort.Slice(numbers, func(i, j int) bool { return numbers[i] < numbers[j] })
	return numbers, nil
}

// segment is one open file of the log.
type segment struct {
	number   uint32
	path     string
	file     vfs.File
	capacity int64
	// refs counts the log itself and every read in progress; whoever takes it to zero closes
	// the file. A segment is thus deleted without waiting for readers.
	refs atomic.Int32

	// end is where the next frame goes. Guarded by Log.writeMu.
	end int64

	// liveEntries counts, per group, the entries whose newest copy is here; liveBytes is their
	// size. Entries truncated in memory still count until that is on disk. Guarded by Log.mu.
	liveEntries map[uint32]int
	liveBytes   int64
	// checkpointed is whether the first frame is on disk; without it, what came before must
	// stay. Guarded by Log.mu.
	checkpointed bool
	// unreadable stops carrying entries out of a segment that turned out to be damaged.
	// Guarded by Log.writeMu.
	unreadable bool
}

func newSegment(number uint32, path string, file vfs.File, capacity int64) *segment {
	s := &segment{number: number, path: path, file: file, capacity: capacity, end: segmentHeaderBytes, liveEntries: make(map[uint32]int)}
	s.refs.Store(1)
	return s
}

// release drops one reference.
func (s *segment) release() error {
	if s.refs.Add(-1) == 0 {
		return s.file.Close()
	}
	return nil
}

// createSegment makes an empty segment that is durable together with its name.
func createSegment(fs vfs.FS, dir string, header segmentHeader) (*segment, error) {
	path := filepath.Join(dir, segmentName(header.number))
	file, err := fs.Create(path)
	if err != nil {
		return nil, fmt.Errorf("create segment: %w", err)
	}
	step := "preallocate segment"
	if err = file.Preallocate(header.capacity); err == nil {
		step = "write segment header"
		_, err = file.WriteAt(header.encode(), 0)
	}
	if err == nil {
		step = "sync segment"
		err = file.Sync()
	}
	if err == nil {
		step = "sync directory"
		err = fs.SyncDir(dir)
	}
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("%s: %w", step, err)
	}
	return newSegment(header.number, path, file, header.capacity), nil
}
