// Package storage is the seam between Perdure and the engine that keeps its data: ordered
// keys, atomic batches and snapshots.
//
// It has two backends: storage/badgerstore, which keeps data on disk, and storage/memstore,
// an in-memory twin that can be cloned as if the power had failed and that injects faults.
// storage/storagetest is the suite that both pass.
//
// A store is off the acknowledging path: the node log (storage/nodelog) is what makes a call
// durable, the store holds what the log decided.
package storage

import (
	"errors"
)

// Errors that callers branch on.
var (
	// ErrClosed is returned by every call after Close.
	ErrClosed = errors.New("storage: store is closed")
	// ErrFenced is returned by Commit after an earlier Commit failed: that batch may or may
	// not be visible and durable, so the store takes no more until it is opened again.
	ErrFenced = errors.New("storage: an earlier commit failed with unknown outcome; close the store and open it again")
	// ErrNoSpace is returned by Commit, before anything is written, when the disk has less
	// free space than the store's watermark.
	ErrNoSpace = errors.New("storage: too little free disk space")
	// ErrLocked is returned by Open when another process has the directory open.
	ErrLocked = errors.New("storage: directory is in use by another process")
	// ErrTooLarge is returned by Commit, before anything is written, for a key above
	// MaxKeyBytes, a value above MaxValueBytes or a batch above the backend's bounds.
	ErrTooLarge = errors.New("storage: too large")
	// ErrDamaged is returned by Open, Get and Scan for stored bytes that fail their checksum:
	// a backend never returns altered data.
	ErrDamaged = errors.New("storage: stored data is damaged")
	// ErrDataLoss is returned by Open when the directory holds less than was once committed.
	ErrDataLoss = errors.New("storage: committed data is missing")
)

// Store keeps ordered key-value pairs. Snapshot may be called concurrently; Commit by one
// goroutine at a time.
type Store interface {
	// Snapshot returns the data as of the last Commit that returned nil. It never waits for
	// a Commit in progress. The caller must Release it.
	Snapshot() Snapshot
	// Commit applies the batch atomically and returns once it is on disk (fdatasync or
	// better). An error other than ErrNoSpace, ErrTooLarge and ErrClosed means the outcome is
	// unknown and fences the store: see ErrFenced. An empty batch does nothing.
	Commit(batch *Batch) error
	// Close releases the store. Snapshots should have been released: what is still read from
	// them fails with ErrClosed. A second Close returns ErrClosed.
	Close() error
}

// Snapshot is a read-only view. Its methods may be called concurrently.
type Snapshot interface {
	// Get returns the value of key, or ok false. The value is the caller's to keep.
	Get(key []byte) (value []byte, ok bool, err error)
	// Scan calls fn with each pair in lower ≤ key < upper, in ascending key order, until fn
	// returns false. A nil upper is the end of the key space. key and value are valid during
	// the call of fn only.
	Scan(lower, upper []byte, fn func(key, value []byte) bool) error
	// Release frees the snapshot; it must be called once.
	Release()
}
