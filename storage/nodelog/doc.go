// Package nodelog keeps the log entries of all of a node's groups in one append-only segmented
// log, so that everything that is ready costs one write and one fdatasync.
//
// It knows nothing of what an entry means. The two calls to start with are Open and
// Log.Append; Log.Entries, Log.Bounds, Log.Term and Log.State answer what was appended.
//
// # Files
//
// A log is a directory of its own: LOCK, IDENTITY (the log's random id) and segments
// 0000000001.seg, 0000000002.seg and so on. A segment is preallocated and zero behind its
// frames:
//
//	segment  header (512 bytes: version, log id, number, capacity, where the one before it
//	         ended) · frame · frame · … · zeros
//	frame    header (36 bytes: magic, payload length, sequence, segment, offset, kind,
//	         checksums of header and payload) · payload
//	payload  records: entry, state, truncation, reset, removal; the first frame of a segment
//	         starts with a checkpoint of every group's bounds and state
//
// One Append is one frame, so it is there as a whole or not at all. Frame sequences have no
// gap across segments. The header checksum covers the log's id, and the header its own segment
// and offset, so neither a stale block nor a copy of a log file inside an entry passes for a
// frame.
//
// # Recovery
//
// Open reads and verifies every segment. Only one frame is ever in flight, so only the very
// last one can be torn by a crash: it is wiped and a warning says file, offset and bytes.
// Anything else that does not verify is damage: Open returns a *DamageError and changes
// nothing. Damage is: something invalid with a valid frame behind it, also in a later
// segment; a missing segment, including the last one; a bad segment header; a file shorter
// than it was allocated; a record that contradicts the ones before it; entries that the
// log's own bounds promise and no segment has.
//
// # The window that remains
//
// A torn frame and an acknowledged one that rotted look alike when nothing is behind them. So
// once the log has been idle for Options.MarkerDelay, and at Close, a marker is written behind
// the last frame; the next frame overwrites it. With a marker behind it, a bad last frame is
// damage. What remains: bits of the last acknowledged frame rot, or its sectors are lost by a
// disk that lied about the sync, and the process was killed before the marker was written
// (20 ms of idleness), or the power failed before the marker reached the disk (at the next
// fdatasync or the kernel's own write-back, usually within 30 s). Then that one frame is cut as
// if torn. Frames before it never are. In a cluster the other nodes notice that one is missing which
// they were told of: see Log.Frames.
//
// # Segments go
//
// TruncatePrefix says what is no longer needed. The point is recorded in the next frame, and
// once that is on disk, segments from the oldest on that hold no live entry are deleted. If few
// live entries of quiet groups pin the oldest segment of a long log, later frames carry them
// forward.
//
// # Goroutines
//
// Open starts one goroutine, ended by Close: it writes markers and deletes segments.
package nodelog
