package telemetry

// The keys of log lines; see docs/TERMS.md for what each word means.
const (
	KeyService      = "service"
	KeyKey          = "key"
	KeyHandler      = "handler"
	KeyMode         = "mode"
	KeyInvocationID = "invocation_id"
	KeyAttempt      = "attempt"
	KeyStatus       = "status"
	KeyEntry        = "entry"
	KeyPartition    = "partition"
	KeyEpoch        = "epoch"
	KeySequence     = "sequence"
	KeyNode         = "node"
	KeyAddress      = "address"
	KeyPath         = "path"
	KeyBytes        = "bytes"
	KeyDuration     = "duration"
	KeyCode         = "code"
	KeyError        = "error"
)
