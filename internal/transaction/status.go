package transaction

import "github.com/perdure/perdure/internal/invocation"

// Status is what a partition knows of a transaction, for people to look at.
type Status struct {
	ID          ID
	Coordinator bool
	Phase       Phase
	// Target of the root; the coordinator's.
	Target invocation.Target
	// At is when the root was accepted, Since when the phase began, in milliseconds since 1970.
	At    int64
	Since int64
	Try   uint32
	// Members are the partitions that were called, or that still have to hear of the decision.
	Members []uint32
	Held    []LockStatus
	Waiting []LockStatus
	Reason  string
}

// LockStatus is a key that a transaction holds or waits for.
type LockStatus struct {
	Object invocation.Object
	Shared bool
	// By names those who hold it.
	By []string
}
