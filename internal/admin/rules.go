package admin

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/limit/rule"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

// rulesWait is how long a change of rules waits for partitions to hear of it.
const rulesWait = 5 * time.Second

func (s *Service) listLimitRules(ctx context.Context, request *adminv1.ListLimitRulesRequest) (*adminv1.ListLimitRulesResponse, error) {
	most, err := pageSize(request.GetPageSize())
	if err != nil {
		return nil, err
	}
	query := routing.RuleQuery{After: request.GetPageToken(), Limit: most}
	if request.GetService() != "" {
		query.Prefix = request.GetService() + "/"
	}
	page, err := s.config.Router.RulesPage(ctx, query)
	if err != nil {
		return nil, err
	}
	response := &adminv1.ListLimitRulesResponse{Missing: page.Missing, At: timestamppb.New(s.config.Now())}
	for _, r := range page.Rules {
		response.Rules = append(response.Rules, s.ruleShown(r))
	}
	if page.More {
		response.NextPageToken = page.Rules[len(page.Rules)-1].Name
	}
	return response, nil
}

// rule is the one of a name, nil if there is none.
func (s *Service) rule(ctx context.Context, name string) (*adminv1.LimitRule, error) {
	page, err := s.config.Router.RulesPage(ctx, routing.RuleQuery{Prefix: name, Limit: 1})
	if err != nil || len(page.Rules) == 0 || page.Rules[0].Name != name {
		return nil, err
	}
	return s.ruleShown(page.Rules[0]), nil
}

func (s *Service) setLimitRules(ctx context.Context, request *adminv1.SetLimitRulesRequest) (*adminv1.SetLimitRulesResponse, error) {
	if err := rule.CheckCount(len(request.GetRules())); err != nil {
		return nil, invalid("nothing was set: %v", err)
	}
	change := &recordv1.Rules{}
	response := &adminv1.SetLimitRulesResponse{}
	var problems []string
	for _, given := range request.GetRules() {
		r, wrong := ruleFrom(given)
		if len(wrong) == 0 {
			wrong = rule.Check(r)
		}
		if len(wrong) == 0 && !request.GetUndeclared() {
			if _, unused := s.declared(r); unused != "" {
				wrong = []string{unused + "; to set a rule all the same, for a build to come, set undeclared"}
			}
		}
		problems = append(problems, wrong...)
		change.Set = append(change.Set, r)
	}
	if len(problems) > 0 {
		return nil, invalid("nothing was set: %s", strings.Join(problems, "; "))
	}
	var err error
	if response.Missing, err = s.changeRules(ctx, change); err != nil {
		return nil, err
	}
	for _, r := range change.Set {
		shown, err := s.rule(ctx, r.Name)
		if err != nil {
			return nil, err
		}
		if shown != nil { // Nobody has removed it already.
			response.Rules = append(response.Rules, shown)
		}
	}
	return response, nil
}

func (s *Service) removeLimitRules(ctx context.Context, request *adminv1.RemoveLimitRulesRequest) (*adminv1.RemoveLimitRulesResponse, error) {
	if err := rule.CheckCount(len(request.GetNames())); err != nil {
		return nil, invalid("nothing was removed: %v", err)
	}
	change := &recordv1.Rules{}
	var missing []string
	for _, name := range request.GetNames() {
		if parsed, err := rule.ParseName(name); err == nil {
			name = parsed.String()
		}
		r, err := s.rule(ctx, name)
		if err != nil {
			return nil, err
		}
		if r == nil {
			missing = append(missing, clip(name))
		}
		change.Remove = append(change.Remove, name)
	}
	if len(missing) > 0 {
		return nil, routing.Errorf(routing.CodeNotFound, "nothing was removed: there is no rule %s; ListLimitRules has those that are", list(missing))
	}
	reached, err := s.changeRules(ctx, change)
	return &adminv1.RemoveLimitRulesResponse{Missing: reached}, err
}

// changeRules makes a change and waits for all partitions to have it, for a while. It returns those that
// have not.
func (s *Service) changeRules(ctx context.Context, change *recordv1.Rules) (missing []uint32, err error) {
	if _, err := s.config.Router.ChangeRules(ctx, change); err != nil {
		return nil, err
	}
	bounded, cancel := context.WithTimeout(ctx, rulesWait)
	defer cancel()
	if err := s.config.Router.AwaitRules(bounded); err == nil {
		return nil, nil
	} else if ctx.Err() != nil {
		return nil, err
	}
	page, err := s.config.Router.RulesPage(ctx, routing.RuleQuery{Limit: 1})
	if err != nil {
		return nil, routing.Errorf(routing.CodeUnavailable, "the change is made, and holds in every partition that has heard of it; which have not can't be told: %v", err)
	}
	return page.Missing, nil
}

// ruleFrom reads a rule that somebody wants, with all that is wrong with how it is said.
func ruleFrom(given *adminv1.LimitRule) (*recordv1.LimitRule, []string) {
	r := &recordv1.LimitRule{Name: given.GetName(), Description: given.GetDescription()}
	name, err := rule.ParseName(given.GetName())
	if err != nil {
		return r, []string{err.Error()}
	}
	r.Name = name.String()
	var problems []string
	wrong := func(format string, args ...any) {
		problems = append(problems, r.Name+": "+fmt.Sprintf(format, args...))
	}
	if given.Concurrency != nil && given.AnyConcurrency || given.Rate != nil && given.AnyRate || given.MaxQueue != nil && given.AnyQueue {
		wrong("of one thing it says both a bound and that there is none")
	}
	bound := func(most *uint32, anything bool) *recordv1.Bound {
		switch {
		case anything:
			return &recordv1.Bound{}
		case most == nil:
			return nil
		case *most == 0:
			return &recordv1.Bound{Most: -1}
		}
		return &recordv1.Bound{Most: int32(min(*most, 1<<31-1))}
	}
	r.Concurrency, r.MaxQueue = bound(given.Concurrency, given.AnyConcurrency), bound(given.MaxQueue, given.AnyQueue)
	switch rate := given.Rate; {
	case given.AnyRate:
		r.Rate = &recordv1.Rate{}
	case rate == nil:
	case rate.GetCount() == 0:
		wrong("the rate's count is 0; it must be 1 or more, or anyRate; to let nobody run set a concurrency of 0")
	default:
		per := time.Second
		if rate.GetPer() != nil {
			per = rate.GetPer().AsDuration()
			if err := rate.GetPer().CheckValid(); err != nil || per%time.Millisecond != 0 {
				wrong("the rate is each %s; it must be whole milliseconds", per)
			}
		}
		r.Rate = &recordv1.Rate{Count: int64(rate.GetCount()), PerMs: per.Milliseconds(), Burst: int64(max(rate.GetBurst(), 0))}
		if r.Rate.Burst == 0 {
			r.Rate.Burst = r.Rate.Count
		}
	}
	return r, problems
}

// ruleShown is a rule for people, with what it is instead of.
func (s *Service) ruleShown(r *recordv1.LimitRule) *adminv1.LimitRule {
	out := &adminv1.LimitRule{Name: r.Name, Description: r.Description, SetAt: timestamppb.New(time.UnixMilli(r.SetAt))}
	out.Concurrency, out.AnyConcurrency = boundShown(r.Concurrency)
	out.MaxQueue, out.AnyQueue = boundShown(r.MaxQueue)
	switch rate := r.Rate; {
	case rate == nil:
	case rate.Count == 0:
		out.AnyRate = true
	default:
		out.Rate = &perdurev1.Rate{Count: uint32(rate.Count), Per: durationpb.New(time.Duration(rate.PerMs) * time.Millisecond), Burst: uint32(rate.Burst)}
	}
	out.Declared, out.Unused = s.declared(r)
	return out
}

func boundShown(b *recordv1.Bound) (most *uint32, anything bool) {
	if b == nil || b.Most == 0 {
		return nil, b != nil
	}
	return proto.Uint32(uint32(max(b.Most, 0))), false
}

// declared is the limit of this build that a rule is for, nil if there is none, and why the rule, or a
// part of it, is for nothing.
func (s *Service) declared(r *recordv1.LimitRule) (declared *perdurev1.Limit, unused string) {
	name, err := rule.ParseName(r.GetName())
	if err != nil {
		return nil, err.Error()
	}
	parts := strings.Split(name.Declared, "/")
	service, wanted := parts[0], parts[len(parts)-1]
	desc := s.known.Load().services[service]
	if desc == nil {
		return nil, fmt.Sprintf("%s: this build has no service %s", r.Name, clip(service))
	}
	var names []string
	for _, method := range desc.Methods {
		for _, l := range method.Options.Limits {
			full := service + "/" + l.Name
			if l.By == actor.ByHandler {
				full = service + "/" + method.Name + "/" + l.Name
			}
			if full == name.Declared && l.Name == wanted {
				declared = limits([]actor.Limit{l})[0]
			}
			if !slices.Contains(names, full) {
				names = append(names, full)
			}
		}
	}
	slices.Sort(names)
	switch {
	case declared == nil && len(names) == 0:
		return nil, fmt.Sprintf("%s: this build declares no such limit, and none in %s: a rule changes the numbers of a limit that is declared", r.Name, service)
	case declared == nil:
		return nil, fmt.Sprintf("%s: this build declares no such limit; it has %s", r.Name, list(names))
	case name.Apart && (declared.By == perdurev1.By_BY_UNSPECIFIED || declared.By == perdurev1.By_HANDLER):
		return declared, fmt.Sprintf("%s: %s counts all together, so there is nothing of it under a name of its own", r.Name, name.Declared)
	case r.Concurrency != nil && declared.Concurrency == 0:
		return declared, fmt.Sprintf("%s: %s is declared without a concurrency, so nobody holds a permit of it and a rule's concurrency has no effect: set a rate, or declare a concurrency", r.Name, name.Declared)
	}
	return declared, ""
}
