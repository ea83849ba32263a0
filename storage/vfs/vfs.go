// Package vfs is the seam between Perdure's own files and the disk: the few file operations
// the node log needs, on the operating system (OS) or in memory (Mem).
//
// Mem exists to prove what the log promises: it can be cloned as if the power had failed,
// fail the n-th operation of a kind, run out of space and flip bits.
package vfs

import (
	"errors"
	"io"
	"io/fs"
	"syscall"
)

// Errors that callers branch on. A missing file is io/fs.ErrNotExist.
var (
	// ErrLocked is returned by Lock while another process, or another holder in this
	// process, has the file locked.
	ErrLocked = errors.New("vfs: file is locked by another holder")
	// ErrPowerCut is returned by every operation of a Mem after its simulated power cut.
	ErrPowerCut = errors.New("vfs: simulated power cut")
)

// FS is a file system. Names are slash-separated paths as the implementation takes them.
// All methods may be called concurrently.
type FS interface {
	// Create makes an empty file for reading and writing, in place of any file of that
	// name. The name is durable after SyncDir of its directory.
	Create(name string) (File, error)
	// Open opens an existing file for reading and writing.
	Open(name string) (File, error)
	// Remove deletes a file. Open handles stay usable. Durable after SyncDir.
	Remove(name string) error
	// Rename replaces newName by oldName atomically. Durable after SyncDir.
	Rename(oldName, newName string) error
	// List returns the names (not paths) of the files in dir, sorted.
	List(dir string) ([]string, error)
	// Stat returns a file's size in bytes.
	Stat(name string) (size int64, err error)
	// MkdirAll creates dir and its missing parents and makes them durable.
	MkdirAll(dir string) error
	// SyncDir makes the names in dir durable.
	SyncDir(dir string) error
	// Lock takes an exclusive lock on a file, created if missing, until the closer is
	// closed or the process ends. It does not wait: a taken lock is ErrLocked.
	Lock(name string) (io.Closer, error)
	// FreeBytes returns how many bytes this process may still allocate on dir's disk.
	FreeBytes(dir string) (uint64, error)
}

// File is an open file. Its methods may be called concurrently, except Close.
type File interface {
	io.ReaderAt
	io.WriterAt
	// Sync makes the file's bytes and size durable (fdatasync). After an error the state of
	// what was written since the last good Sync is unknown and calling again proves nothing:
	// the kernel may have dropped the pages.
	Sync() error
	// Truncate sets the size; new bytes read as zero.
	Truncate(size int64) error
	// Preallocate grows the file to size bytes, reading as zero, and reserves their disk
	// space where the file system can, so that writing them later cannot run out of space.
	Preallocate(size int64) error
	// Size returns the size in bytes.
	Size() (int64, error)
	// Close releases the handle without syncing.
	Close() error
}

// IsNoSpace reports whether err says that the disk or the user's quota is full.
func IsNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// IsNotExist reports whether err says that a file is missing.
func IsNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }
