package partition

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/engine"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/partition/status"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
)

// RulesLevel is the feature level of the records that rules for limits are in.
const RulesLevel = 2

func (r *Router) rulesHome() uint32 { return engine.RulesHome(r.config.Partitions) }

// ChangeRules implements routing.Router.
func (r *Router) ChangeRules(ctx context.Context, change *recordv1.Rules) (*recordv1.RulesReply, error) {
	if written := r.config.WrittenLevel; written != nil && written() < RulesLevel {
		return nil, routing.Errorf(routing.CodeFailedPrecondition,
			"the cluster may write records of feature level %d, and rules for limits need level %d: it rises by itself once all nodes run a version that reads them, unless feature-level-limit holds it; see \"perdure cluster status\"", written(), RulesLevel)
	}
	answer, err := r.partitions[r.rulesHome()-1].ask(ctx, func(token engine.Token) engine.Event {
		return &engine.ChangeRules{Change: change, Token: token}
	}, invocation.ID{})
	result, err := answer.resultOr(err)
	if err != nil {
		return nil, err
	}
	reply := &recordv1.RulesReply{}
	if err := proto.Unmarshal(result.GetValue(), reply); err != nil {
		return nil, fmt.Errorf("rules: %w", err)
	}
	return reply, nil
}

// AwaitRules implements routing.Router.
func (r *Router) AwaitRules(ctx context.Context) error {
	answer, err := r.partitions[r.rulesHome()-1].ask(ctx, func(token engine.Token) engine.Event {
		return &engine.AwaitRules{Token: token}
	}, invocation.ID{})
	if err != nil {
		return err
	}
	return answer.refusal()
}

// RulesPage implements routing.Router.
func (r *Router) RulesPage(ctx context.Context, query routing.RuleQuery) (*recordv1.RulesReply, error) {
	pages, err := collect(ctx, r, []uint32{r.rulesHome()}, func(_ *Partition, l *leadership) []*recordv1.RulesReply {
		return []*recordv1.RulesReply{status.Rules(l.engine, query)}
	})
	if err != nil {
		return nil, err
	}
	return pages[0], nil
}
