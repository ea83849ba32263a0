package balance

import (
	"slices"
	"time"

	"github.com/perdure/perdure/cluster/placement"
)

// keep is how many steps that have ended a report has.
const keep = 64

// Report is what the leader of group 0 knows and does, for people. Only the node that leads has
// one.
type Report struct {
	// Epoch of this node's leadership of group 0; 0: it does not lead, and the rest is empty.
	Epoch uint64
	// At is when the nodes were asked last.
	At time.Time
	// Problem is why no steps are begun, if there is something; nil otherwise.
	Problem error
	// Nodes, ascending by id.
	Nodes []NodeReport
	// Partitions, ascending; those of which nobody has said anything are missing.
	Partitions []PartitionReport
	// Underway are the steps that were begun, by partition.
	Underway []Underway
	// Recent are steps that ended, the last one first.
	Recent []Done
	// Waits are partitions that are not as they should be, and why nothing is done about it.
	Waits []placement.Wait
}

// NodeReport is whether a node works.
type NodeReport struct {
	ID     uint64
	Health placement.Health
	// AnsweredAt is when it answered last; zero: not in this epoch.
	AnsweredAt time.Time
	// Failure is what came of asking it last; nil if it answered.
	Failure error
}

// PartitionReport is a partition as far as its leader, or without one the node that knows most,
// says.
type PartitionReport struct {
	ID     uint32
	Leader uint64
	// The configuration.
	Voters, Outgoing, Learners []uint64
	// Lagging are members that have not caught up.
	Lagging []uint64
}

// Underway is a step that was begun.
type Underway struct {
	Step    placement.Step
	BeganAt time.Time
}

// Done is a step that ended.
type Done struct {
	Step    placement.Step
	EndedAt time.Time
	Took    time.Duration
	// Err is why it failed; nil if it came to pass.
	Err error
}

// Report returns the newest report. It must not be changed.
func (b *Balancer) Report() Report {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.report
}

// forget says that this node does not lead.
func (b *Balancer) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.report = Report{}
}

// record adds a step that ended.
func (b *Balancer) record(d Done) {
	b.mu.Lock()
	defer b.mu.Unlock()
	recent := append([]Done{d}, b.mu.report.Recent...)
	b.mu.report.Recent = recent[:min(len(recent), keep)]
}

// publish makes the report of a round.
func (l *leadership) publish(plan placement.Plan, problem error) {
	r := Report{Epoch: l.epoch, At: time.Now(), Problem: problem, Underway: l.sortedUnderway(), Waits: plan.Waits}
	for _, node := range l.view.Nodes {
		if n := l.nodes[node.ID]; n != nil {
			r.Nodes = append(r.Nodes, NodeReport{ID: node.ID, Health: l.health(node.ID), AnsweredAt: n.answered, Failure: n.failure})
		}
	}
	for id := range l.view.Settings.Partitions + 1 {
		p, ok := l.known[id]
		if !ok {
			continue
		}
		report := PartitionReport{ID: id, Leader: p.Leader, Voters: sorted(p.Voters), Outgoing: sorted(p.Outgoing), Learners: sorted(p.Learners)}
		for _, node := range sorted(slices.Concat(p.Voters, p.Learners)) {
			if p.Leader != 0 && node != p.Leader && !p.CaughtUp[node] {
				report.Lagging = append(report.Lagging, node)
			}
		}
		r.Partitions = append(r.Partitions, report)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r.Recent = l.mu.report.Recent
	l.mu.report = r
}

func sorted(ids []uint64) []uint64 { return slices.Sorted(slices.Values(ids)) }
