package actor

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Kind is what a service is. The numbers are those of perdure.v1.Kind.
type Kind int32

// The kinds.
const (
	// KindService has no key: any number of handlers run at once.
	KindService Kind = 1
	// KindObject has a key and state, and runs one exclusive handler at a time per key.
	KindObject Kind = 2
	// KindWorkflow runs once per key.
	KindWorkflow Kind = 3
)

// Mode is how a handler runs. The numbers are those of perdure.v1.Mode.
type Mode int32

// The modes.
const (
	// ModeDurable records each step in a journal and continues after a crash.
	ModeDurable Mode = 1
	// ModeRead sees the last committed state and changes nothing.
	ModeRead Mode = 2
	// ModeTransaction takes effect as a whole or not at all.
	ModeTransaction Mode = 3
	// ModeRun is the one handler of a workflow that runs once per key, as ModeDurable does.
	ModeRun Mode = 4
	// ModeSignal has no handler: the request goes to the inbox of the workflow's run.
	ModeSignal Mode = 5
)

var modeNames = [...]string{"UNSPECIFIED", "DURABLE", "READ", "TRANSACTION", "RUN", "SIGNAL"}

// String is the mode's name in perdure.v1.Mode, such as "TRANSACTION".
func (m Mode) String() string {
	if m >= 0 && int(m) < len(modeNames) {
		return modeNames[m]
	}
	return "UNKNOWN"
}

// ServiceDesc describes one perdure service. Generated code makes it; nobody changes it.
type ServiceDesc struct {
	// Name is fully qualified, such as "bank.v1.AccountService".
	Name string
	// Kind says whether its handlers have a key and a state.
	Kind Kind
	// StateType makes an empty state message; nil if the service has no state.
	StateType func() proto.Message
	// StateVersion is that of StateType; 0 is 1. See [StateMigrator].
	StateVersion uint32
	// Tables beside the state, in the order of the .proto.
	Tables []TableDesc
	// Promises of a WORKFLOW, in the order of the .proto.
	Promises []PromiseDesc
	// Methods in the order of the .proto.
	Methods []*MethodDesc
	// File is the .proto file that declares the service.
	File protoreflect.FileDescriptor
}

// TableDesc describes a table beside an object's state.
type TableDesc struct {
	// Name of the table, unique in its service.
	Name string
	// New makes an empty row.
	New func() proto.Message
	// Version of the rows' message; 0 is 1. See [StateMigrator].
	Version uint32
}

// PromiseDesc describes a durable promise of a workflow.
type PromiseDesc struct {
	// Name of the promise, unique in its service.
	Name string
	// New makes an empty value.
	New func() proto.Message
}

// MethodDesc describes one handler. Generated code makes it; nobody changes it.
type MethodDesc struct {
	// Service is the fully qualified name of the service, Name that of the rpc within it.
	Service, Name string
	// Kind of the service.
	Kind Kind
	// Mode the handler runs in; never unspecified.
	Mode Mode
	// KeyField is the request's field that names the object; 0 for a SERVICE.
	KeyField protoreflect.FieldNumber
	// IdempotencyField is the request's field that stands in for an idempotency key; 0 for none.
	IdempotencyField protoreflect.FieldNumber
	// NewRequest makes an empty request.
	NewRequest func() proto.Message
	// NewResponse makes an empty response.
	NewResponse func() proto.Message
	// Schema is the rpc's descriptor.
	Schema func() protoreflect.MethodDescriptor
	// Options are the service's defaults with the rpc's own on top.
	Options HandlerOptions
	// Handle calls the user's handler; nil for SIGNAL.
	Handle func(ctx Context, handler any, req proto.Message) (proto.Message, error)
}

// FullName is "bank.v1.AccountService/Deposit".
func (m *MethodDesc) FullName() string { return m.Service + "/" + m.Name }

// HandlerOptions are the options a .proto gives a handler. A zero field means the default.
type HandlerOptions struct {
	// Retry says how attempts that failed are repeated.
	Retry RetryPolicy
	// StepTimeout is the longest time an attempt may go without reaching a durable step.
	StepTimeout time.Duration
	// Timeout is the longest time the whole invocation may take, waits included.
	Timeout time.Duration
	// Retention is how long a finished invocation is kept for attach and deduplication.
	Retention time.Duration
	// Limits bound how many invocations are under way, begin or wait.
	Limits []Limit
	// MaxInbox is how many calls may wait for one key, 0 for the node's default.
	MaxInbox int
	// InactivityTimeout is how long a DURABLE or RUN handler that waits keeps its goroutine before
	// it is unwound, to be replayed later. One nanosecond unwinds it at every wait.
	InactivityTimeout time.Duration
	// JournalRetention is how long the journal of a finished invocation is kept, if that is shorter
	// than Retention.
	JournalRetention time.Duration
}

// RetryPolicy says how something that failed is tried again. A zero field means the default of
// the place it is used in.
type RetryPolicy struct {
	// InitialInterval is the wait before the second try; each later one is Factor times longer,
	// up to MaxInterval.
	InitialInterval, MaxInterval time.Duration
	// Factor is at least 1.
	Factor float64
	// MaxAttempts counts the first try: 1 is never to try again.
	MaxAttempts int
	// PauseOnExhausted makes an invocation wait for an operator instead of failing.
	PauseOnExhausted bool
}

// Registrar is what handlers are registered with: a cluster.Node, or a test's. Generated
// RegisterXxxHandler functions call it.
type Registrar interface {
	// RegisterService makes the node run handler for the service. Mistakes (a nil handler, the
	// same service twice) are reported when the node starts.
	RegisterService(desc *ServiceDesc, handler any)
}
