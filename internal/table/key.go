// Package table lays a partition's data out over ordered keys: which rows there are, what
// their keys look like and how their values are written. Keys leave out the partition, which
// cluster/replica puts in front of them.
//
// The first byte of a key is its table. Rows of one object, and of one invocation, are
// neighbours, so that each is one range.
package table

import (
	"encoding/binary"
	"errors"

	"github.com/perdure/perdure/internal/invocation"
)

// The tables. Frozen: they are on disk.
const (
	tableActive     = 'a' // id → Active: invocations not completed
	tableInbox      = 'b' // id of an object's signals → recordv1.SignalInbox: how many nobody has received
	tableCompletion = 'c' // id, entry → recordv1.Completion
	tableDelivered  = 'd' // source partition → sequence of the last message taken from it
	tableCopy       = 'e' // id → Copy: how much it has of the journal that it was restarted with
	tableRule       = 'f' // name → recordv1.LimitRule; nothing → recordv1.RuleBook
	tableSignal     = 'g' // object, name, sequence → request of a SIGNAL not yet received
	tableSchedule   = 'h' // name → recordv1.Schedule
	tableInvocation = 'i' // id → recordv1.Invocation
	tableJournal    = 'j' // id, entry → recordv1.Entry; entry 0 is the input
	tableChunk      = 'k' // key of a large value, number → part of it
	tableLimit      = 'l' // limit → recordv1.LimitRow; limit, id → recordv1.PermitRow
	tableSequence   = 'm' // destination partition → sequence of the last message to it
	tableRowCount   = 'n' // object, table → number of rows
	tableOutbox     = 'o' // destination partition, sequence → recordv1.Message
	tablePromise    = 'p' // object, name → recordv1.Promise
	tableWait       = 'q' // limit, band, rank, sequence → recordv1.WaitRow: who waits for a permit
	tableReceive    = 'r' // object, name, sequence → recordv1.Caller waiting for a signal
	tableState      = 's' // object → state message
	tableRow        = 't' // object, table, key → message
	tableTries      = 'u' // id, entry → recordv1.RunTries: a Run that has failed and is to be tried again
	tablePart       = 'v' // id, entry, number → part of the value that a Run returned
	tableTimer      = 'w' // instant, kind, id, entry → nothing
	tablePrepared   = 'x' // root, sequence → recordv1.Prepared: what a participant has promised
	tableDecision   = 'y' // root, sequence → recordv1.Decision: a transaction that has committed
	tableScheduling = 'z' // id of a schedule → recordv1.ScheduleState
)

func appendText(key []byte, text string) []byte {
	key = binary.AppendUvarint(key, uint64(len(text)))
	return append(key, text...)
}

func object(table byte, o invocation.Object, extra int) []byte {
	key := make([]byte, 0, 1+2+len(o.Service)+2+len(o.Key)+extra)
	key = append(key, table)
	return appendText(appendText(key, o.Service), o.Key)
}

func byID(table byte, id invocation.ID, extra int) []byte {
	key := make([]byte, 0, 1+invocation.IDBytes+extra)
	key = append(key, table)
	return append(key, id[:]...)
}

// State is the key of an object's state message.
func State(o invocation.Object) []byte { return object(tableState, o, 0) }

// Rows is the key before the first row of an object's table.
func Rows(o invocation.Object, name string) []byte {
	return appendText(object(tableRow, o, 1+len(name)), name)
}

// Row is the key of one row of an object's table.
func Row(o invocation.Object, name, key string) []byte {
	return append(appendText(object(tableRow, o, 1+len(name)+len(key)), name), key...)
}

// RowsOfObject is the key before the first row of an object's first table.
func RowsOfObject(o invocation.Object) []byte { return object(tableRow, o, 0) }

// ParseRow returns the table and the key of a row of o, of which RowsOfObject is the prefix.
func ParseRow(o invocation.Object, key []byte) (name, row string, err error) {
	rest, ok := cut(key, RowsOfObject(o))
	if !ok {
		return "", "", ErrMalformedKey
	}
	n, size := binary.Uvarint(rest)
	if size <= 0 || n > uint64(len(rest)-size) {
		return "", "", ErrMalformedKey
	}
	rest = rest[size:]
	return string(rest[:n]), string(rest[n:]), nil
}

// RowCount is the key of the number of rows of an object's table.
func RowCount(o invocation.Object, name string) []byte {
	return appendText(object(tableRowCount, o, 1+len(name)), name)
}

// Invocation is the key of an invocation's row.
func Invocation(id invocation.ID) []byte { return byID(tableInvocation, id, 0) }

// Invocations is the range of all invocation rows.
func Invocations() (lower, upper []byte) {
	return []byte{tableInvocation}, []byte{tableInvocation + 1}
}

// ActiveKey is the key that an invocation has until it completes.
func ActiveKey(id invocation.ID) []byte { return byID(tableActive, id, 0) }

// ActiveAll is the range of all Active keys.
func ActiveAll() (lower, upper []byte) { return []byte{tableActive}, []byte{tableActive + 1} }

// ParseID returns the id of an Invocation, Active or Copy key.
func ParseID(key []byte) (invocation.ID, error) {
	if len(key) != 1+invocation.IDBytes {
		return invocation.ID{}, ErrMalformedKey
	}
	return invocation.ID(key[1:]), nil
}

// Journal is the key of an invocation's entry; entry 0 is its input.
func Journal(id invocation.ID, entry uint32) []byte {
	return binary.BigEndian.AppendUint32(byID(tableJournal, id, 4), entry)
}

// JournalOf is the range of an invocation's entries.
func JournalOf(id invocation.ID) (lower, upper []byte) {
	lower = byID(tableJournal, id, 0)
	return lower, Successor(lower)
}

// Completion is the key of the completion of an entry.
func Completion(id invocation.ID, entry uint32) []byte {
	return binary.BigEndian.AppendUint32(byID(tableCompletion, id, 4), entry)
}

// CompletionsOf is the range of an invocation's completions.
func CompletionsOf(id invocation.ID) (lower, upper []byte) {
	lower = byID(tableCompletion, id, 0)
	return lower, Successor(lower)
}

// Tries is the key of how often a Run entry has failed.
func Tries(id invocation.ID, entry uint32) []byte {
	return binary.BigEndian.AppendUint32(byID(tableTries, id, 4), entry)
}

// TriesOf is the range of what is kept of an invocation's Runs that have failed.
func TriesOf(id invocation.ID) (lower, upper []byte) {
	lower = byID(tableTries, id, 0)
	return lower, Successor(lower)
}

// Part is the key of part number of what the Run entry returned.
func Part(id invocation.ID, entry, number uint32) []byte {
	key := binary.BigEndian.AppendUint32(byID(tablePart, id, 8), entry)
	return binary.BigEndian.AppendUint32(key, number)
}

// PartsOf is the range of all parts of what an invocation's Runs returned.
func PartsOf(id invocation.ID) (lower, upper []byte) {
	lower = byID(tablePart, id, 0)
	return lower, Successor(lower)
}

// IsPart reports whether a key is one that Part made: its value is small enough for any store.
func IsPart(key []byte) bool { return len(key) > 0 && key[0] == tablePart }

// ParseEntry returns the entry of a Journal, Completion or Tries key.
func ParseEntry(key []byte) (uint32, error) {
	if len(key) != 1+invocation.IDBytes+4 {
		return 0, ErrMalformedKey
	}
	return binary.BigEndian.Uint32(key[1+invocation.IDBytes:]), nil
}

// Promise is the key of an object's durable promise.
func Promise(o invocation.Object, name string) []byte {
	return appendText(object(tablePromise, o, 1+len(name)), name)
}

// Signals is the key before an object's first signal of that name.
func Signals(o invocation.Object, name string) []byte {
	return appendText(object(tableSignal, o, 1+len(name)+8), name)
}

// Signal is the key of one signal.
func Signal(o invocation.Object, name string, sequence uint64) []byte {
	return binary.BigEndian.AppendUint64(Signals(o, name), sequence)
}

// SignalsOfObject is the key before an object's first signal of any name.
func SignalsOfObject(o invocation.Object) []byte { return object(tableSignal, o, 0) }

// Inbox is the key of how many signals of an object nobody has received; id is that of its timer.
func Inbox(id invocation.ID) []byte { return byID(tableInbox, id, 0) }

// Receives is the key before the first entry that waits for a signal of that name.
func Receives(o invocation.Object, name string) []byte {
	return appendText(object(tableReceive, o, 1+len(name)+8), name)
}

// ReceivesOfObject is the key before the first entry that waits for any signal of an object.
func ReceivesOfObject(o invocation.Object) []byte { return object(tableReceive, o, 0) }

// Receive is the key of an entry that waits for a signal.
func Receive(o invocation.Object, name string, sequence uint64) []byte {
	return binary.BigEndian.AppendUint64(Receives(o, name), sequence)
}

// Outbox is the key of a message to another partition.
func Outbox(partition uint32, sequence uint64) []byte {
	key := make([]byte, 0, 1+4+8)
	key = append(key, tableOutbox)
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(key, partition), sequence)
}

// OutboxAll is the range of all messages to other partitions.
func OutboxAll() (lower, upper []byte) { return []byte{tableOutbox}, []byte{tableOutbox + 1} }

// ParseOutbox returns what Outbox was given.
func ParseOutbox(key []byte) (partition uint32, sequence uint64, err error) {
	if len(key) != 1+4+8 {
		return 0, 0, ErrMalformedKey
	}
	return binary.BigEndian.Uint32(key[1:]), binary.BigEndian.Uint64(key[5:]), nil
}

// Sequence is the key of the sequence of the last message to a partition.
func Sequence(partition uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{tableSequence}, partition)
}

// Delivered is the key of the sequence of the last message taken from a partition.
func Delivered(partition uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{tableDelivered}, partition)
}

// Prepared is the key of a participant's promise in a try of the transaction that root began.
func Prepared(root invocation.ID, sequence uint64) []byte {
	return binary.BigEndian.AppendUint64(byID(tablePrepared, root, 8), sequence)
}

// ParsePrepared returns what Prepared, or Decision, was given.
func ParsePrepared(key []byte) (root invocation.ID, sequence uint64, err error) {
	if len(key) != 1+invocation.IDBytes+8 {
		return invocation.ID{}, 0, ErrMalformedKey
	}
	return invocation.ID(key[1 : 1+invocation.IDBytes]), binary.BigEndian.Uint64(key[1+invocation.IDBytes:]), nil
}

// Once reports whether a row of this key is never written again before it is deleted: promises,
// decisions and messages, which are nearly always deleted at once.
func Once(key []byte) bool {
	return len(key) > 0 && (key[0] == tablePrepared || key[0] == tableDecision || key[0] == tableOutbox)
}

// PreparedAll is the range of all promises.
func PreparedAll() (lower, upper []byte) { return []byte{tablePrepared}, []byte{tablePrepared + 1} }

// Decision is the key of a coordinator's decision to commit.
func Decision(root invocation.ID, sequence uint64) []byte {
	return binary.BigEndian.AppendUint64(byID(tableDecision, root, 8), sequence)
}

// DecisionAll is the range of all decisions.
func DecisionAll() (lower, upper []byte) { return []byte{tableDecision}, []byte{tableDecision + 1} }

// Schedule is the key of a schedule's row. Names sort as they are.
func Schedule(name string) []byte {
	return append(append(make([]byte, 0, 1+len(name)), tableSchedule), name...)
}

// ParseSchedule returns what Schedule was given.
func ParseSchedule(key []byte) (name string, err error) {
	if len(key) < 2 || key[0] != tableSchedule {
		return "", ErrMalformedKey
	}
	return string(key[1:]), nil
}

// SchedulesAfter is the range of the schedules with a prefix whose names come after another.
func SchedulesAfter(prefix, after string) (lower, upper []byte) {
	lower = Schedule(prefix)
	if after >= prefix && after != "" {
		lower = append(Schedule(after), 0)
	}
	return lower, Successor(Schedule(prefix))
}

// Scheduling is the key of where a schedule stands; id is that of its timer.
func Scheduling(id invocation.ID) []byte { return byID(tableScheduling, id, 0) }

// Chunk is the key of part number of a large value.
func Chunk(key []byte, number uint32) []byte {
	chunk := make([]byte, 0, 1+len(key)+4)
	chunk = append(append(chunk, tableChunk), key...)
	return binary.BigEndian.AppendUint32(chunk, number)
}

// Chunks is the range of all parts of large values.
func Chunks() (lower, upper []byte) { return []byte{tableChunk}, []byte{tableChunk + 1} }

// ErrMalformedKey is returned for a key that this package did not make.
var ErrMalformedKey = errors.New("table: malformed key")

// Successor is the smallest key greater than every key that starts with prefix, or nil when
// there is none.
func Successor(prefix []byte) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] < 0xff {
			upper := append([]byte(nil), prefix[:i+1]...)
			upper[i]++
			return upper
		}
	}
	return nil
}

func cut(key, prefix []byte) (rest []byte, ok bool) {
	if len(key) < len(prefix) || string(key[:len(prefix)]) != string(prefix) {
		return nil, false
	}
	return key[len(prefix):], true
}

// ObjectPrefixes are the prefixes of all rows of an object.
func ObjectPrefixes(o invocation.Object) [][]byte {
	var prefixes [][]byte
	for _, name := range []byte{tableState, tableRow, tableRowCount, tablePromise, tableSignal, tableReceive} {
		prefixes = append(prefixes, object(name, o, 0))
	}
	return prefixes
}
