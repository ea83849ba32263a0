// Package routing is the seam between the edge, where calls arrive, and the partitions, which
// own the objects. The edge (internal/ingress, internal/admin, the in-process client) calls a
// Router; internal/partition implements it for one node, and later for a cluster.
package routing

import (
	"context"
	"time"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// Router takes requests to whichever partition owns them. Its methods are safe for concurrent
// use. A handler's own failure is the Error inside a Result; a Go error (usually an *Error)
// means that the router could not do what was asked.
//
// If ctx ends while a method waits, the method returns ctx's error and what was accepted goes
// on: an invocation belongs to the cluster, not to whoever asked for it.
type Router interface {
	Schedules
	Rules
	// Call starts an exclusive invocation, or puts a SIGNAL in its inbox, and returns the
	// result once it is durable. An invocation that has this id already is waited for instead
	// of started again. Fails with unavailable, resource_exhausted, or ctx's error.
	Call(ctx context.Context, in *recordv1.Invoke) (*recordv1.Result, error)
	// Send starts an invocation, at in.DueAt if that is set, and returns once that is
	// durable. previously: an invocation of this id existed already.
	Send(ctx context.Context, in *recordv1.Invoke) (previously bool, err error)
	// Read runs a READ handler on the last committed state.
	Read(ctx context.Context, in *recordv1.Invoke) (*recordv1.Result, error)
	// Attach waits for the end of an invocation. Fails with not_found if there is none, or
	// its retention has passed.
	Attach(ctx context.Context, id invocation.ID) (*recordv1.Result, error)
	// Cancel asks an invocation to stop, or with kill ends it where it is, and returns once
	// that is durable. An invocation that has ended is left as it is.
	Cancel(ctx context.Context, id invocation.ID, kill bool) error
	// Pause makes an invocation stand still until it is resumed, and returns once that is durable.
	// Fails with not_found, or failed_precondition for one that has ended or that can't be paused.
	Pause(ctx context.Context, id invocation.ID) error
	// Resume lets an invocation go on that is paused, and one that backs off try again at once, with a
	// deployment if that is not "". Fails with not_found, or failed_precondition for one that has ended,
	// and for a deployment that no node that is reached runs.
	Resume(ctx context.Context, id invocation.ID, deployment string) error
	// Purge forgets an invocation that has ended, with its journal; of a long one the rest of that
	// goes in the background. Fails with not_found, or failed_precondition for one that has not.
	Purge(ctx context.Context, id invocation.ID) error
	// RestartAsNew starts a new invocation with the request of a DURABLE one that has ended and the
	// first entries of its journal, up to from, and returns its id once that is durable. Two
	// restarts of one invocation with the same requestID are one; empty, each is one. Fails with
	// not_found, failed_precondition, invalid_argument or resource_exhausted.
	RestartAsNew(ctx context.Context, id invocation.ID, from uint32, requestID string) (invocation.ID, error)
	// CompleteAwakeable resolves or rejects an awakeable. The same result again changes
	// nothing; another one fails with failed_precondition.
	CompleteAwakeable(ctx context.Context, awakeableID string, result *recordv1.Result) error

	// Invocation is Journal from the first entry on, with the default limit.
	Invocation(ctx context.Context, id invocation.ID) (*InvocationDetail, error)
	// Journal reads one invocation with its input and a page of its journal: up to limit
	// entries after the entry after, fewer if they are large. A limit of 0 reads no entries; a
	// negative one, or one above MaxPage, is MaxPage. A value that is in parts is only in a page
	// with a limit of 1, and only up to MaxValueBytes. Fails with not_found.
	Journal(ctx context.Context, id invocation.ID, after uint32, limit int) (*InvocationDetail, error)
	// InvocationsPage lists a page of invocations, in the order of their ids. It looks at a
	// bounded number of them, so a page may be empty though there are more.
	InvocationsPage(ctx context.Context, filter Filter) (*InvocationsPage, error)
	// StatePage reads the committed state of one object with a page of its tables.
	StatePage(ctx context.Context, query StateQuery) (*ObjectState, error)
	// Transactions lists what the partitions know of transactions over several objects that are
	// under way or in doubt, the oldest first, at most MaxPage. Not one instant: each partition
	// is asked in turn.
	Transactions(ctx context.Context) ([]Transaction, error)
	// Limits lists the limits that somebody uses, those with the most waiting first, at most
	// MaxPage; or the one that query names, if it is in use. Not one instant.
	Limits(ctx context.Context, query LimitQuery) ([]Limit, error)
}

// DefaultMaxAttempts is how often a DURABLE or RUN handler is tried whose policy does not say.
const DefaultMaxAttempts = 30

// MaxValueBytes is the largest value in parts that a page of a journal has.
const MaxValueBytes = 16 << 20

// MaxPage is the most entries, invocations or rows of a table that one page has.
const MaxPage = 1000

// InvocationDetail is what is kept of one invocation. A list has only ID and Row, and of the
// row neither the input nor the result's value.
type InvocationDetail struct {
	ID  invocation.ID
	Row *recordv1.Invocation
	// Journal: entry After+i+1 is Journal[i].
	Journal []*recordv1.Entry
	// After is the index of the entry before the page, 0 at the start of the journal.
	After uint32
	// More: there are entries behind the page.
	More bool
	// Completions of the page's entries by their index.
	Completions map[uint32]*recordv1.Completion
	// Tries that have failed of the page's Runs without a result, by the index of the Run; nil if there are none.
	Tries map[uint32]*recordv1.RunTries
}

// Filter picks invocations; a zero field picks all. With Service and Key only that object's
// invocations are looked at, and with Statuses that are all unfinished only unfinished ones;
// anything else looks at every invocation in turn.
type Filter struct {
	Service  string
	Key      string
	Handler  string
	Statuses []recordv1.Status
	// Deployment that the newest attempt ran on.
	Deployment string
	// KeyPrefix is what the key starts with.
	KeyPrefix string
	// CreatedFrom and CreatedBefore bound the instant of acceptance, in milliseconds since 1970.
	CreatedFrom   int64
	CreatedBefore int64
	// After is where the page before ended: its Next.
	After invocation.ID
	// Until is the last id to look at. Zero: there is none.
	Until invocation.ID
	// Limit of matches; 0, or more than MaxPage, is MaxPage.
	Limit int
	// Scan is about how many invocations to look at, over all partitions together; 0 is
	// DefaultScan.
	Scan int
}

// DefaultScan keeps a page that finds little in the tens of milliseconds.
const DefaultScan = 20_000

// InvocationsPage is a part of a list.
type InvocationsPage struct {
	// Found in the order of their ids.
	Found []InvocationDetail
	// Next is the After of the next page. Zero: this was the last.
	Next invocation.ID
	// Scanned is how many invocations were looked at.
	Scanned int
}

// StateQuery asks for an object's data.
type StateQuery struct {
	Object invocation.Object
	// Table whose rows are wanted. Empty: the first rows of every table.
	Table string
	// From is the least key wanted; it needs Table.
	From string
	// Limit of rows of each table; 0, or more than MaxPage, is MaxPage.
	Limit int
}

// ObjectState is the committed data of one object, all of one instant.
type ObjectState struct {
	// State is the state message in binary form, if Has.
	State []byte
	Has   bool
	// Tables that have rows, by name.
	Tables map[string]*Table
}

// Table is a page of an object's table.
type Table struct {
	// Size is the number of rows of the whole table.
	Size uint64
	// Rows in ascending order of their keys. Fewer than asked for if they are large.
	Rows []TableRow
	// More: there are rows behind the page.
	More bool
}

// TableRow is one row of an object's table.
type TableRow struct {
	Key   string
	Value []byte
}

// Transaction is what one partition knows of a transaction that is under way: the coordinator
// where the handler that began it runs, and each participant where an object is that it called.
type Transaction struct {
	// Root is the invocation that began it.
	Root invocation.ID
	// Sequence tells its tries apart.
	Sequence uint64
	// Partition that says this.
	Partition   uint32
	Coordinator bool
	Phase       TransactionPhase
	// Target of the root. Known to the coordinator only.
	Target invocation.Target
	// At is when the root was accepted, Since when the phase began.
	At    time.Time
	Since time.Time
	// Try counts from 1; each further one began after an older transaction was let pass, or a
	// participant was lost.
	Try uint32
	// Members are the partitions that it has called, or, once committed, those that have not
	// made their part durable yet. Known to the coordinator only.
	Members []uint32
	// Held are the objects that this partition keeps for it.
	Held []TransactionLock
	// Waiting are the objects that it waits for here.
	Waiting []TransactionLock
	// Reason says in a sentence what it waits for, and why, if it does.
	Reason string
}

// TransactionLock is an object that a transaction holds or wants.
type TransactionLock struct {
	Object invocation.Object
	// Shared with others that read.
	Shared bool
	// By names those who hold it, for one that is waited for.
	By []string
}

// TransactionPhase is how far a transaction is.
type TransactionPhase uint8

// The phases. A participant knows running, prepared and nothing else; all but prepared and
// committed are forgotten by a crash, and with them the transaction.
const (
	TransactionRunning     TransactionPhase = 1
	TransactionPreparing   TransactionPhase = 2
	TransactionPrepared    TransactionPhase = 3
	TransactionCommitted   TransactionPhase = 4
	TransactionRollingBack TransactionPhase = 5
)
