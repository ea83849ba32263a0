// Package remote takes what a balance.Balancer asks and wants done to the nodes that it is about,
// and does it there on the replicas of a host.
package remote

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/cluster/balance"
	"github.com/perdure/perdure/cluster/placement"
	"github.com/perdure/perdure/cluster/replica"
	balancev1 "github.com/perdure/perdure/internal/balance/v1"
)

// The methods that a Server answers.
const (
	MethodStatuses = "statuses"
	MethodStep     = "step"
)

// Call sends a request to a node, which may be this one, and returns its answer.
type Call func(ctx context.Context, to uint64, method string, request []byte) ([]byte, error)

var (
	_ balance.Statuses = Call(nil)
	_ balance.Steps    = Call(nil)
)

// Ask implements balance.Statuses.
func (call Call) Ask(ctx context.Context, node uint64) ([]balance.Status, error) {
	answer, err := call(ctx, node, MethodStatuses, nil)
	if err != nil {
		return nil, err
	}
	message := &balancev1.Statuses{}
	if err := proto.Unmarshal(answer, message); err != nil {
		return nil, fmt.Errorf("statuses of node %016x: %w", node, err)
	}
	statuses := make([]balance.Status, len(message.Statuses))
	for i, s := range message.Statuses {
		statuses[i] = balance.Status{
			Partition: s.Partition, Leader: s.Leader, Term: s.Term, Leading: s.Leading, Commit: s.Commit,
			Voters: s.Voters, Outgoing: s.Outgoing, Learners: s.Learners, CaughtUp: s.CaughtUp,
		}
	}
	return statuses, nil
}

// Take implements balance.Steps.
func (call Call) Take(ctx context.Context, step placement.Step) error {
	request, err := proto.Marshal(&balancev1.Step{
		Kind: uint32(step.Kind), Partition: step.Partition, Expect: configurationOf(step.Expect), Want: configurationOf(step.Want), To: step.To,
	})
	if err != nil {
		return err
	}
	_, err = call(ctx, step.Leader, MethodStep, request)
	return err
}

func configurationOf(c placement.Configuration) *balancev1.Configuration {
	return &balancev1.Configuration{Voters: c.Voters, Learners: c.Learners}
}

// Server answers for the replicas of a node. It may be used by several goroutines.
type Server struct {
	// Groups are all groups of the cluster, group 0 too.
	Groups map[uint32]*replica.Group
}

// Answer answers a request of a method.
func (s Server) Answer(ctx context.Context, method string, request []byte) ([]byte, error) {
	switch method {
	case MethodStatuses:
		return s.statuses()
	case MethodStep:
		step := &balancev1.Step{}
		if err := proto.Unmarshal(request, step); err != nil {
			return nil, fmt.Errorf("step: %w", err)
		}
		return nil, s.take(ctx, step)
	}
	return nil, fmt.Errorf("no method %q", method)
}

// statuses are those of the replicas that this node has.
func (s Server) statuses() ([]byte, error) {
	message := &balancev1.Statuses{}
	for id, group := range s.Groups {
		status := group.Status()
		if !status.Replica {
			continue
		}
		out := &balancev1.Status{
			Partition: id, Leader: status.Leader, Term: status.Term, Leading: status.Epoch != 0, Commit: status.Commit,
			Voters: status.Voters, Outgoing: status.Outgoing, Learners: status.Learners,
		}
		for _, other := range status.Peers {
			if other.CaughtUp {
				out.CaughtUp = append(out.CaughtUp, other.Node)
			}
		}
		message.Statuses = append(message.Statuses, out)
	}
	return proto.Marshal(message)
}

func (s Server) take(ctx context.Context, step *balancev1.Step) error {
	group := s.Groups[step.Partition]
	if group == nil {
		return fmt.Errorf("partition %d: this cluster has none", step.Partition)
	}
	expect := replica.Members{Voters: step.GetExpect().GetVoters(), Learners: step.GetExpect().GetLearners()}
	switch placement.Kind(step.Kind) {
	case placement.Reconfigure:
		return group.Reconfigure(ctx, ChangeTo(expect, replica.Members{Voters: step.GetWant().GetVoters(), Learners: step.GetWant().GetLearners()}))
	case placement.Transfer:
		return transfer(ctx, group, expect, step.To)
	}
	return fmt.Errorf("partition %d: this build knows no step of kind %d", step.Partition, step.Kind)
}

// ChangeTo is the change that makes want of expect.
func ChangeTo(expect, want replica.Members) replica.Change {
	change := replica.Change{Expect: expect}
	before, after := slices.Concat(expect.Voters, expect.Learners), slices.Concat(want.Voters, want.Learners)
	for _, id := range after {
		switch voted, votes := slices.Contains(expect.Voters, id), slices.Contains(want.Voters, id); {
		case !slices.Contains(before, id):
			change.AddLearners = append(change.AddLearners, id)
		case votes && !voted:
			change.Promote = append(change.Promote, id)
		case voted && !votes:
			change.Demote = append(change.Demote, id)
		}
	}
	for _, id := range before {
		if !slices.Contains(after, id) {
			change.Remove = append(change.Remove, id)
		}
	}
	return change
}

// transfer hands a group over and waits until the other node leads, or nobody knows.
func transfer(ctx context.Context, group *replica.Group, expect replica.Members, to uint64) error {
	now := group.Status()
	if !now.Members.Equal(expect) {
		return fmt.Errorf("partition %d: transfer: %w", group.ID(), replica.ErrChanged)
	}
	if err := group.TransferLeadership(to); err != nil {
		return err
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		switch status := group.Status(); {
		case status.Leader == to:
			return nil
		case status.Epoch != 0 || status.Leader != 0 && status.Leader != now.Leader:
			return errors.New("the leadership went elsewhere")
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
