package nodelog

// location says where the newest copy of an entry is, in 24 bytes, so that a million live
// entries cost 24 MB of memory.
type location struct {
	term uint64
	// segment is 0 while recovery has not come across the entry yet.
	segment uint32
	// offset and size are those of the record in its segment; crc is its checksum, kept here
	// and not on disk because the frame's checksum already covers the record there.
	offset, size, crc uint32
}

// group is what is known of one group. Guarded by Log.mu.
type group struct {
	// Entries up to truncIndex are gone; truncTerm is the term of the last of them.
	truncIndex, truncTerm uint64
	// locations are those of the entries truncIndex+1 and on.
	locations []location
	state     []byte

	// cached are the newest entries, up to the last one; possibly none.
	cached      []Entry
	cachedBytes int64
}

func (g *group) first() uint64 { return g.truncIndex + 1 }
func (g *group) last() uint64  { return g.truncIndex + uint64(len(g.locations)) }

// cachedFirst is the index of the first cached entry, last()+1 if none is.
func (g *group) cachedFirst() uint64 { return g.last() + 1 - uint64(len(g.cached)) }

// released counts entries of a segment that are live no more.
type released struct {
	segment, group uint32
	entries        int
	bytes          int64
}

// index is the content of the log as far as it is in memory. Recovery fills it before the log
// is shared; from then on Log.mu guards it and only the holder of Log.writeMu changes it,
// except that TruncatePrefix raises truncIndex.
type index struct {
	groups map[uint32]*group
	// segments are in order and their numbers have no gap.
	segments    []*segment
	cachedBytes int64
	cacheLimit  int64
}

// segment returns a segment by number, or nil.
func (x *index) segment(number uint32) *segment {
	if len(x.segments) == 0 || number < x.segments[0].number {
		return nil
	}
	if i := number - x.segments[0].number; int(i) < len(x.segments) {
		return x.segments[i]
	}
	return nil
}

// ensure returns the group, new if it was not there.
func (x *index) ensure(id uint32) *group {
	g := x.groups[id]
	if g == nil {
		g = new(group)
		x.groups[id] = g
	}
	return g
}

// put stores where an entry is and drops what the group had from its index on. The index is
// at most last+1.
func (x *index) put(id uint32, entryIndex uint64, loc location) {
	g := x.ensure(id)
	x.dropFrom(id, g, entryIndex)
	if entryIndex <= g.truncIndex {
		return // truncated while it was being written
	}
	g.locations = append(g.locations, loc)
	x.retain(id, loc)
}

// dropFrom forgets the entries from an index on, at once.
func (x *index) dropFrom(id uint32, g *group, from uint64) {
	if from > g.last() {
		return
	}
	keep := 0
	if from > g.truncIndex {
		keep = int(from - g.first())
	}
	dropped := g.locations[keep:]
	if n := min(len(dropped), len(g.cached)); n > 0 {
		x.uncache(g, len(g.cached)-n, len(g.cached))
		g.cached = g.cached[:len(g.cached)-n]
	}
	x.drop(countReleased(id, dropped))
	g.locations = g.locations[:keep]
}

// carry moves an entry to the place it was copied to, unless it is gone.
func (x *index) carry(id uint32, entryIndex uint64, loc location) {
	g := x.groups[id]
	if g == nil || entryIndex < g.first() || entryIndex > g.last() {
		return
	}
	old := &g.locations[entryIndex-g.first()]
	x.drop(countReleased(id, []location{*old}))
	*old = loc
	x.retain(id, loc)
}

// truncate forgets the entries up to an index. They stay counted as live until the caller
// drops what is returned.
func (x *index) truncate(id uint32, g *group, upTo, term uint64) []released {
	n := min(upTo-g.truncIndex, uint64(len(g.locations)))
	if surplus := len(g.cached) - (len(g.locations) - int(n)); surplus > 0 {
		x.uncache(g, 0, surplus)
		g.cached = g.cached[surplus:]
	}
	gone := countReleased(id, g.locations[:n])
	g.locations = g.locations[n:]
	g.truncIndex, g.truncTerm = upTo, term
	return gone
}

// reset empties a group so that it continues behind an index.
func (x *index) reset(id uint32, upTo, term uint64) {
	g := x.ensure(id)
	x.dropFrom(id, g, g.first())
	g.locations = nil
	g.truncIndex, g.truncTerm = upTo, term
}

// remove forgets a group.
func (x *index) remove(id uint32) {
	if g := x.groups[id]; g != nil {
		x.dropFrom(id, g, g.first())
		delete(x.groups, id)
	}
}

func (x *index) retain(id uint32, loc location) {
	if s := x.segment(loc.segment); s != nil {
		s.liveEntries[id]++
		s.liveBytes += int64(loc.size)
	}
}

func (x *index) drop(gone []released) {
	for _, r := range gone {
		s := x.segment(r.segment)
		if s == nil {
			continue
		}
		s.liveBytes -= r.bytes
		if s.liveEntries[r.group] -= r.entries; s.liveEntries[r.group] == 0 {
			delete(s.liveEntries, r.group)
		}
	}
}

// countReleased adds locations up by segment. Neighbours mostly share one.
func countReleased(id uint32, locations []location) []released {
	var gone []released
	for _, loc := range locations {
		if n := len(gone); n == 0 || gone[n-1].segment != loc.segment {
			gone = append(gone, released{segment: loc.segment, group: id})
		}
		r := &gone[len(gone)-1]
		r.entries++
		r.bytes += int64(loc.size)
	}
	return gone
}

// cache keeps an entry that was just put.
func (x *index) cache(id uint32, e Entry) {
	g := x.groups[id]
	if g == nil || len(g.locations) == 0 || g.last() != e.Index {
		return
	}
	g.cached = append(g.cached, e)
	size := entryFootprint(e)
	g.cachedBytes += size
	x.cachedBytes += size
}

// entryFootprint is what a cached entry costs in memory, roughly.
func entryFootprint(e Entry) int64 { return int64(len(e.Data)) + 64 }

// uncache clears cached entries [from, to); the caller reslices.
func (x *index) uncache(g *group, from, to int) {
	for _, e := range g.cached[from:to] {
		size := entryFootprint(e)
		g.cachedBytes -= size
		x.cachedBytes -= size
	}
	clear(g.cached[from:to]) // or the array would keep the data alive
}

// evict brings the cache below its limit by halving the largest group's share, again and
// again: busy groups, whose entries are read soon, share the memory evenly, and quiet ones
// keep the few they have. (A list in order of arrival would need entries of its own.)
func (x *index) evict() {
	if x.cachedBytes <= x.cacheLimit {
		return
	}
	for x.cachedBytes > x.cacheLimit-x.cacheLimit/8 {
		var largest *group
		for _, g := range x.groups {
			if largest == nil || g.cachedBytes > largest.cachedBytes {
				largest = g
			}
		}
		if largest == nil || len(largest.cached) == 0 {
			return
		}
		n := (len(largest.cached) + 1) / 2
		x.uncache(largest, 0, n)
		largest.cached = append([]Entry(nil), largest.cached[n:]...)
	}
}

// deletable returns how many of the oldest segments hold nothing live and are followed by one
// that starts with a checkpoint.
func (x *index) deletable() int {
	n := 0
	for i := 1; i < len(x.segments); i++ {
		if len(x.segments[i-1].liveEntries) > 0 {
			break
		}
		if x.segments[i].checkpointed {
			n = i
		}
	}
	return n
}
