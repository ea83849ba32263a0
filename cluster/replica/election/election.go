// Package election says when a node's turn is to stand for election, so that votes are seldom split and, when
// they are, are soon cast again.
//
// Raft's own timeouts, one to two election timeouts by chance, are drawn again after a split vote, and two
// candidates draw the same tick of ten once in ten times: a lost leader was missed for more than three seconds once
// in a hundred times. Here the voters that are left take turns instead, a few ticks apart, in an order that differs from group
// to group so that what one node led is spread. Raft's timeouts stay behind it, for whoever's turn is passed over.
//
// When a node stands decides nothing: votes do, and nobody gives one, nor a pre-vote, who hears a leader.
package election

import "slices"

// patience is the ticks without a leader before the first turn, in parts of ten of an election timeout; window is how long
// the first turns are. Later ones are longer, up to an election timeout, for disks that take as long to keep a vote.
const (
	patience   = 12
	window     = 3
	mostDouble = 2
)

// Due reports whether a voter of a group, that has not heard of a leader for so many ticks, is to stand for
// election at this one. An election timeout is ten ticks. lost is the leader that was heard last, or 0: it has no turn.
func Due(group uint32, voters []uint64, self, lost uint64, silent int) bool {
	at := silent - patience
	if at < 0 || self == lost {
		return false
	}
	rank, others := 0, 0
	for _, voter := range voters {
		if voter == lost {
			continue
		}
		others++
		if voter < self {
			rank++
		}
	}
	if !slices.Contains(voters, self) {
		return false
	}
	rank = (rank + int(group)) % others
	for double := range mostDouble {
		turn := window << double
		if at < turn*others {
			return at == turn*rank
		}
		at -= turn * others
	}
	turn := window << mostDouble
	return at%(turn*others) == turn*rank
}
