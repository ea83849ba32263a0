package main

import (
	"sync"
	"testing"

	"github.com/perdure/perdure/actor/actortest"
	counterv1 "github.com/perdure/perdure/examples/counter/gen/counter/v1"
	counter "github.com/perdure/perdure/examples/counter/gen/counter/v1/counterv1perdure"
)

func TestCounter(t *testing.T) { actortest.Run(t, count) }

func TestCounterSeeds(t *testing.T) { actortest.Seeds(t, 50, count) }

func count(t *testing.T, node *actortest.Node) {
	counter.RegisterCounterHandler(node, Counter{})
	visits := counter.Counter(node.Client(), "visits")
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if _, err := visits.Add(t.Context(), &counterv1.AddRequest{Amount: 2}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	got, err := visits.Get(t.Context(), &counterv1.GetRequest{})
	if err != nil || got.Value != 40 {
		t.Errorf("Get: %v, %v; want 40", got, err)
	}
}
