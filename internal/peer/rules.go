package peer

import (
	"context"

	"github.com/perdure/perdure/internal/engine"
	"github.com/perdure/perdure/internal/partition"
	peerv1 "github.com/perdure/perdure/internal/peer/v1"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
)

func rulesOf(answer *peerv1.Answer) (*recordv1.RulesReply, bool) {
	return answer.GetRules(), answer.GetRules() != nil
}

// ChangeRules implements routing.Router. The same change again does nothing, so it may always be made
// again.
func (r *Router) ChangeRules(ctx context.Context, change *recordv1.Rules) (*recordv1.RulesReply, error) {
	return simply(ctx, r, engine.RulesHome(r.partitions), twice, func(ctx context.Context, local *partition.Router) (*recordv1.RulesReply, error) {
		return local.ChangeRules(ctx, change)
	}, &peerv1.Request{Ask: &peerv1.Request_ChangeRules{ChangeRules: change}}, rulesOf)
}

// AwaitRules implements routing.Router.
func (r *Router) AwaitRules(ctx context.Context) error {
	return r.done(ctx, engine.RulesHome(r.partitions), reading, func(ctx context.Context, local *partition.Router) error {
		return local.AwaitRules(ctx)
	}, &peerv1.Request{Ask: &peerv1.Request_Rules{Rules: &peerv1.RulesQuery{Reached: true}}})
}

// RulesPage implements routing.Router.
func (r *Router) RulesPage(ctx context.Context, query routing.RuleQuery) (*recordv1.RulesReply, error) {
	ask := &peerv1.RulesQuery{Prefix: query.Prefix, After: query.After, Limit: pageSize(query.Limit)}
	return simply(ctx, r, engine.RulesHome(r.partitions), reading, func(ctx context.Context, local *partition.Router) (*recordv1.RulesReply, error) {
		return local.RulesPage(ctx, query)
	}, &peerv1.Request{Ask: &peerv1.Request_Rules{Rules: ask}}, rulesOf)
}

// answerRules answers what is asked of the rule book.
func answerRules(ctx context.Context, local *partition.Router, asked *peerv1.RulesQuery) (*peerv1.Answer, error) {
	if asked.Reached {
		return done(local.AwaitRules(ctx))
	}
	page, err := local.RulesPage(ctx, routing.RuleQuery{Prefix: asked.Prefix, After: asked.After, Limit: int(asked.Limit)})
	return &peerv1.Answer{Answer: &peerv1.Answer_Rules{Rules: page}}, err
}
