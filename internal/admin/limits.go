package admin

import (
	"context"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/routing"
	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

// limits are the limits of a handler as its .proto has them.
func limits(declared []actor.Limit) []*perdurev1.Limit {
	var all []*perdurev1.Limit
	for _, l := range declared {
		out := &perdurev1.Limit{Name: l.Name, By: perdurev1.By(l.By), Concurrency: uint32(l.Concurrency), UntilDone: l.UntilDone}
		if l.Rate.Count > 0 {
			out.Rate = &perdurev1.Rate{Count: uint32(l.Rate.Count), Per: durationpb.New(l.Rate.Per), Burst: uint32(l.Rate.Burst)}
		}
		switch {
		case l.MaxQueue < 0:
			out.MaxQueue = proto.Uint32(0)
		case l.MaxQueue > 0:
			out.MaxQueue = proto.Uint32(uint32(l.MaxQueue))
		}
		all = append(all, out)
	}
	return all
}

func (s *Service) listLimits(ctx context.Context, request *adminv1.ListLimitsRequest) (*adminv1.ListLimitsResponse, error) {
	most, err := pageSize(request.GetPageSize())
	if err != nil {
		return nil, err
	}
	all, err := s.config.Router.Limits(ctx, routing.LimitQuery{Service: request.GetService(), Waiting: request.GetWaiting()})
	if err != nil {
		return nil, err
	}
	response := &adminv1.ListLimitsResponse{At: timestamppb.New(s.config.Now()), More: len(all) > most || len(all) >= routing.MaxPage}
	for _, l := range all[:min(len(all), most)] {
		response.Limits = append(response.Limits, limitState(l))
	}
	return response, nil
}

func (s *Service) getLimit(ctx context.Context, request *adminv1.GetLimitRequest) (*adminv1.GetLimitResponse, error) {
	name := request.GetName()
	if !strings.Contains(name, "/") {
		return nil, invalid("name is %q: it must be a limit's full name, such as bank.v1.AccountService/workers, as ListLimits has it", name)
	}
	found, err := s.config.Router.Limits(ctx, routing.LimitQuery{Name: name})
	if err != nil {
		return nil, err
	}
	response := &adminv1.GetLimitResponse{At: timestamppb.New(s.config.Now())}
	if len(found) == 0 {
		// Its own rule may be there: what counts apart is used under other names.
		if r, err := s.rule(ctx, name); err != nil || r != nil {
			response.Rule = r
			response.Limit = &adminv1.Limit{Name: name, Rule: name, Declared: r.GetDeclared()}
			return response, err
		}
		return nil, routing.Errorf(routing.CodeNotFound, "nobody uses the limit %s: nothing runs or waits under it, or there is none of that name; DescribeService has what is declared", name)
	}
	response.Limit = limitState(found[0])
	if found[0].Rule != "" {
		response.Rule, err = s.rule(ctx, found[0].Rule)
	}
	return response, err
}

func limitState(l routing.Limit) *adminv1.Limit {
	out := &adminv1.Limit{
		Name: l.Name, Partition: l.Partition, UntilDone: l.UntilDone, Rule: l.Rule,
		Held: uint32(l.Held), Waiting: uint32(l.Waiting), Tokens: uint64(max(l.Tokens, 0)),
	}
	out.Concurrency, out.Rate, out.MaxQueue = settings(l.LimitSettings)
	out.Closed = l.Concurrency < 0
	if l.Rule != "" {
		out.Declared = &perdurev1.Limit{Name: l.Name, UntilDone: l.UntilDone}
		out.Declared.Concurrency, out.Declared.Rate, out.Declared.MaxQueue = settings(l.Declared)
	}
	if !l.Oldest.IsZero() {
		out.OldestWait = timestamppb.New(l.Oldest)
	}
	for _, t := range l.Tenants {
		out.Tenants = append(out.Tenants, &adminv1.LimitTenant{Tenant: t.Tenant, Held: uint32(t.Held), Waiting: uint32(t.Waiting)})
	}
	out.Holders, out.Queue = limitMembers(l.Holders), limitMembers(l.Queue)
	return out
}

func settings(s routing.LimitSettings) (concurrency uint32, rate *perdurev1.Rate, maxQueue *uint32) {
	if s.RateCount > 0 {
		rate = &perdurev1.Rate{Count: uint32(s.RateCount), Per: durationpb.New(s.RatePer), Burst: uint32(s.RateBurst)}
	}
	if s.MaxQueue != 0 {
		maxQueue = proto.Uint32(uint32(max(s.MaxQueue, 0)))
	}
	return uint32(max(s.Concurrency, 0)), rate, maxQueue
}

func limitMembers(members []routing.LimitMember) []*adminv1.LimitMember {
	var all []*adminv1.LimitMember
	for _, m := range members {
		all = append(all, &adminv1.LimitMember{
			InvocationId: m.ID.String(), Tenant: m.Tenant, Since: timestamppb.New(m.Since), Priority: int32(m.Priority), Begun: m.Begun,
		})
	}
	return all
}
