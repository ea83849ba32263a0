package admin

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/perdure/perdure/internal/limit/rule"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

// bookless counts how often it is asked for the rule book, which it does not have.
type bookless struct {
	router
	asked int
}

func (r *bookless) RulesPage(context.Context, routing.RuleQuery) (*recordv1.RulesReply, error) {
	r.asked++
	return &recordv1.RulesReply{}, nil
}

// TestChangesOfRulesAreBounded: a request of more rules than one change may have is refused for that, with
// a short answer and before anything is looked up for each of them.
func TestChangesOfRulesAreBounded(t *testing.T) {
	r := &bookless{}
	s := newService(t, r)
	const many = 50_000
	set, remove := &adminv1.SetLimitRulesRequest{}, &adminv1.RemoveLimitRulesRequest{}
	for i := range many {
		set.Rules = append(set.Rules, &adminv1.LimitRule{})
		remove.Names = append(remove.Names, fmt.Sprint("s/x=", i))
	}
	_, setting := s.setLimitRules(t.Context(), set)
	_, removing := s.removeLimitRules(t.Context(), remove)
	for what, err := range map[string]error{"nothing was set: 50000 rules": setting, "nothing was removed: 50000 rules": removing} {
		wantCode(t, err, routing.CodeInvalidArgument, what)
		if len(err.Error()) > 200 {
			t.Errorf("%s: the answer has %d bytes", what, len(err.Error()))
		}
	}
	if r.asked != 0 {
		t.Errorf("the rule book was asked for %d times", r.asked)
	}
	_, err := s.removeLimitRules(t.Context(), &adminv1.RemoveLimitRulesRequest{Names: remove.Names[:rule.MaxChange]})
	wantCode(t, err, routing.CodeNotFound, "and 80 more")
	if !strings.Contains(err.Error(), "s/x=0, s/x=1") {
		t.Errorf("what is not there is named as %v", err)
	}
}
