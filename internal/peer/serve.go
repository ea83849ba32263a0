package peer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/engine"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/partition"
	peerv1 "github.com/perdure/perdure/internal/peer/v1"
	"github.com/perdure/perdure/internal/routing"
)

// Server answers other nodes, from the partitions that this node leads and no others: a request
// goes over the network once. Its methods are safe for concurrent use.
type Server struct{ router *Router }

// NewServer answers with the local partitions of a Router.
func NewServer(router *Router) *Server { return &Server{router} }

// Call answers a Network.Call of Method. The error is nil but for a request that can't be decoded,
// or if ctx ended first: failures of the request are part of the answer, so that the caller knows
// them from the network's.
func (s *Server) Call(ctx context.Context, _ uint64, request []byte) ([]byte, error) {
	asked := &peerv1.Request{}
	if err := proto.Unmarshal(request, asked); err != nil {
		return nil, fmt.Errorf("peer: request: %w", err)
	}
	if asked.TimeoutMs > 0 {
		const most = 1 << 40 // milliseconds: a Duration has no more than 2^43
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(min(asked.TimeoutMs, most))*time.Millisecond)
		defer cancel()
	}
	answer, err := s.answer(ctx, asked)
	if _, said := errors.AsType[*routing.Error](err); !said && errors.Is(err, context.Canceled) {
		// Whoever asked has gone, or this node stops: then it must not look like an answer, for what
		// was asked may have been accepted, and goes on.
		return nil, fmt.Errorf("peer: request: the node ended it before there was an answer: %w", err)
	}
	if err != nil {
		answer = &peerv1.Answer{Answer: &peerv1.Answer_Failure{Failure: s.failure(err)}}
	}
	data, err := proto.Marshal(answer)
	if err != nil {
		return nil, fmt.Errorf("peer: answer: %w", err)
	}
	return data, nil
}

// failure adds what is known of who leads.
func (s *Server) failure(err error) *peerv1.Failure {
	failure := failureFrom(err)
	if e := failure.Elsewhere; e != nil {
		if node, term := s.router.leaders.Leader(e.Partition); term > e.Term || term == e.Term && e.Leader == 0 {
			e.Leader, e.Term = node, term
		}
	}
	return failure
}

func (s *Server) answer(ctx context.Context, asked *peerv1.Request) (*peerv1.Answer, error) {
	local := s.router.local()
	switch ask := asked.Ask.(type) {
	case *peerv1.Request_Call:
		call := local.Call
		if ask.Call.Repeatable {
			call = local.CallRepeatable
		}
		result, err := call(ctx, ask.Call.Invoke)
		return &peerv1.Answer{Answer: &peerv1.Answer_Result{Result: result}}, err
	case *peerv1.Request_Send:
		send := local.Send
		if ask.Send.Repeatable {
			send = local.SendRepeatable
		}
		previously, err := send(ctx, ask.Send.Invoke)
		return &peerv1.Answer{Answer: &peerv1.Answer_Sent{Sent: &peerv1.Sent{Previously: previously}}}, err
	case *peerv1.Request_Read:
		result, err := local.Read(ctx, ask.Read)
		return &peerv1.Answer{Answer: &peerv1.Answer_Result{Result: result}}, err
	case *peerv1.Request_Attach:
		result, err := local.Attach(ctx, idFrom(ask.Attach.Id))
		return &peerv1.Answer{Answer: &peerv1.Answer_Result{Result: result}}, err
	case *peerv1.Request_Cancel:
		return done(local.Cancel(ctx, idFrom(ask.Cancel.Id), ask.Cancel.Kill))
	case *peerv1.Request_Pause:
		return done(local.Pause(ctx, idFrom(ask.Pause.Id)))
	case *peerv1.Request_Resume:
		return done(local.Resume(ctx, idFrom(ask.Resume.Id), ""))
	case *peerv1.Request_ResumeOn:
		return done(local.Resume(ctx, idFrom(ask.ResumeOn.Id), ask.ResumeOn.Deployment))
	case *peerv1.Request_Purge:
		return done(local.Purge(ctx, idFrom(ask.Purge.Id)))
	case *peerv1.Request_Restart:
		renewed, err := local.RestartAsNew(ctx, idFrom(ask.Restart.Id), ask.Restart.From, ask.Restart.RequestId)
		return &peerv1.Answer{Answer: &peerv1.Answer_Renewed{Renewed: idOf(renewed)}}, err
	case *peerv1.Request_CompleteAwakeable:
		return done(local.CompleteAwakeable(ctx, ask.CompleteAwakeable.AwakeableId, ask.CompleteAwakeable.Result))
	case *peerv1.Request_CompletePromise:
		of := ask.CompletePromise
		object := invocation.Object{Service: of.GetTarget().GetService(), Key: of.GetTarget().GetKey()}
		return done(local.CompletePromise(ctx, object, of.Name, of.Result))
	case *peerv1.Request_ChangeSchedule:
		reply, err := local.ChangeSchedule(ctx, ask.ChangeSchedule.Name, ask.ChangeSchedule.Change)
		return &peerv1.Answer{Answer: &peerv1.Answer_Schedule{Schedule: reply}}, err
	case *peerv1.Request_ChangeRules:
		reply, err := local.ChangeRules(ctx, ask.ChangeRules)
		return &peerv1.Answer{Answer: &peerv1.Answer_Rules{Rules: reply}}, err
	}
	return s.look(ctx, local, asked)
}

// look answers what only reads.
func (s *Server) look(ctx context.Context, local *partition.Router, asked *peerv1.Request) (*peerv1.Answer, error) {
	// No list is of all partitions by mistake.
	some := append([]uint32{}, asked.Partitions...)
	switch ask := asked.Ask.(type) {
	case *peerv1.Request_Journal:
		detail, err := local.Journal(ctx, idFrom(ask.Journal.Id), ask.Journal.After, int(ask.Journal.Limit))
		if err != nil {
			return nil, err
		}
		return &peerv1.Answer{Answer: &peerv1.Answer_Journal{Journal: journalOf(detail)}}, nil
	case *peerv1.Request_State:
		state, err := local.StatePage(ctx, routing.StateQuery{
			Object: invocation.Object{Service: ask.State.Service, Key: ask.State.Key},
			Table:  ask.State.Table, From: string(ask.State.From), Limit: int(ask.State.Limit),
		})
		if err != nil {
			return nil, err
		}
		return &peerv1.Answer{Answer: &peerv1.Answer_State{State: stateOf(state)}}, nil
	case *peerv1.Request_Schedule:
		reply, err := local.Schedule(ctx, ask.Schedule.Name)
		return &peerv1.Answer{Answer: &peerv1.Answer_Schedule{Schedule: reply}}, err
	case *peerv1.Request_Invocations:
		page, err := local.InvocationsOf(ctx, some, filterFrom(ask.Invocations))
		if err != nil {
			return nil, err
		}
		return &peerv1.Answer{Answer: &peerv1.Answer_Invocations{Invocations: invocationsOf(cut(page, routing.MaxPage))}}, nil
	case *peerv1.Request_Schedules:
		page, err := local.SchedulesOf(ctx, some, routing.ScheduleQuery{Prefix: ask.Schedules.Prefix, After: ask.Schedules.After, Limit: int(ask.Schedules.Limit)})
		if err != nil {
			return nil, err
		}
		return &peerv1.Answer{Answer: &peerv1.Answer_Schedules{Schedules: &peerv1.SchedulesPage{Found: page.Found, Next: page.Next}}}, nil
	case *peerv1.Request_Transactions:
		all, err := local.TransactionsOf(ctx, some)
		return &peerv1.Answer{Answer: &peerv1.Answer_Transactions{Transactions: transactionsOf(all)}}, err
	case *peerv1.Request_Limits:
		query := routing.LimitQuery{Name: ask.Limits.Name, Service: ask.Limits.Service, Waiting: ask.Limits.Waiting}
		all, err := local.LimitsOf(ctx, some, query)
		return &peerv1.Answer{Answer: &peerv1.Answer_Limits{Limits: limitsOf(all)}}, err
	case *peerv1.Request_Rules:
		return answerRules(ctx, local, ask.Rules)
	}
	return nil, routing.Errorf(routing.CodeUnimplemented, "node %016x runs a version that does not know this request: upgrade it", s.router.node)
}

func done(err error) (*peerv1.Answer, error) {
	return &peerv1.Answer{Answer: &peerv1.Answer_Done{Done: &peerv1.Done{}}}, err
}

// Post implements partition.Elsewhere.
func (r *Router) Post(from, to uint32, event engine.Event) {
	node, _ := r.leaders.Leader(to)
	if node == 0 || node == r.node {
		return // It will be sent again.
	}
	frame := &peerv1.Frame{From: from, To: to}
	switch e := event.(type) {
	case *engine.Deliver:
		frame.Event = &peerv1.Frame_Deliver{Deliver: &peerv1.Deliver{Sequence: e.Sequence, Message: e.Message}}
	case *engine.Acked:
		frame.Event = &peerv1.Frame_Acked{Acked: e.Sequence}
	case *engine.Told:
		frame.Event = &peerv1.Frame_Told{Told: e.Peer}
	default:
		panic(fmt.Sprintf("peer: an event of type %T between partitions", event))
	}
	data, err := proto.Marshal(frame)
	if err != nil {
		return // What can't be written could not be read: the record that it comes from has it too.
	}
	r.network.Send(node, data)
}

// Frame takes a frame of another node's Network.Send. It does not block. The error is about what
// can't be a frame of a node of this cluster, and is for the log.
func (s *Server) Frame(from uint64, data []byte) error {
	frame := &peerv1.Frame{}
	if err := proto.Unmarshal(data, frame); err != nil {
		return fmt.Errorf("peer: frame of node %016x: %w", from, err)
	}
	r := s.router
	if e := frame.GetElsewhere(); e != nil {
		r.hear(from, e.Partition, e.Leader, e.Term)
		return nil
	}
	if frame.From < 1 || frame.From > r.partitions || frame.To < 1 || frame.To > r.partitions || frame.From == frame.To {
		return fmt.Errorf("peer: frame of node %016x: from partition %d to %d; there are %d", from, frame.From, frame.To, r.partitions)
	}
	event, err := eventOf(frame)
	if err != nil {
		return fmt.Errorf("peer: frame of node %016x: %w", from, err)
	}
	if r.local().Take(frame.To, event) {
		return nil
	}
	// It is lost, and will be sent again: to whoever leads, if that is known here.
	if node, term := r.leaders.Leader(frame.To); node != from && node != r.node {
		answer, err := proto.Marshal(&peerv1.Frame{Event: &peerv1.Frame_Elsewhere{Elsewhere: &peerv1.Elsewhere{Partition: frame.To, Leader: node, Term: term}}})
		if err == nil {
			r.network.Send(from, answer)
		}
	}
	return nil
}

func eventOf(frame *peerv1.Frame) (engine.Event, error) {
	switch e := frame.Event.(type) {
	case *peerv1.Frame_Deliver:
		if e.Deliver.GetSequence() == 0 || e.Deliver.GetMessage().GetMessage() == nil {
			return nil, fmt.Errorf("message %d has nothing in it", e.Deliver.GetSequence())
		}
		return &engine.Deliver{From: frame.From, Sequence: e.Deliver.Sequence, Message: e.Deliver.Message}, nil
	case *peerv1.Frame_Acked:
		return &engine.Acked{By: frame.From, Sequence: e.Acked}, nil
	case *peerv1.Frame_Told:
		if e.Told.GetMessage() == nil {
			return nil, fmt.Errorf("a word about a transaction has nothing in it")
		}
		return &engine.Told{Peer: e.Told}, nil
	}
	return nil, fmt.Errorf("it has nothing in it, or a kind that this version does not know: %T", frame.Event)
}
