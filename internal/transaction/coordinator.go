package transaction

import (
	"slices"

	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// Coordinator is one try at a transaction, in the root's partition. It is in memory only: what
// outlives a crash is the decision, which the engine writes.
type Coordinator struct {
	ID    ID
	Age   Age
	Phase Phase
	// Wounded: an older transaction waits for this one.
	Wounded bool
	// Since is when the phase began, in milliseconds since 1970.
	Since int64
	// Alone: a participant was asked to decide, so only it knows what happened.
	Alone bool

	// decider is that participant, once it is known who it will be: HandOn.
	decider *member
	members []*member
	// few is the memory of the first members.
	few struct {
		members [2]member
		list    [2]*member
	}
	// nested: a call has made other partitions part of the transaction.
	nested bool
	undone []Path
	waits  []*selfWait
}

// selfWait is a call that waits for another call of the same transaction.
type selfWait struct {
	*recordv1.SelfWait
	from uint32
	seen int
}

// member is a participant.
type member struct {
	partition uint32
	// epoch of the leadership that ran the calls; 0 while none has answered.
	epoch  uint64
	voted  bool
	writes bool
	// reader: it has nothing to write, as far as is known.
	reader bool
	// ready: it has said yes and must be asked again, finally.
	ready bool
}

// Verdict is what a vote leads to.
type Verdict uint8

const (
	// Undecided: other votes are missing.
	Undecided Verdict = iota
	// Decided: all have said yes.
	Decided
	// NextRound: those who write have promised to, what was read is durable, and those who have
	// read must be asked finally, or who decides.
	NextRound
	// Lost: a participant has forgotten the try. Another may succeed.
	Lost
)

func (c *Coordinator) member(partition uint32) *member {
	for _, m := range c.members {
		if m.partition == partition {
			return m
		}
	}
	return nil
}

// Called notes that a call is on its way to a partition.
func (c *Coordinator) Called(partition uint32) {
	if c.member(partition) != nil {
		return
	}
	n := len(c.members)
	if n == 0 {
		c.members = c.few.list[:0]
	}
	m := &member{}
	if n < len(c.few.members) {
		m = &c.few.members[n]
	}
	m.partition = partition
	c.members = append(c.members, m)
}

// Answered notes whom a call has made part of the transaction. It reports false if one of them
// has had two leaders meanwhile: what the first did is lost.
func (c *Coordinator) Answered(members []*recordv1.Member) bool {
	c.nested = c.nested || len(members) > 1
	for _, answered := range members {
		c.Called(answered.Partition)
		m := c.member(answered.Partition)
		if m.epoch != 0 && m.epoch != answered.Epoch {
			return false
		}
		// Members come by way of others, so one that knows of no writes may be older than one that
		// does. If they are taken back the vote says so.
		m.reader = !answered.Writes && (m.epoch == 0 || m.reader)
		m.epoch = answered.Epoch
	}
	return true
}

// Undo notes calls whose writes are taken back.
func (c *Coordinator) Undo(paths ...Path) { c.undone = addPaths(c.undone, paths) }

// Undone are the calls whose writes are taken back.
func (c *Coordinator) Undone() []Path { return c.undone }

// Members are the partitions that were called.
func (c *Coordinator) Members() []uint32 {
	var all []uint32
	for _, m := range c.members {
		all = append(all, m.partition)
	}
	return all
}

// HandOn lets a participant decide in the place of the coordinator, whose partition has nothing to
// write: the last that was called, by the record by which it would have promised. With one
// participant it is asked at once; several, if that is allowed, must all have something to write,
// for one who has only read asks for another round, and promise it to the one who decides.
func (c *Coordinator) HandOn(own uint32, several bool) {
	last := c.members[len(c.members)-1]
	if len(c.members) == 1 && last.partition != own {
		c.decider, c.Alone = last, true
		return
	}
	if !several || len(c.undone) > 0 || slices.ContainsFunc(c.members, func(m *member) bool { return m.partition == own || m.reader || m.epoch == 0 }) {
		return
	}
	c.decider = last
}

// HandedOn reports whether a participant decides, or will.
func (c *Coordinator) HandedOn() bool { return c.decider != nil }

// Unpromised are those who must hear that the try is given up: all, or only who was asked to
// decide. What others have promised is that one's to take back, who may have decided already.
func (c *Coordinator) Unpromised() []uint32 {
	if c.Alone {
		return []uint32{c.decider.partition}
	}
	return c.Members()
}

// Writers are the partitions that have promised to write.
func (c *Coordinator) Writers() []uint32 {
	var all []uint32
	for _, m := range c.members {
		if m.writes {
			all = append(all, m.partition)
		}
	}
	return all
}

// Prepare is what to ask of each participant that has not voted: repeated, it asks those again
// whose answer is missing. It asks nobody if there is nobody but own, the coordinator's
// partition, which commits with the decision.
//
// A participant that writes promises to, and its objects can't be read from then on until the
// decision is known. One that has only read lets go of its keys when it says yes to the final
// question: whoever writes there next may end before this transaction does, and nobody may find
// any other object, after that, as it was before this transaction or before what this
// transaction has read. So that question comes when all who write have promised, and all that
// was read anywhere is durable: READ handlers see nothing else.
func (c *Coordinator) Prepare(own uint32, ask func(partition uint32, prepare *recordv1.Prepare)) {
	final, parts := c.Final(own), c.Parts()
	for _, m := range c.members {
		if m.partition == own || m.voted || m.ready && !final || m == c.decider && !c.Alone {
			continue
		}
		prepare := &recordv1.Prepare{
			Epoch: m.epoch, Undone: RecordPaths(c.undone), Discard: c.Phase == RollingBack, Alone: c.Alone, Final: final, Parts: parts,
		}
		if c.Alone {
			prepare.Writers = c.Writers()
		} else if c.decider != nil {
			prepare.Decider = &recordv1.Member{Partition: c.decider.partition, Epoch: c.decider.epoch}
		}
		ask(m.partition, prepare)
	}
}

// AddCalled notes a partition that a handler calls, whose leadership is not known yet.
func AddCalled(members []*recordv1.Member, partition uint32) []*recordv1.Member {
	if slices.ContainsFunc(members, func(m *recordv1.Member) bool { return m.Partition == partition }) {
		return members
	}
	return append(members, &recordv1.Member{Partition: partition})
}

// AppendKnown leaves out those that have not answered: their calls came to nothing.
func AppendKnown(to, members []*recordv1.Member) []*recordv1.Member {
	for _, m := range members {
		if m.Epoch != 0 {
			to = append(to, m)
		}
	}
	return to
}

// Parts are the numbers of all parts; nil if all calls were the root's own.
func (c *Coordinator) Parts() (parts []*recordv1.Member) {
	if c.nested {
		for _, m := range c.members {
			parts = append(parts, &recordv1.Member{Partition: m.partition, Epoch: m.epoch})
		}
	}
	return parts
}

// HasPart reports whether a partition's part is one of those; the root's, which is 0, always is.
func HasPart(parts []*recordv1.Member, partition uint32, part uint64) bool {
	return part == 0 || slices.ContainsFunc(parts, func(m *recordv1.Member) bool { return m.Partition == partition && m.Epoch == part })
}

// Final reports whether the question that Prepare asks now is the final one. It is the first if
// only one is asked, who has nothing to write: what it says is durable when it says so, and what
// somebody else writes there is later in the same log.
func (c *Coordinator) Final(own uint32) bool {
	others := 0
	for _, m := range c.members {
		if m.partition != own {
			others++
		}
	}
	return c.Alone || !slices.ContainsFunc(c.members, func(m *member) bool {
		return m.partition != own && !m.voted && !m.ready && !(others == 1 && (m.reader || c.Phase == RollingBack))
	})
}

// Heeds reports whether a vote counts: once a participant was asked to decide, only its own. If that
// says no it has not decided and never will, and all may be told that the try is given up.
func (c *Coordinator) Heeds(vote *recordv1.Vote) bool {
	if c.Alone && vote.From != c.decider.partition {
		return false
	}
	c.Alone = c.Alone && vote.Yes
	return true
}

// Vote takes a participant's answer to Prepare, if it counts.
func (c *Coordinator) Vote(own uint32, vote *recordv1.Vote) Verdict {
	m := c.member(vote.From)
	if m == nil || m.voted || m.ready && vote.Yes && !vote.Final || c.Phase != Preparing && c.Phase != RollingBack {
		return Undecided
	}
	if !vote.Yes || c.decider != nil && (vote.Reader || vote.Confirm) && !c.Alone {
		return Lost // Or the next try has to ask differently.
	}
	switch {
	case vote.Final:
		m.voted, m.writes = true, m.writes || !vote.Reader
	case vote.Reader:
		m.reader, m.ready = true, true // If it had anything to write, that was taken back.
	case vote.Confirm:
		m.ready, m.writes = true, true
	default:
		m.voted, m.writes = true, true
	}
	verdict := Decided
	for _, m := range c.members {
		switch {
		case m.voted || m.partition == own:
		case m == c.decider:
			verdict = NextRound
		case !m.ready:
			return Undecided
		case vote.Final:
			verdict = Undecided
		default:
			verdict = NextRound
		}
	}
	c.Alone = c.Alone || verdict == NextRound && c.decider != nil
	return verdict
}

// Waits takes what a partition says, about once a second, of calls that wait for others of the
// same transaction. It returns a circle of them, if there is one that has been there for a
// while, in which each waits for the next: none of them will ever end.
//
// Two calls to one object run one after the other. If each of them, meanwhile, waits for a call
// that waits for the other, no lock is in the way and no age decides.
func (c *Coordinator) Waits(from uint32, waits []*recordv1.SelfWait) []*recordv1.SelfWait {
	var now []*selfWait
	for _, w := range waits {
		known := &selfWait{w, from, 0}
		for _, old := range c.waits {
			if old.from == from && string(old.Path) == string(w.Path) && string(old.For) == string(w.For) {
				known.seen = old.seen
			}
		}
		known.seen++
		now = append(now, known)
	}
	c.waits = append(slices.DeleteFunc(c.waits, func(w *selfWait) bool { return w.from == from }), now...)
	for _, w := range c.waits {
		if circle := c.circle(w, nil); circle != nil {
			return circle
		}
	}
	return nil
}

// circle follows who waits for whom: a call ends only after those it has made.
func (c *Coordinator) circle(w *selfWait, via []*selfWait) []*recordv1.SelfWait {
	if w.seen < 2 {
		return nil
	}
	if at := slices.Index(via, w); at >= 0 {
		var all []*recordv1.SelfWait
		for _, v := range via[at:] {
			all = append(all, v.SelfWait)
		}
		return all
	}
	for _, next := range c.waits {
		if Path(next.Path).Under(Path(w.For)) {
			if all := c.circle(next, append(via, w)); all != nil {
				return all
			}
		}
	}
	return nil
}

func addPaths(to []Path, more []Path) []Path {
	for _, path := range more {
		if !covered(to, path) {
			to = append(slices.DeleteFunc(slices.Clone(to), func(p Path) bool { return p.Under(path) }), path)
		}
	}
	return to
}

// covered reports whether a path is one of roots or below one.
func covered(roots []Path, path Path) bool {
	return slices.ContainsFunc(roots, path.Under)
}

// AddPaths adds what a message says.
func AddPaths(to []Path, record [][]byte) []Path {
	for _, path := range record {
		to = addPaths(to, []Path{Path(path)})
	}
	return to
}

// RecordPaths are paths as a message has them.
func RecordPaths(paths []Path) [][]byte {
	var record [][]byte
	for _, path := range paths {
		record = append(record, []byte(path))
	}
	return record
}
