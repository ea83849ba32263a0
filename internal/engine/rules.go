package engine

import (
	"fmt"

	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/limit/rule"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// The rule book is decided in one partition, its home, and told to all others by the outbox, exactly
// once and in order: decision 32. What rules do to limits is in internal/limit/owner.

// ChangeRules changes the rule book, in its home. The answer's value is a recordv1.RulesReply, with
// the version from which on the change is there.
type ChangeRules struct {
	Change *recordv1.Rules
	Token  Token
}

// AwaitRules waits, in the rule book's home, until every partition has made it durable.
type AwaitRules struct{ Token Token }

// RulesHome is the partition that decides about the rule book.
func RulesHome(partitions uint32) uint32 {
	return invocation.PartitionOf(xxhash.Sum64String("rules"), partitions)
}

func (ev *ChangeRules) evaluate(e *Engine, now int64) error {
	book := e.limits.Book()
	change, err := book.Change(ev.Change, e.config.Partitions, now)
	if err != nil {
		refused, ok := err.(*rule.Refused)
		if !ok {
			return err
		}
		code := uint32(codeInvalidArgument)
		if refused.Full {
			code = codeResourceExhausted
		}
		e.effect(&Reply{Token: ev.Token, Refused: true, Result: failure(code, "%s", refused.Text)})
		return nil
	}
	if change != nil {
		if err := e.limits.ChangeRules(change, now); err != nil {
			return err
		}
		for to := uint32(1); to <= e.config.Partitions; to++ {
			if to == e.config.Partition {
				continue
			}
			if err := e.send(to, &recordv1.Message{Message: &recordv1.Message_Rules{Rules: change}}); err != nil {
				return err
			}
			e.outbox.Watch(to, e.outbox.Newest(to))
		}
	}
	value, err := proto.Marshal(&recordv1.RulesReply{Version: book.Version()})
	if err != nil {
		return fmt.Errorf("rules: %w", err)
	}
	e.effect(&Reply{Token: ev.Token, Result: &recordv1.Result{Value: value}})
	return nil
}

func (ev *AwaitRules) evaluate(e *Engine, _ int64) error {
	if len(e.outbox.Watched()) == 0 {
		e.effect(&Reply{Token: ev.Token})
		return nil
	}
	e.toldAll = append(e.toldAll, ev.Token)
	return nil
}

// rulesTold notes what another partition has made durable.
func (e *Engine) rulesTold(by uint32, sequence uint64) {
	if !e.outbox.Seen(by, sequence) {
		return
	}
	for _, token := range e.toldAll {
		e.out.Lazy = false
		e.effect(&Reply{Token: token})
	}
	e.toldAll = nil
}

// RulesMissing are the partitions that the home of the rule book is still telling of a change.
func (e *Engine) RulesMissing() []uint32 { return e.outbox.Watched() }
