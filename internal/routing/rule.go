package routing

import (
	"context"

	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// Rules takes requests about the rules for limits to the partition that decides about them.
type Rules interface {
	// ChangeRules changes the rule book and returns once that is durable in the partition that
	// decides; the others follow. The same change again does nothing. Fails with
	// invalid_argument, resource_exhausted, failed_precondition while nodes of the cluster are too old
	// for rules, or unavailable.
	ChangeRules(ctx context.Context, change *recordv1.Rules) (*recordv1.RulesReply, error)
	// AwaitRules waits until all partitions have made all changes so far durable.
	AwaitRules(ctx context.Context) error
	// RulesPage lists rules in the order of their names, with the partitions that have not made the
	// last change durable yet.
	RulesPage(ctx context.Context, query RuleQuery) (*recordv1.RulesReply, error)
}

// RuleQuery picks rules.
type RuleQuery struct {
	// Prefix of their names.
	Prefix string
	// After is the last name of the page before.
	After string
	// Limit; 0, or more than MaxPage, is MaxPage.
	Limit int
}
