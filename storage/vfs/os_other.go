//go:build unix && !linux

package vfs

import "os"

// datasync is a full Sync: on darwin os.File.Sync asks for F_FULLFSYNC, and only that reaches
// the platter there.
func datasync(f *os.File) error { return f.Sync() }

// preallocate only sets the size: the space is not reserved, so a later write may find the
// disk full. The node log handles that.
func preallocate(f *os.File, size int64) error { return f.Truncate(size) }
