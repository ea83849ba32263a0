package nodelog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/perdure/perdure/storage/vfs"
)

// recovery reads a log that exists. run only reads; repair then makes the few changes that an
// innocent crash calls for.
type recovery struct {
	log   *Log
	index *index
	id    logID
	// identified is whether id comes from the identity file rather than the first segment.
	identified bool

	sequence uint64 // of the last intact frame
	replayed bool   // whether any frame was
	content  []byte // of the segment being scanned

	// The following describe the last segment.
	marked     bool  // a marker proves that its last frame was synced
	sealed     bool  // a seal proves that, and that the next segment was made
	lastStart  int64 // of its last frame; 0: it has none
	torn       [2]int64
	tornReason string
	// unfinished is the path of a segment behind it whose creation did not finish, or "".
	unfinished string
}

// neverUsed is whether there is no log here, or one whose creation did not finish. Only asked
// if there is no identity, which is written last.
func (r *recovery) neverUsed(numbers []uint32) (bool, error) {
	if len(numbers) == 0 {
		return true, nil
	}
	if len(numbers) > 1 || numbers[0] != 1 {
		return false, nil
	}
	return r.holdsNoFrame(1)
}

func (r *recovery) path(number uint32) string {
	return filepath.Join(r.log.opts.Dir, segmentName(number))
}

// damage describes what is wrong and what is not.
func (r *recovery) damage(file string, offset int64, format string, args ...any) error {
	intact := ""
	if r.replayed {
		intact = fmt.Sprintf("frames up to number %d", r.sequence)
	}
	return &DamageError{File: file, Offset: offset, Reason: fmt.Sprintf(format, args...), Intact: intact}
}

func (r *recovery) run(numbers []uint32) error {
	dir := r.log.opts.Dir
	if len(numbers) == 0 {
		return r.damage(dir, 0, "the log was in use (see %s), but every segment is missing", identityName)
	}
	last := numbers[len(numbers)-1]
	for i, number := range numbers {
		if i > 0 && number != numbers[i-1]+1 {
			return r.damage(dir, 0, "segment %s is missing", segmentName(numbers[i-1]+1))
		}
	}
	// A last segment without a frame is in doubt: it is good if the one before it is sealed,
	// and otherwise its creation did not finish, whatever of it is there.
	doubtful := false
	if len(numbers) > 1 {
		empty, err := r.holdsNoFrame(last)
		if err != nil {
			return err
		}
		if doubtful = empty; doubtful {
			numbers = numbers[:len(numbers)-1]
		}
	}
	headers := make([]segmentHeader, 0, len(numbers)+1)
	for _, number := range numbers {
		header, err := r.openSegment(number)
		if err != nil {
			return err
		}
		headers = append(headers, header)
	}
	r.log.id = r.id
	r.sequence = headers[0].previousSequence
	for i := range headers {
		if err := r.scan(i, headers); err != nil {
			return err
		}
	}
	switch {
	case doubtful && r.sealed:
		header, err := r.openSegment(last)
		if err != nil {
			return err
		}
		headers = append(headers, header)
		if err := r.scan(len(headers)-1, headers); err != nil {
			return err
		}
	case doubtful:
		if err := r.checkUnfinished(last); err != nil {
			return err
		}
		r.unfinished = r.path(last)
	case r.sealed:
		return r.damage(dir, 0, "segment %s, which follows %s, is missing", segmentName(last+1), segmentName(last))
	}
	r.content = nil
	return r.checkComplete(numbers[0])
}

// checkUnfinished looks at a segment whose creation did not finish. If its header did get
// there, it says where the segment before ends.
func (r *recovery) checkUnfinished(number uint32) error {
	header, err := r.openSegment(number)
	if errors.Is(err, ErrVersion) {
		return err
	}
	if err != nil {
		return nil // torn, as is to be expected
	}
	n := len(r.index.segments) - 1
	opened, before := r.index.segments[n], r.index.segments[n-1]
	r.index.segments = r.index.segments[:n]
	if err := opened.release(); err != nil {
		return fmt.Errorf("nodelog: close segment: %w", err)
	}
	if header.previousSequence != r.sequence || header.previousEnd != before.end {
		return r.damage(before.path, before.end, "the next segment says that this one goes on to frame %d and offset %d", header.previousSequence, header.previousEnd)
	}
	return nil
}

// holdsNoFrame is whether a segment's file is blank behind the header.
func (r *recovery) holdsNoFrame(number uint32) (bool, error) {
	file, err := r.log.opts.FS.Open(r.path(number))
	if err != nil {
		return false, fmt.Errorf("nodelog: open segment: %w", err)
	}
	defer file.Close()
	// The first bytes decide nearly always; only a blank one is read to its end.
	buf := make([]byte, 4<<10)
	for at := int64(segmentHeaderBytes); ; {
		n, err := file.ReadAt(buf, at)
		if !allZero(buf[:n]) {
			return false, nil
		}
		if errors.Is(err, io.EOF) {
			return true, nil
		}
		if err != nil {
			return false, fmt.Errorf("nodelog: read segment: %w", err)
		}
		at += int64(n)
		if len(buf) < 1<<20 {
			buf = make([]byte, 1<<20)
		}
	}
}

// openSegment verifies a segment's header and size.
func (r *recovery) openSegment(number uint32) (header segmentHeader, err error) {
	path := r.path(number)
	file, err := r.log.opts.FS.Open(path)
	if err != nil {
		return header, fmt.Errorf("nodelog: open segment: %w", err)
	}
	fail := func(err error) (segmentHeader, error) {
		return segmentHeader{}, errors.Join(err, file.Close())
	}
	size, err := file.Size()
	if err != nil {
		return fail(fmt.Errorf("nodelog: %w", err))
	}
	head := make([]byte, min(size, segmentHeaderBytes))
	if n, err := file.ReadAt(head, 0); n < len(head) {
		return fail(fmt.Errorf("nodelog: read %s: %w", path, err))
	}
	header, err = parseSegmentHeader(path, head)
	switch {
	case err != nil:
		return fail(err)
	case header.number != number:
		return fail(r.damage(path, 0, "the file is segment %d by its header", header.number))
	case r.identified && header.id != r.id:
		return fail(r.damage(path, 0, "the file belongs to log %s, this is log %s", header.id, r.id))
	case header.capacity != size:
		return fail(r.damage(path, min(size, header.capacity), "the file has %d bytes, it was allocated with %d", size, header.capacity))
	case !allZero(head[segmentHeaderUsed:]):
		return fail(r.damage(path, segmentHeaderUsed, "unexpected bytes behind the file header"))
	case header.previousEnd < segmentHeaderBytes || header.capacity < segmentHeaderBytes || header.capacity > maxFrameBytes*2:
		return fail(r.damage(path, 32, "the file header has impossible sizes"))
	}
	r.id, r.identified = header.id, true
	r.index.segments = append(r.index.segments, newSegment(number, path, file, header.capacity))
	return header, nil
}

// scan replays segment i of those in the index, the last of which may have more behind it.
func (r *recovery) scan(i int, headers []segmentHeader) error {
	s := r.index.segments[i]
	if i > 0 {
		before := r.index.segments[i-1]
		if headers[i].previousSequence != r.sequence || headers[i].previousEnd != before.end {
			return r.damage(s.path, 40, "the segment follows frame %d that ends at offset %d, the one before it ends with frame %d at offset %d",
				headers[i].previousSequence, headers[i].previousEnd, r.sequence, before.end)
		}
	}
	var next *segmentHeader
	if i+1 < len(headers) {
		next = &headers[i+1]
	}
	if int64(cap(r.content)) < s.capacity {
		r.content = make([]byte, s.capacity)
	}
	r.content = r.content[:s.capacity]
	if n, err := s.file.ReadAt(r.content, 0); int64(n) < s.capacity {
		return fmt.Errorf("nodelog: read %s: %w", s.path, err)
	}
	stop := s.capacity
	if next != nil {
		stop = next.previousEnd
		if stop > s.capacity {
			return r.damage(s.path, s.capacity, "the next segment says that this one ends at offset %d", stop)
		}
	}
	at := int64(segmentHeaderBytes)
	r.lastStart, r.marked, r.sealed, r.torn = 0, false, false, [2]int64{}
	for at < stop {
		end, reason, err := r.frame(s, at)
		if err != nil {
			return err
		}
		if reason != "" {
			if next != nil {
				return r.damage(s.path, at, "%s", reason)
			}
			break
		}
		r.lastStart, at = at, end
	}
	s.end = at
	if next == nil {
		return r.tail(s, at)
	}
	// Behind the end there is the seal, whole or torn, which is not needed any more. A frame
	// there would be one that the next segment does not know of.
	if h, ok := r.headerAt(s, at); ok && h.kind == frameData {
		return r.damage(s.path, at, "there is a frame behind the end that the next segment states")
	}
	return nil
}

func (r *recovery) headerAt(s *segment, at int64) (frameHeader, bool) {
	return parseFrameHeader(r.content[at:], r.id, s.number, uint32(at))
}

// frame verifies and replays the frame at an offset. A reason is returned for what could be a
// torn frame, an error for what can't.
func (r *recovery) frame(s *segment, at int64) (end int64, reason string, err error) {
	h, ok := r.headerAt(s, at)
	if !ok {
		return 0, "no intact frame header", nil
	}
	if h.kind != frameData {
		return 0, "a marker where a frame is expected", nil
	}
	end = at + frameHeaderBytes + int64(h.length)
	if end > s.capacity {
		return 0, "", r.damage(s.path, at, "frame %d of %d bytes reaches beyond the segment", h.sequence, h.length)
	}
	if h.sequence != r.sequence+1 {
		return 0, "", r.damage(s.path, at, "frame %d where frame %d is expected", h.sequence, r.sequence+1)
	}
	payload := r.content[at+frameHeaderBytes : end]
	if checksum(payload) != h.payloadCRC {
		return 0, fmt.Sprintf("checksum mismatch in the payload of frame %d", h.sequence), nil
	}
	if err := r.replay(s, payload, at+frameHeaderBytes, at == segmentHeaderBytes); err != nil {
		return 0, "", err
	}
	r.sequence = h.sequence
	r.replayed = true
	s.checkpointed = true
	return end, "", nil
}

// tail judges what is behind the last intact frame of the last segment.
func (r *recovery) tail(s *segment, at int64) error {
	restAt := at
	if h, ok := r.headerAt(s, at); ok && h.kind != frameData {
		if h.sequence != r.sequence {
			return r.damage(s.path, at, "a marker says that frame %d was written here, the last one found is %d", h.sequence, r.sequence)
		}
		if h.kind == frameSeal {
			// All before it is on disk and the next segment was made; run looks for it.
			r.sealed = true
			return nil
		}
		r.marked = true
		// What follows the marker can only be the rest of a torn frame whose first sector,
		// with the marker in it, was not written over.
		restAt += frameHeaderBytes
	}
	rest := r.content[restAt:]
	if allZero(rest) {
		return nil
	}
	reason := r.tailReason(s, at)
	if behind := findFrameHeader(r.content, int(max(at+1, restAt)), r.id, s.number); behind >= 0 {
		return r.damage(s.path, at, "%s, and there is an intact frame header behind it at offset %d, so it was written and synced once", reason, behind)
	}
	r.torn = [2]int64{restAt, restAt + int64(lastNonZero(rest)) + 1}
	r.tornReason = reason
	return nil
}

// tailReason says why what is at the end of the last segment is no frame.
func (r *recovery) tailReason(s *segment, at int64) string {
	if r.marked {
		return "unexpected bytes behind the marker"
	}
	if h, ok := r.headerAt(s, at); ok {
		return fmt.Sprintf("checksum mismatch in the payload of frame %d", h.sequence)
	}
	return "no intact frame header"
}

func lastNonZero(b []byte) int {
	return len(bytes.TrimRight(b, "\x00")) - 1
}

// checkComplete verifies that every entry that the bounds promise was found.
func (r *recovery) checkComplete(oldest uint32) error {
	for id, g := range r.index.groups {
		for i, loc := range g.locations {
			if loc.segment == 0 {
				return r.damage(r.log.opts.Dir, 0, "segments before %s are missing: entry %d of group %d was in one of them and is still needed",
					segmentName(oldest), g.first()+uint64(i), id)
			}
		}
	}
	return nil
}

// repair removes the traces of a crash and makes sure that all that was read is on disk.
func (r *recovery) repair() error {
	l, s := r.log, r.index.segments[len(r.index.segments)-1]
	fs, logger := l.opts.FS, l.logger
	l.current, l.sequence, l.marked, l.markable = s, r.sequence, r.marked, r.sequence > 0
	if n := r.torn[1] - r.torn[0]; n > 0 {
		logger.Warn("unfinished last frame of the node log cut", "path", s.path, "offset", r.torn[0], "bytes", n, "reason", r.tornReason)
		if _, err := s.file.WriteAt(make([]byte, n), r.torn[0]); err != nil {
			return fmt.Errorf("nodelog: wipe unfinished frame of %s: %w", s.path, noSpace(err))
		}
	}
	if !r.marked {
		// It may have been written but never synced, or its sync may have failed, after which
		// the kernel takes the pages for clean and a further sync would report success for
		// nothing. Written again, they are dirty again.
		from, to := int64(0), int64(segmentHeaderBytes)
		if r.lastStart > 0 {
			from, to = r.lastStart, s.end
		}
		buf := make([]byte, to-from)
		if n, err := s.file.ReadAt(buf, from); n < len(buf) {
			return fmt.Errorf("nodelog: read %s: %w", s.path, err)
		}
		if _, err := s.file.WriteAt(buf, from); err != nil {
			return fmt.Errorf("nodelog: write last frame of %s again: %w", s.path, noSpace(err))
		}
	}
	if err := s.file.Sync(); err != nil {
		return fmt.Errorf("nodelog: sync %s: %w", s.path, err)
	}
	if r.unfinished != "" {
		if err := fs.Remove(r.unfinished); err != nil && !vfs.IsNotExist(err) {
			return fmt.Errorf("nodelog: remove unfinished segment: %w", err)
		}
	}
	if err := fs.SyncDir(l.opts.Dir); err != nil {
		return fmt.Errorf("nodelog: sync directory: %w", err)
	}
	if _, known, err := l.readIdentity(); err != nil {
		return err
	} else if !known {
		logger.Warn("identity of the node log missing, written again from its segments", "path", l.identityPath())
		return l.writeIdentity()
	}
	return nil
}
