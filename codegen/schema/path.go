package schema

// Paths to the options, for [Problemf]. The first element is the field "options" of
// ServiceDescriptorProto, MethodDescriptorProto and FieldDescriptorProto.
const (
	serviceOptionsField = 3
	methodOptionsField  = 4
	fieldOptionsField   = 8
	perdureExtension    = 73738
	// idempotency_level in google.protobuf.MethodOptions.
	idempotencyLevelField = 34
)

// ServiceOption is the path of (perdure.v1.service) in a service.
func ServiceOption() []int32 { return serviceOption() }

// KindOption is the path of (perdure.v1.service).kind in a service.
func KindOption() []int32 { return serviceOption(kindField) }

// StateOption is the path of (perdure.v1.service).state in a service.
func StateOption() []int32 { return serviceOption(stateField) }

// StateVersionOption is the path of (perdure.v1.service).state_version in a service.
func StateVersionOption() []int32 { return serviceOption(stateVersionField) }

// ModeOption is the path of (perdure.v1.method).mode in an rpc.
func ModeOption() []int32 { return methodOption(modeField) }

// HandlerOption is the path of (perdure.v1.method).handler in an rpc.
func HandlerOption() []int32 { return methodOption(handlerField) }

// KeyOption is the path of (perdure.v1.field).key in a field.
func KeyOption() []int32 { return fieldOption(keyField) }

// IdempotencyKeyOption is the path of (perdure.v1.field).idempotency_key in a field.
func IdempotencyKeyOption() []int32 { return fieldOption(idempotencyKeyField) }

func serviceOption(path ...int32) []int32 {
	return append([]int32{serviceOptionsField, perdureExtension}, path...)
}

func methodOption(path ...int32) []int32 {
	return append([]int32{methodOptionsField, perdureExtension}, path...)
}

func fieldOption(path ...int32) []int32 {
	return append([]int32{fieldOptionsField, perdureExtension}, path...)
}
