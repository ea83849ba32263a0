package transaction

import "github.com/perdure/perdure/internal/invocation"

// Starving are the invocations, of whatever partition, that can't get their keys beside younger
// transactions that only read.
//
// Such transactions never give way, and come before all that wait to write. A stream of them could
// keep a writer out for as long as it lasts: each of its keys is held by one of them or another,
// and whenever it has one of its keys and waits for the next, somebody makes it let go. So one
// that has been passed or made to let go too often says so to all partitions, and none of them lets
// a younger transaction begin that only reads. Such a one holds nothing yet, so nobody waits for
// it, whatever it waits for; those that are under way end by themselves, and no others follow.
type Starving struct {
	until map[invocation.ID]starving
}

type starving struct {
	age   Age
	until int64
}

// HeldBackFor bounds how long others are held back for one that does not say that it is over, in
// milliseconds: its node is gone, or what it waits for waits for a transaction that is held back.
// If it still can't get its keys by then, it says so again.
const HeldBackFor = 2000

// Note holds younger ones back for an invocation from now on.
func (s *Starving) Note(age Age, now int64) {
	if s.until == nil {
		s.until = map[invocation.ID]starving{}
	}
	s.until[age.Root] = starving{age, now + HeldBackFor}
}

// Over ends that.
func (s *Starving) Over(root invocation.ID) { delete(s.until, root) }

// Len is how many there are, or have been until a moment ago.
func (s *Starving) Len() int { return len(s.until) }

// HoldsBack reports whether somebody starves who is older than that.
func (s *Starving) HoldsBack(age Age, now int64) bool {
	held := false
	for root, other := range s.until {
		if now >= other.until {
			delete(s.until, root)
			continue
		}
		held = held || other.age.Before(age)
	}
	return held
}
