package partition

import (
	"context"
	"errors"
	"strings"
	"testing"

	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
)

// TestRulesWaitForTheLastNode: while a node of the cluster may not read rules, none are set.
func TestRulesWaitForTheLastNode(t *testing.T) {
	level := uint32(RulesLevel - 1)
	router, err := NewRouter(Config{Invoker: adder{}, Partitions: 2, WrittenLevel: func() uint32 { return level }}, func(uint32, *Partition) Group { return nil })
	if err != nil {
		t.Fatal(err)
	}
	change := func() *routing.Error {
		_, err := router.ChangeRules(context.Background(), &recordv1.Rules{})
		coded, _ := errors.AsType[*routing.Error](err)
		return coded
	}
	if err := change(); err == nil || err.Code != routing.CodeFailedPrecondition || !strings.Contains(err.Message, "feature level 1, and rules for limits need level 2") {
		t.Errorf("below the level: %v", err)
	}
	level = RulesLevel
	if err := change(); err == nil || err.Code != routing.CodeUnavailable { // Nobody leads here.
		t.Errorf("at the level: %v", err)
	}
}
