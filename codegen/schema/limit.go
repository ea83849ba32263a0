package schema

import (
	"cmp"
	"math"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

// Field numbers of perdure.v1.HandlerOptions and Limit, for positions.
const (
	limitsField   = 7
	maxInboxField = 8

	limitNameField   = 1
	limitByField     = 2
	concurrencyField = 3
	rateField        = 4
	maxQueueField    = 5
	untilDoneField   = 6
)

// Limit is perdure.v1.Limit with its defaults filled in.
type Limit struct {
	Name        string
	By          perdurev1.By
	Concurrency int
	// RateCount is 0 without a rate.
	RateCount, RateBurst int
	RatePer              time.Duration
	// MaxQueue is 0 for any number and -1 for none.
	MaxQueue  int
	UntilDone bool
}

const (
	maxLimitNameBytes = 64
	maxRatePer        = 366 * 24 * time.Hour
	// maxLimitNumber bounds counts: the runtime multiplies them.
	maxLimitNumber = 1_000_000_000
)

// limits checks each limit by itself.
func (r *reader) limits(desc protoreflect.Descriptor, where []int32, name string, kind perdurev1.Kind, options *perdurev1.HandlerOptions) {
	at := func(path ...int32) []int32 { return append(append([]int32{}, where...), path...) }
	if kind == perdurev1.Kind_SERVICE && options.GetMaxInbox() > 0 {
		r.report(desc, at(maxInboxField), "%s.max_inbox has no effect in a SERVICE, which has no keys to wait for; a limit's max_queue bounds what waits for that", name)
	}
	if options.GetMaxInbox() > maxLimitNumber {
		r.report(desc, at(maxInboxField), "%s.max_inbox %d is too many; at most %d are allowed", name, options.GetMaxInbox(), maxLimitNumber)
	}
	seen := map[string]bool{}
	for i, l := range options.GetLimits() {
		path := func(field int32) []int32 { return at(limitsField, int32(i), field) }
		what := name + ".limits " + l.GetName()
		switch {
		case !limitName(l.GetName()):
			r.report(desc, path(limitNameField), "%s.limits: the name %q must be 1 to %d letters, digits, _ or -", name, l.GetName(), maxLimitNameBytes)
			continue
		case seen[l.GetName()]:
			r.report(desc, path(limitNameField), "%s is there twice; drop one", what)
			continue
		}
		seen[l.GetName()] = true
		r.limit(desc, path, what, kind, l)
	}
}

func (r *reader) limit(desc protoreflect.Descriptor, path func(int32) []int32, what string, kind perdurev1.Kind, l *perdurev1.Limit) {
	if perdurev1.By_name[int32(l.GetBy())] == "" {
		r.report(desc, path(limitByField), "%s: by %d is not known to this protoc-gen-go-perdure; update it", what, l.GetBy())
	}
	if l.GetBy() == perdurev1.By_KEY {
		switch {
		case kind == perdurev1.Kind_SERVICE:
			r.report(desc, path(limitByField), "%s is by: KEY, and a SERVICE has no keys; use LIMIT_KEY, which callers give", what)
		case l.GetConcurrency() > 0:
			r.report(desc, path(concurrencyField), "%s has no effect: handlers that write run one at a time per key anyway; drop the concurrency", what)
		}
	}
	if l.GetConcurrency() == 0 && l.GetRate() == nil {
		r.report(desc, path(limitNameField), "%s limits nothing: give it a concurrency, a rate, or both", what)
	}
	if l.GetUntilDone() && l.GetConcurrency() == 0 {
		r.report(desc, path(untilDoneField), "%s: until_done has no effect without a concurrency; drop it", what)
	}
	if l.GetConcurrency() > maxLimitNumber {
		r.report(desc, path(concurrencyField), "%s: concurrency %d is too many; at most %d are allowed", what, l.GetConcurrency(), maxLimitNumber)
	}
	if l.GetMaxQueue() > maxLimitNumber {
		r.report(desc, path(maxQueueField), "%s: max_queue %d is too many; at most %d are allowed", what, l.GetMaxQueue(), maxLimitNumber)
	}
	rate := l.GetRate()
	if rate == nil {
		return
	}
	if rate.GetCount() == 0 {
		r.report(desc, path(rateField), "%s: rate.count must be 1 or more", what)
		return
	}
	per := time.Second
	if rate.GetPer() != nil {
		if rate.GetPer().CheckValid() != nil || rate.GetPer().AsDuration() < time.Millisecond || rate.GetPer().AsDuration() > maxRatePer || rate.GetPer().AsDuration()%time.Millisecond != 0 {
			r.report(desc, path(rateField), "%s: rate.per must be from 1 ms to %d days, in whole milliseconds", what, maxRatePer/(24*time.Hour))
			return
		}
		per = rate.GetPer().AsDuration()
	}
	if most := maxBurst(per); uint64(max(rate.GetBurst(), rate.GetCount())) > uint64(most) {
		r.report(desc, path(rateField), "%s: at most %d can be counted for a period of %v; give a smaller rate.count and rate.burst, or a shorter rate.per", what, most, per)
	}
}

// maxBurst is how many tokens of a period can be counted.
func maxBurst(per time.Duration) int64 {
	return min(maxLimitNumber, math.MaxInt64/4/per.Milliseconds())
}

func limitName(name string) bool {
	for _, letter := range []byte(name) {
		if (letter < '0' || letter > '9') && (letter < 'a' || letter > 'z') && (letter < 'A' || letter > 'Z') && letter != '_' && letter != '-' {
			return false
		}
	}
	return name != "" && len(name) <= maxLimitNameBytes
}

// ineffectiveLimits refuses limits of its own that a method can't heed.
func (r *reader) ineffectiveLimits(method *Method, options *perdurev1.HandlerOptions) {
	if method.Mode != perdurev1.Mode_TRANSACTION {
		return
	}
	for i, l := range options.GetLimits() {
		if l.GetConcurrency() > 0 {
			r.report(method.Desc, methodOption(handlerField, limitsField, int32(i), concurrencyField),
				"handler.limits %s: a TRANSACTION lasts milliseconds and must not wait for others with keys held, so it takes no permit; give the limit a rate only, or make the handler mode: DURABLE", l.GetName())
		}
	}
}

// mergeLimits are the service's limits with the method's own added, or in the place of one of
// the same name, as far as the mode heeds them.
func (r *reader) mergeLimits(method *Method, defaults, own []*perdurev1.Limit) []Limit {
	if method.Mode == perdurev1.Mode_READ || method.Mode == perdurev1.Mode_SIGNAL {
		return nil
	}
	var merged []Limit
	add := func(l *perdurev1.Limit) {
		if l.GetConcurrency() > 0 && method.Mode == perdurev1.Mode_TRANSACTION {
			return
		}
		merged = append(merged, limitOf(l))
	}
	replaced := map[string]bool{}
	for _, l := range own {
		replaced[l.GetName()] = true
	}
	for _, l := range defaults {
		if !replaced[l.GetName()] {
			add(l)
		}
	}
	for _, l := range own {
		add(l)
	}
	return merged
}

func limitOf(l *perdurev1.Limit) Limit {
	out := Limit{Name: l.GetName(), By: l.GetBy(), Concurrency: int(l.GetConcurrency()), UntilDone: l.GetUntilDone()}
	if rate := l.GetRate(); rate.GetCount() > 0 {
		out.RateCount, out.RateBurst, out.RatePer = int(rate.GetCount()), int(cmp.Or(rate.GetBurst(), rate.GetCount())), time.Second
		if rate.GetPer() != nil {
			out.RatePer = rate.GetPer().AsDuration()
		}
	}
	if l.MaxQueue != nil {
		out.MaxQueue = int(l.GetMaxQueue())
		if out.MaxQueue == 0 {
			out.MaxQueue = -1
		}
	}
	return out
}

// sameLimits refuses two limits that count together and are not the same.
func (r *reader) sameLimits(service *Service) {
	first := map[string]*Method{}
	known := map[string]Limit{}
	for _, method := range service.Methods {
		for _, l := range method.Options.Limits {
			if l.By == perdurev1.By_HANDLER {
				continue
			}
			before, ok := known[l.Name]
			if !ok {
				known[l.Name], first[l.Name] = l, method
				continue
			}
			if before != l {
				r.report(method.Desc, methodOption(handlerField, limitsField), "the limit %s is another one in %s; one that several handlers share must be the same in all of them: put it in the service's defaults, or give it another name",
					l.Name, first[l.Name].Desc.Name())
			}
		}
	}
}
