package main

import (
	"context"
	"sync"
	"testing"

	"github.com/perdure/perdure/cluster"
	counterv1 "github.com/perdure/perdure/examples/counter/gen/counter/v1"
	counter "github.com/perdure/perdure/examples/counter/gen/counter/v1/counterv1perdure"
)

func TestCounter(t *testing.T) {
	for name, opts := range map[string][]cluster.Option{
		"plain":                nil,
		"crash at every entry": {cluster.WithCrashAtEveryEntry()},
	} {
		t.Run(name, func(t *testing.T) {
			n := cluster.NewNode(append(opts, cluster.WithoutListener(), cluster.WithInMemory())...)
			counter.RegisterCounterHandler(n, Counter{})
			if err := n.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := n.Shutdown(context.Background()); err != nil {
					t.Error(err)
				}
			}()
			visits := counter.Counter(n.Client(), "visits")
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
		})
	}
}
