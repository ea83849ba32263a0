// Package schema reads the perdure options of a protobuf file into services that are known to be
// consistent, and says where and why they are not.
package schema

import (
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

// Service is one perdure service with every name resolved and every default filled in.
type Service struct {
	Desc protoreflect.ServiceDescriptor
	Kind perdurev1.Kind
	// State is nil if the service declares none.
	State protoreflect.MessageDescriptor
	// StateVersion is at least 1.
	StateVersion uint32
	// Tables and Promises are in declaration order.
	Tables   []Slot
	Promises []Slot
	// Methods are in declaration order.
	Methods []*Method
}

// Slot is a named place for messages of one type: a table or a promise.
type Slot struct {
	Name    string
	Message protoreflect.MessageDescriptor
	// Option is where the service declares it, for [Problemf].
	Option []int32
	// Version of a table's message, at least 1; of a promise's it is 1.
	Version uint32
}

// Method is one rpc of a perdure service.
type Method struct {
	Desc protoreflect.MethodDescriptor
	// Mode is never MODE_UNSPECIFIED.
	Mode perdurev1.Mode
	// Key is nil for a SERVICE.
	Key protoreflect.FieldDescriptor
	// IdempotencyKey is nil if no field is marked.
	IdempotencyKey protoreflect.FieldDescriptor
	Options        HandlerOptions
}

// HandlerOptions are the service's defaults with the method's own options over them, as far as
// the mode heeds them. A zero field means the runtime's default.
type HandlerOptions struct {
	Retry       RetryPolicy
	StepTimeout time.Duration
	Timeout     time.Duration
	Retention   time.Duration
	Limits      []Limit
	MaxInbox    int
	// InactivityTimeout and JournalRetention are of DURABLE and RUN handlers.
	InactivityTimeout time.Duration
	JournalRetention  time.Duration
}

// RetryPolicy is perdure.v1.RetryPolicy.
type RetryPolicy struct {
	InitialInterval  time.Duration
	MaxInterval      time.Duration
	Factor           float64
	MaxAttempts      uint32
	PauseOnExhausted bool
}

// Key returns the key field of the first rpc; all the others have one of the same type. It is nil
// for a SERVICE.
func (s *Service) Key() protoreflect.FieldDescriptor { return s.Methods[0].Key }

// Read returns the perdure services of a file in declaration order, and all that is wrong with
// them. If anything is, the services are what could be read of them: good for finding more
// problems, and for nothing else. Services without (perdure.v1.service) are none of its business.
func Read(file protoreflect.FileDescriptor) ([]*Service, Problems) {
	r := reader{}
	var services []*Service
	for i := range file.Services().Len() {
		if service := r.service(file.Services().Get(i)); service != nil {
			services = append(services, service)
		}
	}
	return services, r.problems
}

type reader struct {
	problems Problems
	// scheduleNames are those seen, with the names of their services.
	scheduleNames map[protoreflect.FullName]bool
}

func (r *reader) report(desc protoreflect.Descriptor, within []int32, format string, args ...any) {
	r.problems = append(r.problems, Problemf(desc, within, format, args...))
}
