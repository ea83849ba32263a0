package ingress

import (
	"strconv"
	"time"
	"unicode/utf8"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/flow"
	"github.com/perdure/perdure/internal/routing"
)

// maxLimitTextBytes bounds limit keys and tenants, which are kept with the invocation.
const maxLimitTextBytes = 255

// readFlow reads the headers of flow control.
func readFlow(header *connect.Header) (given flow.Given, err error) {
	if given.LimitKey, err = readText(header, HeaderLimitKey); err != nil {
		return given, err
	}
	if given.Tenant, err = readText(header, HeaderTenant); err != nil {
		return given, err
	}
	if values := header.Values(HeaderPriority); len(values) > 0 {
		level, parseErr := strconv.Atoi(values[0])
		if parseErr != nil || len(values) > 1 || level < -actor.MaxPriority || level > actor.MaxPriority {
			return given, invalid("the header %s is %q; it must be a whole number from %d to %d, once", HeaderPriority, clip(values[0]), -actor.MaxPriority, actor.MaxPriority)
		}
		given.Priority, given.PrioritySet = level, true
	}
	return given, nil
}

func readText(header *connect.Header, name string) (string, error) {
	values := header.Values(name)
	if len(values) == 0 {
		return "", nil
	}
	text := values[0]
	switch {
	case len(values) > 1:
		return "", invalid("the header %s is there %d times; send it once", name, len(values))
	case text == "":
		return "", invalid("the header %s is empty; leave it out or give it 1 to %d bytes", name, maxLimitTextBytes)
	case len(text) > maxLimitTextBytes:
		return "", invalid("the header %s has %d bytes; at most %d are allowed", name, len(text), maxLimitTextBytes)
	case !utf8.ValidString(text):
		return "", invalid("the header %s is not valid utf-8", name)
	}
	return text, nil
}

// tooMany refuses a call that a later one may have the place of: a second from now, for want of
// knowing better.
func tooMany(format string, args ...any) error {
	refused := routing.Errorf(routing.CodeResourceExhausted, format, args...)
	// A google.rpc.RetryInfo with a google.protobuf.Duration of 1 s. The package that has the first
	// is a large one to bring along for three fields.
	delay := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 1)
	info := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), delay)
	refused.Details = []*anypb.Any{{TypeUrl: "type.googleapis.com/google.rpc.RetryInfo", Value: info}}
	return refused
}

const headerRetryAfter = "Retry-After"

// retryAfter is the header's value, in seconds and no less than the hint of the error; "" if it
// has none.
func retryAfter(err *connect.Error) string {
	if err.Code() != connect.CodeResourceExhausted {
		return ""
	}
	hint, ok := actor.RetryHint(toActor(err))
	if !ok {
		return ""
	}
	return strconv.FormatInt(int64((hint+time.Second-1)/time.Second), 10)
}
