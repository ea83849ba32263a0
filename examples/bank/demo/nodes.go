package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// nodesDie has two more nodes join the first, with all its data and while it serves, and then kills
// each of the three in turn and leaves it dead for a while.
func nodesDie(ctx context.Context, b *books, first *process, callers int) error {
	say("\nTwo more nodes join it, and each of the three dies in turn")
	nodes := []*process{first}
	for _, name := range []string{"second", "third"} {
		n := &process{binary: first.binary, data: first.data + "-" + name, join: []string{first.gossip}}
		defer n.kill()
		step("starting the %s node", name)
		up, err := n.start(ctx)
		if err != nil {
			return err
		}
		done("serving on %s after %d ms", n.url, up.Milliseconds())
		nodes = append(nodes, n)
	}
	b.through(nodes)
	b.chapter = "cluster-"
	work, stopWork := context.WithCancel(ctx)
	defer stopWork()
	finished := make(chan error, 2)
	go func() { finished <- b.move(work, ctx, callers) }()
	go func() { finished <- b.audit(work, ctx) }()
	for i, n := range nodes {
		step("three copies of everything")
		took, err := whole(ctx, nodes[(i+1)%len(nodes)], len(nodes))
		if err != nil {
			return err
		}
		done("after %d ms", took.Milliseconds())
		before := b.answered.Load()
		step("kill -9 of the %s node", ordinal(i+1))
		killed := time.Now()
		n.kill()
		// Calls in flight may still be answered by the others: what counts is all that comes later.
		progress := make(chan error, 1)
		go func() { progress <- b.awaitProgress(work, before+int64(callers)*4) }()
		select {
		case err := <-progress:
			if err != nil {
				return err
			}
		case err := <-finished:
			return errors.Join(errors.New("callers or auditor ended early"), err)
		}
		done("%d answers later after %d ms, on two nodes", callers*4, time.Since(killed).Milliseconds())
		select {
		case <-time.After(time.Second): // of life without it
		case err := <-finished:
			return errors.Join(errors.New("callers or auditor ended early"), err)
		case <-ctx.Done():
			return ctx.Err()
		}
		if _, err := n.start(ctx); err != nil {
			return err
		}
	}
	stopWork()
	step("letting the last ones finish")
	for range 2 {
		if err := <-finished; err != nil {
			return err
		}
	}
	done("%d answered, %d audits", b.answered.Load(), b.audits.Load())
	return b.prove(ctx)
}

// whole waits until every partition has a vote on each of some nodes, and none lags.
func whole(ctx context.Context, ask *process, copies int) (time.Duration, error) {
	began := time.Now()
	var last string
	for {
		var state struct {
			PartitionCount int
			Partitions     []struct{ Voters, Lagging []string }
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, ask.url+"/perdure.admin.v1.ClusterService/GetCluster", bytes.NewReader([]byte("{}")))
		if err != nil {
			return 0, err
		}
		request.Header.Set("Content-Type", "application/json")
		response, err := http.DefaultClient.Do(request)
		if err == nil {
			err = json.NewDecoder(response.Body).Decode(&state)
			_ = response.Body.Close()
		}
		missing := 0
		for _, p := range state.Partitions {
			if len(p.Voters) < copies || len(p.Lagging) > 0 {
				missing++
			}
		}
		if err == nil && missing == 0 && state.PartitionCount > 0 && len(state.Partitions) > state.PartitionCount {
			return time.Since(began), nil
		}
		last = fmt.Sprintf("%d of %d partitions are not whole (%v)", missing, state.PartitionCount, err)
		select {
		case <-ctx.Done():
			return 0, errors.New("the copies were not made in time: " + last)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
