package invocation

// MaxKeyBytes is the longest key of an object.
const MaxKeyBytes = 255

// Target is what an invocation is aimed at. Key is empty for a SERVICE.
type Target struct {
	Service string
	Key     string
	Handler string
}

// Object is the target without its handler.
func (t Target) Object() Object { return Object{t.Service, t.Key} }

// String is "bank.v1.AccountService/alice/Deposit", without the key for a SERVICE.
func (t Target) String() string {
	if t.Key == "" {
		return t.Service + "/" + t.Handler
	}
	return t.Service + "/" + t.Key + "/" + t.Handler
}

// Object names one object: its type and its key.
type Object struct {
	Service string
	Key     string
}

// String is "bank.v1.AccountService/alice".
func (o Object) String() string { return o.Service + "/" + o.Key }

// Kind is what a service is. The numbers are those of perdure.v1.Kind.
type Kind uint8

// The kinds.
const (
	KindService  Kind = 1
	KindObject   Kind = 2
	KindWorkflow Kind = 3
)

// Mode is how a handler runs. The numbers are those of perdure.v1.Mode.
type Mode uint8

// The modes.
const (
	ModeDurable     Mode = 1
	ModeRead        Mode = 2
	ModeTransaction Mode = 3
	ModeRun         Mode = 4
	ModeSignal      Mode = 5
)

// Exclusive reports whether a handler of this mode holds its object's key while it runs.
func (m Mode) Exclusive() bool {
	return m == ModeDurable || m == ModeTransaction || m == ModeRun
}

// Journaled reports whether a handler of this mode has a journal.
func (m Mode) Journaled() bool { return m == ModeDurable || m == ModeRun }

var modeNames = [...]string{"UNSPECIFIED", "DURABLE", "READ", "TRANSACTION", "RUN", "SIGNAL"}

// String is the name in perdure.v1.Mode.
func (m Mode) String() string {
	if int(m) < len(modeNames) {
		return modeNames[m]
	}
	return "UNKNOWN"
}
