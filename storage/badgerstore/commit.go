package badgerstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/perdure/perdure/storage"
)

const (
	sumBytes = crc32.Size
	// opOverheadBytes is what a write adds to a transaction beyond key and value, by Badger's
	// count and ours: our prefix and checksum, its metadata and version.
	opOverheadBytes = 1 + sumBytes + 2 + 10
	// commitOverheadBytes covers the transaction's own records.
	commitOverheadBytes = 256
	commitOverheadOps   = 4
	// bytesPerOp sets where the bound of a batch lies between few long and many short writes:
	// at this average length it reaches both bounds.
	bytesPerOp = 160
)

// MaxBatchBytes is the largest Batch.Bytes that Commit takes. It follows from the memory
// budget: a Badger transaction must fit 15 % of a memtable.
func (s *Store) MaxBatchBytes() int {
	return int(s.db.MaxBatchSize()) - opOverheadBytes*s.MaxBatchOps() - commitOverheadBytes
}

// MaxBatchOps is the largest Batch.Len that Commit takes.
func (s *Store) MaxBatchOps() int {
	return min(int(s.db.MaxBatchSize())/bytesPerOp, int(s.db.MaxBatchCount())-commitOverheadOps)
}

// Commit implements storage.Store. The batch is copied: it may be reused afterwards.
func (s *Store) Commit(batch *storage.Batch) error {
	s.committing.Lock()
	defer s.committing.Unlock()
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	s.mu.Lock()
	fenced, sequence := s.mu.fenced, s.mu.committed+1
	s.mu.Unlock()
	if fenced != nil {
		return fmt.Errorf("badgerstore: %s: %w (cause: %w)", s.dir, storage.ErrFenced, fenced)
	}
	if batch.Len() == 0 {
		return nil
	}
	if err := s.checkBounds(batch); err != nil {
		return fmt.Errorf("badgerstore: %s: %w", s.dir, err)
	}
	if err := s.committing.space.allow(batch.Bytes()); err != nil {
		if !errors.Is(err, storage.ErrNoSpace) {
			s.fence(err) // a file system that cannot be asked is not one to write to
		}
		return fmt.Errorf("badgerstore: %w", err)
	}
	if err := s.write(batch, sequence); err != nil {
		err = fmt.Errorf("commit %d: %w", sequence, err)
		s.fence(err)
		return fmt.Errorf("badgerstore: %s: %w", s.dir, err)
	}
	s.mark.raise(sequence)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.committed = sequence
	s.discardLocked()
	return nil
}

// checkBounds refuses before anything is written what Badger would refuse halfway.
func (s *Store) checkBounds(batch *storage.Batch) error {
	if size, bound := batch.Bytes(), s.MaxBatchBytes(); size > bound {
		return fmt.Errorf("%w: a batch of %d bytes, at most %d fit: split it or raise the memory budget", storage.ErrTooLarge, size, bound)
	}
	if ops, bound := batch.Len(), s.MaxBatchOps(); ops > bound {
		return fmt.Errorf("%w: a batch of %d writes, at most %d fit: split it or raise the memory budget", storage.ErrTooLarge, ops, bound)
	}
	return batch.CheckSizes()
}

// write makes the batch one Badger transaction.
func (s *Store) write(batch *storage.Batch, sequence uint64) error {
	if s.beforeCommit != nil {
		if err := s.beforeCommit(); err != nil {
			return err
		}
	}
	txn := s.db.NewTransactionAt(sequence-1, true)
	defer txn.Discard()
	// One arena, grown up front and so never moved, holds the encoded keys and values.
	need := batch.Bytes() + batch.Len()*(1+sumBytes) + sumBytes + 8
	if cap(s.committing.arena) < need {
		s.committing.arena = make([]byte, 0, need)
	}
	arena := s.committing.arena[:0]
	set := func(key, value []byte) error {
		start := len(arena)
		arena = binary.BigEndian.AppendUint32(arena, checksum(key, value))
		arena = append(arena, value...)
		return txn.Set(key, arena[start:len(arena):len(arena)])
	}
	for _, op := range batch.Ops() {
		start := len(arena)
		arena = append(append(arena, dataPrefix), op.Key...)
		key := arena[start:len(arena):len(arena)]
		var err error
		if op.Delete {
			err = txn.Delete(key)
		} else {
			err = set(key, op.Value)
		}
		if err != nil {
			return err
		}
	}
	if err := set(commitKey, binary.BigEndian.AppendUint64(nil, sequence)); err != nil {
		return err
	}
	if cap(arena) > maxKeptArenaBytes {
		s.committing.arena = nil
	}
	return txn.CommitAt(sequence, nil)
}

// maxKeptArenaBytes is the arena kept from one commit to the next.
const maxKeptArenaBytes = 1 << 20

// checksum covers the key too: a value must not come back under another key.
func checksum(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
}

// discardLocked lets compaction drop the versions that no snapshot, open or future, can read.
func (s *Store) discardLocked() {
	oldest := s.mu.committed
	if len(s.mu.open) > 0 {
		oldest = min(oldest, s.mu.open[0].sequence)
	}
	s.db.SetDiscardTs(oldest)
}
