// Package placement decides where the replicas of partitions are and who leads them: a pure
// function from nodes and configurations to the next steps. Whoever leads group 0 carries the
// steps out and asks again; nothing is remembered in between, so that it does not matter when
// that node changes or which of the steps came to pass.
//
// # Model
//
// Next first says what each partition should become, then which step leads there:
//
//  1. copies: which nodes hold it. Those that hold it on nodes that stay, without the ones too
//     many, and new ones for those that are missing. Then zones are spread, then the numbers of
//     replicas are evened out.
//  2. voters: the largest odd number of the copies; the copy that remains is a learner. One voter
//     more would tolerate no more failures and make more votes necessary: of two nodes, each would
//     stop both.
//  3. leaders: as many on each node as on any other, within one.
//
// A copy begins as learner and becomes a voter when it has caught up, in one change with the
// voter that it replaces. A leader hands over before it is demoted or removed.
//
// # Why it comes to rest
//
// A learner that is on its way counts as a copy, a step under way as done, and of too many copies
// the one on the fullest node goes: so what has begun is carried on for the reason it was begun for. Each move
// makes (missing copies, copies that share a zone, sum of squares of the loads) smaller in this
// order, so without news there are finitely many.
//
// # Failures
//
// A node that does not answer keeps its replicas until it is Lost, and then until somebody else
// can have them. No step leaves a partition with voters of which fewer than a majority are alive
// and caught up. A partition that has no leader, or in which a change is under way, is left alone.
package placement

import (
	"fmt"
	"slices"
	"strings"
)

// State is what the operator wants of a node.
type State uint8

// The states. Active is the zero value.
const (
	// Active nodes hold replicas and lead.
	Active State = iota
	// Draining nodes lose their leaders, then their replicas, as far as others can take them.
	Draining
	// Removed nodes lose everything, even if fewer replicas remain.
	Removed
)

// Health is what is known of whether a node works.
type Health uint8

// The healths. Alive is the zero value.
const (
	// Alive nodes answer.
	Alive Health = iota
	// Silent nodes don't, but are expected back: nothing is moved away from them or to them.
	Silent
	// Lost nodes have been silent for longer than the caller is willing to wait: they are replaced
	// where that is possible.
	Lost
)

// Node is a node of the cluster.
type Node struct {
	ID     uint64
	State  State
	Health Health
	// Zone is where it stands, with what fails together; "" is a zone of its own.
	Zone string
}

// Configuration is who takes part in a partition's group, ascending.
type Configuration struct {
	Voters, Learners []uint64
}

// Equal reports whether both have the same members.
func (c Configuration) Equal(other Configuration) bool {
	return slices.Equal(c.Voters, other.Voters) && slices.Equal(c.Learners, other.Learners)
}

// Partition is a partition, as its leader sees it or, without a leader, as it was seen last.
type Partition struct {
	// ID is its number; 0 is the cluster's own group, of which every node has a copy.
	ID uint32
	// Leader is 0 if there is none, or it is not known.
	Leader uint64
	// Voters and Learners are the current configuration, in any order.
	Voters, Learners []uint64
	// Outgoing are the old voters of a change that is under way.
	Outgoing []uint64
	// CaughtUp are the members that have, or nearly have, all that is committed, and whom the leader
	// heard of recently.
	CaughtUp map[uint64]bool
	// Underway is a step that was begun and of which nobody knows yet how it ended; nil: none.
	Underway *Step
	// Held says why it is to be left alone for now, such as that its last step failed; "": it isn't.
	Held string
}

// Input is all that Next looks at. It changes none of it.
type Input struct {
	// Nodes are all that were ever admitted, removed ones too. A member of a partition that is
	// missing here is left where it is.
	Nodes      []Node
	Partitions []Partition
	// Replicas is how many copies of a partition there should be, if there are as many nodes. An even
	// number has one voter fewer. At least 1.
	Replicas int
	// Limit is how many steps may be under way at once, and how many learners may be catching up.
	// At least 1.
	Limit int
}

// Kind is what a step does.
type Kind uint8

const (
	// Reconfigure changes a configuration from Expect to Want.
	Reconfigure Kind = iota + 1
	// Transfer makes To the leader.
	Transfer
)

// Step is one thing to be done by the leader of a partition. It applies only to what it was
// computed from: if the configuration is not Expect any more, or Leader leads no more, nothing
// must be done.
type Step struct {
	Kind      Kind
	Partition uint32
	Leader    uint64
	// Expect is the configuration that the step was computed from.
	Expect Configuration
	// Want is what a Reconfigure makes of it, all at once; see Changes. Who becomes a voter was a
	// learner before.
	Want Configuration
	// To is the next leader, of a Transfer.
	To uint64
	// Reason is for people.
	Reason string
}

// String describes the step, without its reason.
func (s Step) String() string {
	return s.Describe(func(id uint64) string { return fmt.Sprintf("%016x", id) })
}

// Describe is String with names for nodes.
func (s Step) Describe(name func(uint64) string) string {
	if s.Kind == Transfer {
		return fmt.Sprintf("partition %d: transfer %s -> %s", s.Partition, name(s.Leader), name(s.To))
	}
	var parts []string
	say := func(verb string, ids []uint64) {
		if len(ids) == 0 {
			return
		}
		names := make([]string, len(ids))
		for i, id := range ids {
			names[i] = name(id)
		}
		parts = append(parts, verb+" "+strings.Join(names, ", "))
	}
	add, promote, demote, remove := s.Changes()
	say("promote", promote)
	say("add learner", add)
	say("demote", demote)
	say("remove", remove)
	return fmt.Sprintf("partition %d: %s", s.Partition, strings.Join(parts, ", "))
}

// Changes says which nodes a Reconfigure adds as learners, promotes, demotes and removes.
func (s Step) Changes() (add, promote, demote, remove []uint64) {
	before, after := slices.Concat(s.Expect.Voters, s.Expect.Learners), slices.Concat(s.Want.Voters, s.Want.Learners)
	return without(s.Want.Learners, before), both(s.Want.Voters, s.Expect.Learners), both(s.Expect.Voters, s.Want.Learners), without(before, after)
}

func both[T comparable](a, b []T) (out []T) {
	for _, x := range a {
		if slices.Contains(b, x) {
			out = append(out, x)
		}
	}
	return out
}

func without[T comparable](a, b []T) (out []T) {
	for _, x := range a {
		if !slices.Contains(b, x) {
			out = append(out, x)
		}
	}
	return out
}

// Wait is a partition that is not what it should be, and what keeps it from a step.
type Wait struct {
	Partition uint32
	Reason    string
}

// Plan is what Next decided.
type Plan struct {
	// Steps are at most one for each partition.
	Steps []Step
	// Waits are for people, ascending by partition.
	Waits []Wait
}

// odd is the largest odd number up to n, or 0.
func odd(n int) int {
	if n <= 0 {
		return 0
	}
	return n - 1 + n%2
}
