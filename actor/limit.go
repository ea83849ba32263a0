package actor

import (
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Limit bounds how many invocations are under way, begin or wait, in the whole cluster. It is
// declared in the .proto, as perdure.v1.Limit, where its fields are described.
type Limit struct {
	// Name is unique in its service.
	Name string
	// By is what counts together.
	By LimitBy
	// Concurrency is 0 for any number.
	Concurrency int
	// Rate has a Count of 0 for any number.
	Rate Rate
	// MaxQueue is 0 for any number, and [NoQueue] for none.
	MaxQueue int
	// UntilDone keeps a permit until the invocation ends.
	UntilDone bool
}

// NoQueue as [Limit.MaxQueue] refuses whoever can't begin at once.
const NoQueue = -1

// Rate is how many invocations may begin: Count in each Per, and Burst at once after a rest.
type Rate struct {
	Count int
	Per   time.Duration
	Burst int
}

// LimitBy is what a [Limit] counts together. The numbers are those of perdure.v1.By.
type LimitBy int32

const (
	// ByService counts all invocations of the service that are under the limit.
	ByService LimitBy = 0
	// ByHandler counts those of each handler apart.
	ByHandler LimitBy = 1
	// ByKey counts those of each object apart.
	ByKey LimitBy = 2
	// ByLimitKey counts those of each [LimitKey] apart.
	ByLimitKey LimitBy = 3
	// ByTenant counts those of each [Tenant] apart.
	ByTenant LimitBy = 4
)

type limitKey string

func (k limitKey) applyCall(call *CallRequest) { call.LimitKey = string(k) }
func (k limitKey) applySend(call *CallRequest) { call.LimitKey = string(k) }

// LimitKey says what limits with by: LIMIT_KEY count the call under, such as a customer. At most
// 255 bytes. What the handler calls and sends has the same one, unless it says otherwise.
func LimitKey(key string) Option { return limitKey(key) }

type tenant string

func (t tenant) applyCall(call *CallRequest) { call.Tenant = string(t) }
func (t tenant) applySend(call *CallRequest) { call.Tenant = string(t) }

// Tenant says on whose behalf a call is made: of those that wait for a limit, tenants take turns,
// however many calls of each wait. At most 255 bytes. What the handler calls and sends has the
// same one, unless it says otherwise.
func Tenant(name string) Option { return tenant(name) }

type priority int

func (p priority) applyCall(call *CallRequest) { call.Priority, call.PrioritySet = int(p), true }
func (p priority) applySend(call *CallRequest) { call.Priority, call.PrioritySet = int(p), true }

// MaxPriority is the highest [Priority], and -MaxPriority the lowest.
const MaxPriority = 100

// Priority lets a call go before those of a lower priority that wait for the same limit. It is
// from -[MaxPriority] to MaxPriority; without it, it is 0, or that of the handler that calls. It
// changes nothing about the order of calls to one key, which begin as they came.
func Priority(level int) Option { return priority(level) }

// RetryHint is when a call that failed with [ResourceExhausted], because too many wait, may be
// tried again with some hope; false if err does not say. Others than Go read it from the error's
// google.rpc.RetryInfo, or the header Retry-After.
func RetryHint(err error) (time.Duration, bool) {
	coded, ok := errors.AsType[*Error](err)
	if !ok {
		return 0, false
	}
	for _, detail := range coded.details {
		if !strings.HasSuffix(detail.GetTypeUrl(), "/google.rpc.RetryInfo") {
			continue
		}
		// It is read by hand: the package with that message is a large one to bring along.
		delay := &durationpb.Duration{}
		number, kind, n := protowire.ConsumeTag(detail.Value)
		if n < 0 || number != 1 || kind != protowire.BytesType {
			return 0, false
		}
		value, size := protowire.ConsumeBytes(detail.Value[n:])
		if size < 0 || proto.Unmarshal(value, delay) != nil || delay.CheckValid() != nil {
			return 0, false
		}
		return delay.AsDuration(), true
	}
	return 0, false
}

const maxLimitTextBytes = 255

// checkLimits refuses what the options of flow control can't be.
func (call *CallRequest) checkLimits() error {
	for _, text := range []struct{ name, value string }{{"limit key", call.LimitKey}, {"tenant", call.Tenant}} {
		switch {
		case len(text.value) > maxLimitTextBytes:
			return Errorf(InvalidArgument, "%s: the %s has %d bytes; at most %d are allowed", call.Method.FullName(), text.name, len(text.value), maxLimitTextBytes)
		case !utf8.ValidString(text.value):
			return Errorf(InvalidArgument, "%s: the %s is not valid utf-8", call.Method.FullName(), text.name)
		}
	}
	if call.Priority < -MaxPriority || call.Priority > MaxPriority {
		return Errorf(InvalidArgument, "%s: the priority is %d; it must be from %d to %d", call.Method.FullName(), call.Priority, -MaxPriority, MaxPriority)
	}
	return nil
}
