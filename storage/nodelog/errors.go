package nodelog

import (
	"errors"
	"fmt"
)

// Errors that callers branch on with errors.Is.
var (
	// ErrClosed is returned by every call after Close.
	ErrClosed = errors.New("nodelog: log is closed")
	// ErrCompacted says that an index is below the group's first: see TruncatePrefix, Reset.
	ErrCompacted = errors.New("nodelog: index is below the group's first entry")
	// ErrUnavailable says that an index is above the group's last.
	ErrUnavailable = errors.New("nodelog: index is above the group's last entry")
	// ErrFenced is returned, wrapping the cause, by the write that failed and all later ones.
	// The failed write may or may not be on disk: close the log and open it again to know.
	ErrFenced = errors.New("nodelog: an earlier write failed with unknown outcome; close the log and open it again")
	// ErrNoSpace says that nothing was written because the disk is full or below
	// Options.MinFreeBytes. The log stays usable.
	ErrNoSpace = errors.New("nodelog: too little free disk space")
	// ErrLocked is returned by Open while another process has the directory open.
	ErrLocked = errors.New("nodelog: directory is in use by another process")
	// ErrDamaged is what every *DamageError is.
	ErrDamaged = errors.New("nodelog: log is damaged")
	// ErrVersion is what every *VersionError is.
	ErrVersion = errors.New("nodelog: unsupported format version")
)

// DamageError says where a log is damaged. Nothing was changed on disk.
type DamageError struct {
	// File is the path of the damaged file, or the directory if a file is missing.
	File string
	// Offset is the byte in File at which the damage was noticed.
	Offset int64
	// Reason says what did not verify.
	Reason string
	// Intact says what before the damage was verified, or is empty.
	Intact string
}

// Error implements error.
func (e *DamageError) Error() string {
	intact := ""
	if e.Intact != "" {
		intact = "; intact before it: " + e.Intact
	}
	return fmt.Sprintf("nodelog: %s is damaged at offset %d: %s%s; nothing was changed. "+
		"Put back a good copy of the log's directory, or remove this node's data directory and let it join again, so that its replicas are rebuilt from other nodes",
		e.File, e.Offset, e.Reason, intact)
}

// Is makes errors.Is(err, ErrDamaged) true.
func (e *DamageError) Is(target error) bool { return target == ErrDamaged }

// VersionError says that a file was written in a format that this build does not read.
type VersionError struct {
	// File is the path of the file.
	File string
	// Found and Supported are the file's version and the newest one this build reads.
	Found, Supported uint32
}

// Error implements error.
func (e *VersionError) Error() string {
	return fmt.Sprintf("nodelog: %s has format version %d, this build reads up to version %d: start a build at least as new as the one that wrote it", e.File, e.Found, e.Supported)
}

// Is makes errors.Is(err, ErrVersion) true.
func (e *VersionError) Is(target error) bool { return target == ErrVersion }
