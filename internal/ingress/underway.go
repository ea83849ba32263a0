package ingress

import (
	"sync"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invocation"
)

const (
	underWayShards = 32
	// leftPerShard bounds what is remembered of calls whose callers went away, 8,192 in all.
	leftPerShard = 256
)

// underWay knows which handler the TRANSACTIONs called through this edge are aimed at. Nothing
// says it otherwise: such a call has no row before it commits, and none afterwards unless it is
// retained, but who has its id can attach to it. It is safe for concurrent use.
type underWay [underWayShards]struct {
	mu struct {
		sync.Mutex
		calls map[invocation.ID]waited
		// left are the latest whose caller went away: they go on, and nobody tells when they end.
		left [leftPerShard]leftCall
		next int
	}
}

type waited struct {
	method *actor.MethodDesc
	// callers that wait for it here.
	callers int
}

type leftCall struct {
	id     invocation.ID
	method *actor.MethodDesc
}

// begin notes a call. Each begin needs an end.
func (u *underWay) begin(id invocation.ID, method *actor.MethodDesc) {
	shard := &u[shardOf(id)]
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if shard.mu.calls == nil {
		shard.mu.calls = map[invocation.ID]waited{}
	}
	shard.mu.calls[id] = waited{method: method, callers: shard.mu.calls[id].callers + 1}
}

// end takes a call's caller away; left: before the call had ended.
func (u *underWay) end(id invocation.ID, left bool) {
	shard := &u[shardOf(id)]
	shard.mu.Lock()
	defer shard.mu.Unlock()
	call := shard.mu.calls[id]
	if left {
		shard.mu.left[shard.mu.next] = leftCall{id: id, method: call.method}
		shard.mu.next = (shard.mu.next + 1) % leftPerShard
	}
	if call.callers--; call.callers > 0 {
		shard.mu.calls[id] = call
		return
	}
	delete(shard.mu.calls, id)
}

// method is nil if the call is not known here.
func (u *underWay) method(id invocation.ID) *actor.MethodDesc {
	shard := &u[shardOf(id)]
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if call, ok := shard.mu.calls[id]; ok {
		return call.method
	}
	for _, call := range &shard.mu.left {
		if call.method != nil && call.id == id {
			return call.method
		}
	}
	return nil
}

// shardOf goes by the last byte, which is random in an id of either kind.
func shardOf(id invocation.ID) int { return int(id[len(id)-1]) % underWayShards }
