package inprocess

import (
	"runtime"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invoker"
	"github.com/perdure/perdure/internal/telemetry"
)

// continueAsNew is the outcome of a handler that begins anew. A request that it can't begin with
// is a mistake of the code, which a deploy can heal: the attempt is tried again.
func (d *durable) continueAsNew(again *actor.ContinueAsNewError) *invoker.Outcome {
	req, err := again.RequestOf(d.method.desc, d.attempt.Target.Key)
	var input []byte
	if err == nil {
		input, err = proto.MarshalOptions{Deterministic: true}.Marshal(req)
	}
	if err != nil {
		d.invoker.config.Logger.Error("handler can't continue as new", d.attributes(err)...)
		return &invoker.Outcome{Retry: errorRecord(err)}
	}
	// Without this wait a handler that does nothing else would begin anew faster than the disk
	// writes, and fill the memory of the node.
	if !d.gate() {
		runtime.Goexit()
	}
	return &invoker.Outcome{ContinueAsNew: append([]byte{}, input...)}
}

// attributes of a log line about the attempt.
func (d *durable) attributes(err error) []any {
	return []any{
		telemetry.KeyInvocationID, d.attempt.ID.String(), telemetry.KeyService, d.attempt.Target.Service,
		telemetry.KeyHandler, d.attempt.Target.Handler, telemetry.KeyAttempt, d.attempt.Number, telemetry.KeyError, err,
	}
}
