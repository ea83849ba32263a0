package inprocess

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/telemetry"
)

// describe names an invocation for an operator.
func describe(target invocation.Target, id invocation.ID) string {
	return target.String() + " (" + id.String() + ")"
}

// loggerOf is a logger with the attributes of an invocation.
func (inv *Invoker) loggerOf(id invocation.ID, target invocation.Target, attempt uint32) *slog.Logger {
	return inv.config.Logger.With(
		telemetry.KeyInvocationID, id.String(), telemetry.KeyService, target.Service, telemetry.KeyKey, target.Key, telemetry.KeyHandler, target.Handler, telemetry.KeyAttempt, attempt)
}

// panicked logs a panic with its stack and makes the error that the caller sees instead.
func (inv *Invoker) panicked(m *method, id invocation.ID, value any, stack []byte) *recordv1.Result {
	inv.config.Logger.Error("handler panicked",
		telemetry.KeyInvocationID, id.String(), telemetry.KeyService, m.desc.Service, telemetry.KeyHandler, m.desc.Name, telemetry.KeyPanic, fmt.Sprint(value), telemetry.KeyStack, string(stack))
	return errorResult(&recordv1.Error{Code: uint32(actor.Internal), Message: m.desc.FullName() + " panicked"})
}

// logUncoded logs an error that the handler did not mean for its caller.
func (inv *Invoker) logUncoded(m *method, id invocation.ID, attempt uint32, err error) {
	if !isCoded(err) {
		inv.logFailed(m, id, attempt, err)
	}
}

func (inv *Invoker) logFailed(m *method, id invocation.ID, attempt uint32, err error) {
	inv.config.Logger.Warn("handler failed",
		telemetry.KeyInvocationID, id.String(), telemetry.KeyService, m.desc.Service, telemetry.KeyHandler, m.desc.Name, telemetry.KeyAttempt, attempt, telemetry.KeyError, err)
}

// liveHandler logs nothing while its attempt replays.
type liveHandler struct {
	slog.Handler
	live *atomic.Bool
}

func (h liveHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.live.Load() && h.Handler.Enabled(ctx, level)
}

func (h liveHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return liveHandler{h.Handler.WithAttrs(attrs), h.live}
}

func (h liveHandler) WithGroup(name string) slog.Handler {
	return liveHandler{h.Handler.WithGroup(name), h.live}
}
