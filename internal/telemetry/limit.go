package telemetry

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// waitBuckets in seconds: a permit that is free is given in no time, and a queue may be hours
// long.
var waitBuckets = []float64{0, .001, .01, .1, .5, 1, 5, 10, 60, 600, 3600}

// limitOption is the label of a limit, remembered. Only the partition's goroutine may call it, and
// only for limits that are declared: each costs memory until the node ends.
func (p *Partition) limitOption(limit string) metric.MeasurementOption {
	option := p.limits[limit]
	if option == nil {
		option = metric.WithAttributeSet(attribute.NewSet(attribute.String("limit", limit)))
		if p.limits == nil {
			p.limits = map[string]metric.MeasurementOption{}
		}
		p.limits[limit] = option
	}
	return option
}

// PermitGranted records that an invocation may begin, or go on, as far as a limit that this
// partition owns is concerned, and how long it waited for that.
func (p *Partition) PermitGranted(limit string, waited time.Duration) {
	if p != nil {
		p.instruments.limitWaits.Record(context.Background(), max(waited, 0).Seconds(), p.limitOption(limit))
	}
}

// PermitRefused counts an invocation that was refused because too many wait for a limit.
func (p *Partition) PermitRefused(limit string) {
	if p != nil {
		p.instruments.limitRefusals.Add(context.Background(), 1, p.limitOption(limit))
	}
}
