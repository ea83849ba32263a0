// Package telemetry sets up OpenTelemetry for a node and holds the instruments and the log
// keys that all other packages use, so that one word means one thing in traces, metrics and
// logs. Payloads, secrets and idempotency keys appear in none of them, and an object's key is
// in no metric's labels, for there are as many keys as there are objects.
//
// Off is the default and costs nothing: a nil *Instruments and a nil *Tracer do nothing.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	promclient "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	promexport "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

const scopeName = "github.com/perdure/perdure"

// Config says where telemetry goes. The zero value is off.
type Config struct {
	// TracesURL is an OTLP/HTTP collector, "http://host:4318"; "/v1/traces" is added if it has
	// no path. Empty: no traces.
	TracesURL string
	// MetricsURL is an OTLP/HTTP collector; "/v1/metrics" is added if it has no path. Empty:
	// no metrics are pushed.
	MetricsURL string
	// Prometheus makes Telemetry.Handler serve the metrics.
	Prometheus bool
	// SampleRatio is the share of traces kept that no caller has decided about, above 0 to 1.
	// 0 means 1.
	SampleRatio float64
	// MetricsInterval is the time between two pushes. Defaults to 15 s.
	MetricsInterval time.Duration
	// ServiceName is the resource's service.name. Defaults to "perdure".
	ServiceName string
	// ServiceVersion is the resource's service.version.
	ServiceVersion string
	// NodeID is the resource's service.instance.id.
	NodeID string
	// TracerProvider and MeterProvider are the embedding program's, which exports what they get
	// and shuts them down. With the first, TracesURL and SampleRatio must be left out; with the
	// second, MetricsURL and Prometheus. Nil: the node has its own.
	TracerProvider trace.TracerProvider
	MeterProvider  metric.MeterProvider
	// Logger hears of exports that failed. Defaults to slog.Default().
	Logger *slog.Logger
}

// Enabled reports whether anything is to be exported.
func (c Config) Enabled() bool {
	return c.TracesURL != "" || c.MetricsURL != "" || c.Prometheus || c.TracerProvider != nil || c.MeterProvider != nil
}

// Validate reports all that is wrong with c.
func (c Config) Validate() error {
	var problems []error
	for _, endpoint := range []struct{ name, url string }{{"traces URL", c.TracesURL}, {"metrics URL", c.MetricsURL}} {
		if endpoint.url == "" {
			continue
		}
		parsed, err := url.Parse(endpoint.url)
		if err != nil || (parsed.Scheme != "http" && parsed.Scheme != "https") || parsed.Host == "" {
			problems = append(problems, fmt.Errorf("telemetry: %s %q is not http://host:port or https://host:port", endpoint.name, endpoint.url))
		}
	}
	if c.SampleRatio < 0 || c.SampleRatio > 1 {
		problems = append(problems, fmt.Errorf("telemetry: sample ratio %v is not between 0 and 1", c.SampleRatio))
	}
	if c.TracerProvider != nil && (c.TracesURL != "" || c.SampleRatio != 0) {
		problems = append(problems, errors.New("telemetry: traces go to the tracer provider that was given: leave traces URL and sample ratio out, its own exporters and sampler decide"))
	}
	if c.MeterProvider != nil && (c.MetricsURL != "" || c.Prometheus) {
		problems = append(problems, errors.New("telemetry: metrics go to the meter provider that was given: leave metrics URL and prometheus out, its own readers decide"))
	}
	if c.MetricsInterval < 0 {
		problems = append(problems, fmt.Errorf("telemetry: metrics interval %s is negative; leave it out for 15s", c.MetricsInterval))
	}
	return errors.Join(problems...)
}

// Telemetry is a node's exporters. A nil *Telemetry is off.
type Telemetry struct {
	tracer      *Tracer
	instruments *Instruments
	traces      *sdktrace.TracerProvider
	metrics     *sdkmetric.MeterProvider
	handler     http.Handler
	provider    trace.TracerProvider // traces, or the embedding program's
}

// Setup starts the exporters that config asks for; nil if it asks for none. It connects to
// nothing before there is something to export, so a collector that is down is no error here.
func Setup(ctx context.Context, config Config) (*Telemetry, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if !config.Enabled() {
		return nil, nil
	}
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	described := nodeResource(config)
	t := &Telemetry{}
	if config.TracesURL != "" {
		exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(withPath(config.TracesURL, "/v1/traces")))
		if err != nil {
			return nil, fmt.Errorf("telemetry: trace exporter for %s: %w", config.TracesURL, err)
		}
		ratio := config.SampleRatio
		if ratio == 0 {
			ratio = 1
		}
		t.traces = sdktrace.NewTracerProvider(
			sdktrace.WithBatcher(&heardSpans{SpanExporter: exporter, complaint: complaint{log: config.Logger, what: "traces"}}),
			sdktrace.WithResource(described),
			sdktrace.WithIDGenerator(idGenerator{}),
			sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(ratio))),
		)
		t.tracer, t.provider = NewTracer(t.traces), t.traces
	}
	if config.TracerProvider != nil {
		t.tracer, t.provider = NewTracer(config.TracerProvider), config.TracerProvider
		t.tracer.foreign = true
	}
	meters := config.MeterProvider
	if config.MetricsURL != "" || config.Prometheus {
		options := []sdkmetric.Option{sdkmetric.WithResource(described)}
		if config.MetricsURL != "" {
			exporter, err := otlpmetrichttp.New(ctx, otlpmetrichttp.WithEndpointURL(withPath(config.MetricsURL, "/v1/metrics")))
			if err != nil {
				return nil, errors.Join(fmt.Errorf("telemetry: metric exporter for %s: %w", config.MetricsURL, err), t.Shutdown(ctx))
			}
			interval := config.MetricsInterval
			if interval == 0 {
				interval = 15 * time.Second
			}
			options = append(options, sdkmetric.WithReader(sdkmetric.NewPeriodicReader(
				&heardMetrics{Exporter: exporter, complaint: complaint{log: config.Logger, what: "metrics"}}, sdkmetric.WithInterval(interval))))
		}
		if config.Prometheus {
			// A registry of our own: the default one is the embedding program's.
			registry := promclient.NewRegistry()
			reader, err := promexport.New(promexport.WithRegisterer(registry), promexport.WithoutScopeInfo())
			if err == nil {
				err = registry.Register(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
			}
			if err != nil {
				return nil, errors.Join(fmt.Errorf("telemetry: prometheus exporter: %w", err), t.Shutdown(ctx))
			}
			options = append(options, sdkmetric.WithReader(reader))
			t.handler = promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
		}
		t.metrics = sdkmetric.NewMeterProvider(options...)
		meters = t.metrics
	}
	if meters != nil {
		instruments, err := NewInstruments(meters)
		if err == nil {
			err = instruments.observeBuild(config.ServiceVersion)
		}
		if err != nil {
			return nil, errors.Join(err, t.Shutdown(ctx))
		}
		t.instruments = instruments
	}
	return t, nil
}

func nodeResource(config Config) *resource.Resource {
	name := config.ServiceName
	if name == "" {
		name = "perdure"
	}
	attributes := []attribute.KeyValue{attribute.String("service.name", name)}
	if config.ServiceVersion != "" {
		attributes = append(attributes, attribute.String("service.version", config.ServiceVersion))
	}
	if config.NodeID != "" {
		attributes = append(attributes, attribute.String("service.instance.id", config.NodeID))
	}
	// OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME stay in force: what a deployment says of
	// itself beats our defaults.
	fromEnvironment, err := resource.New(context.Background(), resource.WithFromEnv(), resource.WithTelemetrySDK())
	ours := resource.NewSchemaless(attributes...)
	if err != nil {
		return ours
	}
	merged, err := resource.Merge(ours, fromEnvironment)
	if err != nil {
		return ours
	}
	return merged
}

func withPath(endpoint, path string) string {
	parsed, err := url.Parse(endpoint)
	if err != nil || strings.Trim(parsed.Path, "/") != "" {
		return endpoint
	}
	parsed.Path = path
	return parsed.String()
}

// Tracer makes spans; nil if traces are off.
func (t *Telemetry) Tracer() *Tracer {
	if t == nil {
		return nil
	}
	return t.tracer
}

// Instruments records metrics; nil if metrics are off.
func (t *Telemetry) Instruments() *Instruments {
	if t == nil {
		return nil
	}
	return t.instruments
}

// Handler serves the metrics in Prometheus' format; nil if that is off.
func (t *Telemetry) Handler() http.Handler {
	if t == nil {
		return nil
	}
	return t.handler
}

// Shutdown exports what is left, for as long as ctx allows, and stops.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	if t == nil {
		return nil
	}
	var problems []error
	if t.traces != nil {
		problems = append(problems, t.traces.Shutdown(ctx))
	}
	if t.metrics != nil {
		problems = append(problems, t.metrics.Shutdown(ctx))
	}
	if err := errors.Join(problems...); err != nil {
		return fmt.Errorf("telemetry: shutdown: %w", err)
	}
	return nil
}

// TracerProvider is for what makes spans of its own; nil if traces are off.
func (t *Telemetry) TracerProvider() trace.TracerProvider {
	if t == nil {
		return nil
	}
	return t.provider
}
