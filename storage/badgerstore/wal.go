package badgerstore

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Badger's write-ahead log (memtable.go, structs.go): a header of 20 bytes, then records
//
//	meta, userMeta, uvarint(len key), uvarint(len value), uvarint(expiry), key, value, CRC32C
//
// where a key ends in 8 bytes of MaxUint64-version. A transaction's records have walTxn set and
// end with a record of key "!badger!txn" with walTxnEnd. The rest of the file is zero.
// The format cannot change under us without a new major version of Badger.
const (
	walSuffix      = ".mem"
	walHeaderBytes = 20
	walTxn         = 1 << 6
	walTxnEnd      = 1 << 7
	walMaxKeyBytes = 1 << 16
	// walMaxValueBytes is above what any version of the store writes: a longer value is a
	// damaged length.
	walMaxValueBytes = 64 << 20
)

var walTxnEndKey = []byte("!badger!txn")

// walScan is what a log file holds.
type walScan struct {
	path        string
	sizeBytes   int64
	first, last uint64 // commit sequences of the complete transactions; 0 if there are none
	endBytes    int64  // offset after the last complete transaction
	// later is the highest commit sequence of a transaction end found after endBytes; 0 if
	// there is none. Commits are synced one at a time, so one later than last+1 proves that
	// the record at endBytes was damaged after it was synced, not torn.
	later uint64
	// gap is set if the complete transactions are not consecutive.
	gap error
}

// walFiles lists the log files, oldest first.
func walFiles(dir string) ([]string, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*"+walSuffix))
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		if _, err := walNumber(path); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(paths, func(a, b string) int {
		left, _ := walNumber(a)
		right, _ := walNumber(b)
		return left - right
	})
	return paths, nil
}

func walNumber(path string) (int, error) {
	number, err := strconv.Atoi(strings.TrimSuffix(filepath.Base(path), walSuffix))
	if err != nil {
		return 0, fmt.Errorf("%s is not a log of this store: move it away", path)
	}
	return number, nil
}

// scanWAL reads a log file the way Badger will, except that it goes on looking after the end.
func scanWAL(path string) (walScan, error) {
	file, err := os.Open(path)
	if err != nil {
		return walScan{}, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return walScan{}, err
	}
	scan := walScan{path: path, sizeBytes: info.Size(), endBytes: walHeaderBytes}
	if scan.sizeBytes < walHeaderBytes {
		scan.endBytes = 0
		return scan, nil
	}
	if _, err := file.Seek(walHeaderBytes, io.SeekStart); err != nil {
		return scan, err
	}
	reader := &walReader{reader: bufio.NewReaderSize(file, 256<<10), offset: walHeaderBytes}
	var open uint64 // sequence of the transaction being read
	for {
		meta, version, err := reader.record()
		if errors.Is(err, errWALEnd) {
			break
		}
		if err != nil {
			return scan, fmt.Errorf("read %s at offset %d: %w", path, reader.offset, err)
		}
		if open != 0 && version != open || meta&(walTxn|walTxnEnd) == 0 {
			break
		}
		open = version
		if meta&walTxnEnd == 0 {
			continue
		}
		if scan.last != 0 && version != scan.last+1 && scan.gap == nil {
			scan.gap = fmt.Errorf("%s at offset %d: commit %d follows commit %d", path, reader.offset, version, scan.last)
		}
		if scan.first == 0 {
			scan.first = version
		}
		scan.last, scan.endBytes, open = version, reader.offset, 0
	}
	if _, err := file.Seek(scan.endBytes, io.SeekStart); err != nil {
		return scan, err
	}
	scan.later, err = findTxnEnds(file)
	return scan, err
}

// errWALEnd is the end of what can be read: zeros, end of file or damage.
var errWALEnd = errors.New("end of log")

type walReader struct {
	reader *bufio.Reader
	offset int64 // of the next record
	header []byte
	body   []byte
}

// record reads one record and returns its meta byte and version.
func (r *walReader) record() (meta byte, version uint64, err error) {
	r.header = r.header[:0]
	meta, err = r.ReadByte()
	if err != nil {
		return 0, 0, walError(err)
	}
	if _, err := r.ReadByte(); err != nil {
		return 0, 0, walError(err)
	}
	var numbers [3]uint64
	for i := range numbers {
		if numbers[i], err = binary.ReadUvarint(r); err != nil {
			return 0, 0, walError(err)
		}
	}
	keyBytes, valueBytes := numbers[0], numbers[1]
	if keyBytes < 8 || keyBytes > walMaxKeyBytes || valueBytes > walMaxValueBytes {
		return 0, 0, errWALEnd
	}
	size := int(keyBytes + valueBytes + crc32.Size)
	r.body = slices.Grow(r.body[:0], size)[:size]
	if _, err := io.ReadFull(r.reader, r.body); err != nil {
		return 0, 0, walError(err)
	}
	content := r.body[:size-crc32.Size]
	sum := crc32.Update(crc32.Checksum(r.header, castagnoli), castagnoli, content)
	if sum != binary.BigEndian.Uint32(r.body[size-crc32.Size:]) {
		return 0, 0, errWALEnd
	}
	r.offset += int64(len(r.header) + size)
	return meta, math.MaxUint64 - binary.BigEndian.Uint64(content[keyBytes-8:keyBytes]), nil
}

// ReadByte reads a header byte and keeps it for the checksum.
func (r *walReader) ReadByte() (byte, error) {
	b, err := r.reader.ReadByte()
	if err == nil {
		r.header = append(r.header, b)
	}
	return b, err
}

// walError tells errors of the disk from the log's end. ReadUvarint's overflow is the latter.
func walError(err error) error {
	var pathError *os.PathError
	if errors.As(err, &pathError) {
		return err
	}
	return errWALEnd
}

// findTxnEnds returns the highest version among the transaction ends in the rest of the file.
func findTxnEnds(reader io.Reader) (highest uint64, err error) {
	const (
		before = 5                   // meta, userMeta, two lengths and expiry take a byte each
		after  = 8 + 20 + 4          // version, its decimal, checksum
		keep   = before + 11 + after // a window that may hold the start of a record
	)
	buffer := make([]byte, 0, 256<<10)
	for {
		n, err := io.ReadFull(reader, buffer[len(buffer):cap(buffer)])
		buffer = buffer[:len(buffer)+n]
		for at := 0; ; {
			found := bytes.Index(buffer[at:], walTxnEndKey)
			if found < 0 {
				break
			}
			at += found
			if at >= before {
				highest = max(highest, txnEndVersion(buffer[at-before:]))
			}
			at++
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return highest, nil
		}
		if err != nil {
			return 0, err
		}
		tail := buffer[max(0, len(buffer)-keep):]
		buffer = append(buffer[:0], tail...)
	}
}

// txnEndVersion returns the version of the transaction end that data starts with, or 0.
func txnEndVersion(data []byte) uint64 {
	reader := &walReader{reader: bufio.NewReaderSize(bytes.NewReader(data[:min(len(data), 64)]), 64)}
	meta, version, err := reader.record()
	if err != nil || meta&walTxnEnd == 0 {
		return 0
	}
	return version
}
