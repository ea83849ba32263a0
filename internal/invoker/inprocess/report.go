package inprocess

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// loggerOf is a logger with the attributes of an invocation.
func (inv *Invoker) loggerOf(id invocation.ID, target invocation.Target, attempt uint32) *slog.Logger {
	return inv.config.Logger.With(
		"invocation_id", id.String(), "service", target.Service, "key", target.Key, "handler", target.Handler, "attempt", attempt)
}

// panicked logs a panic with its stack and makes the error that the caller sees instead.
func (inv *Invoker) panicked(m *method, id invocation.ID, value any, stack []byte) *recordv1.Result {
	inv.config.Logger.Error("handler panicked",
		"invocation_id", id.String(), "service", m.desc.Service, "handler", m.desc.Name, "panic", fmt.Sprint(value), "stack", string(stack))
	return errorResult(&recordv1.Error{Code: uint32(actor.Internal), Message: m.desc.FullName() + " panicked"})
}

// logUncoded logs an error that the handler did not mean for its caller.
func (inv *Invoker) logUncoded(m *method, id invocation.ID, attempt uint32, err error) {
	if isCoded(err) {
		return
	}
	inv.config.Logger.Warn("handler failed",
		"invocation_id", id.String(), "service", m.desc.Service, "handler", m.desc.Name, "attempt", attempt, "error", err)
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
