package ingress

import (
	"context"
	"net/http"
	"time"

	"connectrpc.com/connect/v2"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/perdure/perdure/internal/routing"
)

// health is grpc.health.v1.Health. Written here because connect's own module for it is made
// for the version of connect before the one we use.
type health struct {
	ingress *Ingress
	// poll is the time between two looks at readiness for a Watch.
	poll time.Duration
}

func newHealth(i *Ingress) *health { return &health{ingress: i, poll: 250 * time.Millisecond} }

func (h *health) methods() []connect.Method {
	schema := healthv1.File_grpc_health_v1_health_proto.Services().ByName("Health")
	return []connect.Method{
		unary(h.ingress, schema, "Check", unlimited, h.check),
		{
			Spec: connect.Spec{
				StreamType: connect.StreamTypeServer,
				Procedure:  "/" + string(schema.FullName()) + "/Watch",
				Schema:     schema.Methods().ByName("Watch"),
			},
			Handler: h.watch,
		},
	}
}

// unlimited: a node that is full is not a node that is ill.
func unlimited() (func(), error) { return func() {}, nil }

// status of a service, "" for the node. All services of a node are ready together.
func (h *health) status(service string) (status healthv1.HealthCheckResponse_ServingStatus, known bool) {
	if service != "" && !h.ingress.table.Load().has(service) {
		return healthv1.HealthCheckResponse_SERVICE_UNKNOWN, false
	}
	if h.ingress.config.Ready() != nil {
		return healthv1.HealthCheckResponse_NOT_SERVING, true
	}
	return healthv1.HealthCheckResponse_SERVING, true
}

func (h *health) check(_ context.Context, request *healthv1.HealthCheckRequest) (*healthv1.HealthCheckResponse, error) {
	status, known := h.status(request.GetService())
	if !known {
		return nil, routing.Errorf(routing.CodeNotFound, "%s", h.ingress.unknown("/"+request.GetService()+"/").Message())
	}
	return &healthv1.HealthCheckResponse{Status: status}, nil
}

func (h *health) watch(ctx context.Context, _ connect.Spec, stream connect.ServerStream) error {
	var request healthv1.HealthCheckRequest
	if err := stream.Receive(&request); err != nil {
		return h.ingress.wire(ctx, nil, &receiveError{err})
	}
	tick := time.NewTicker(h.poll)
	defer tick.Stop()
	last := healthv1.HealthCheckResponse_UNKNOWN
	for {
		if status, _ := h.status(request.GetService()); status != last {
			last = status
			if err := stream.Send(&healthv1.HealthCheckResponse{Status: status}); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return h.ingress.wire(ctx, nil, ctx.Err())
		case <-tick.C:
		}
	}
}

// serveAlive says that the process answers, and what is wrong with parts of the node.
func (i *Ingress) serveAlive(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	i.writeStatus(w, "ok")
}

// serveReady says whether calls can be served, and if not, why.
func (i *Ingress) serveReady(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if err := i.config.Ready(); err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write([]byte("not ready: " + err.Error() + "\n"))
		return
	}
	i.writeStatus(w, "ready")
}

func (i *Ingress) writeStatus(w http.ResponseWriter, status string) {
	for _, line := range append([]string{status}, i.config.Troubles()...) {
		_, _ = w.Write([]byte(line + "\n")) // the caller is gone: there is nobody to tell
	}
}
