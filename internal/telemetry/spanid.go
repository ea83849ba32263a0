package telemetry

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"hash/fnv"
	"math/rand/v2"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// spanIDKey is the context's key for the id that the next span shall have.
type spanIDKey struct{}

// idGenerator makes random ids, except for a span whose id was chosen before it was made: an
// invocation's, which its attempts name as their parent while it is still open, on this node or,
// after a crash, in another process.
type idGenerator struct{}

var _ sdktrace.IDGenerator = idGenerator{}

// NewIDs implements sdktrace.IDGenerator.
func (g idGenerator) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	var id trace.TraceID
	for !id.IsValid() {
		binary.BigEndian.PutUint64(id[:8], rand.Uint64())
		binary.BigEndian.PutUint64(id[8:], rand.Uint64())
	}
	return id, g.NewSpanID(ctx, id)
}

// NewSpanID implements sdktrace.IDGenerator.
func (idGenerator) NewSpanID(ctx context.Context, _ trace.TraceID) trace.SpanID {
	if chosen, ok := ctx.Value(spanIDKey{}).(trace.SpanID); ok {
		return chosen
	}
	var id trace.SpanID
	for !id.IsValid() {
		binary.BigEndian.PutUint64(id[:], rand.Uint64())
	}
	return id
}

// invocationSpanID is the id of an invocation's span.
func invocationSpanID(invocationID string) (id trace.SpanID) {
	digest := fnv.New64a()
	digest.Write([]byte("span of "))
	digest.Write([]byte(invocationID))
	digest.Sum(id[:0])
	if !id.IsValid() {
		id[7] = 1
	}
	return id
}

// withSpanID puts another span's id into a traceparent; "" if it is not one.
func withSpanID(traceparent string, id trace.SpanID) string {
	const at, size = len("00-0123456789abcdef0123456789abcdef-"), 2 * len(id)
	if len(traceparent) < at+size {
		return ""
	}
	changed := []byte(traceparent)
	hex.Encode(changed[at:at+size], id[:])
	return string(changed)
}
