package table

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/perdure/perdure/internal/invocation"
)

var tableNames = map[byte]string{
	tableActive: "active", tableCompletion: "completion", tableDelivered: "delivered", tableSignal: "signal",
	tableInvocation: "invocation", tableJournal: "journal", tableChunk: "part", tableSequence: "sent",
	tableRowCount: "rows", tableOutbox: "outbox", tablePromise: "promise", tableReceive: "receive",
	tableState: "state", tableRow: "row", tableTimer: "timer",
	tableLimit: "limit", tableWait: "wait", tableRule: "rule",
	tableTries:    "tries",
	tableInbox:    "inbox",
	tableCopy:     "copy",
	tablePart:     "part of completion",
	tablePrepared: "promise of transaction",
	tableDecision: "decision of transaction",
	tableSchedule: "schedule", tableScheduling: "schedule state",
}

// Describe prints a key for logs and errors: "state bank.v1.AccountService/alice". It never
// fails; what it can't read it prints in hexadecimal.
func Describe(key []byte) string {
	if len(key) == 0 {
		return "(empty key)"
	}
	name, ok := tableNames[key[0]]
	if !ok {
		return fmt.Sprintf("%x", key)
	}
	parts := []string{name}
	rest := key[1:]
	text := func() {
		n, size := binary.Uvarint(rest)
		if size <= 0 || n > uint64(len(rest)-size) {
			return
		}
		parts = append(parts, string(rest[size:size+int(n)]))
		rest = rest[size+int(n):]
	}
	number := func(bytes int) {
		if len(rest) < bytes {
			return
		}
		var n uint64
		for _, b := range rest[:bytes] {
			n = n<<8 | uint64(b)
		}
		parts = append(parts, fmt.Sprint(n))
		rest = rest[bytes:]
	}
	switch key[0] {
	case tableSchedule, tableRule:
		return fmt.Sprintf("%s %q", name, rest)
	case tableScheduling:
		if len(rest) == 24 {
			return fmt.Sprintf("%s %x", name, rest)
		}
	case tableActive, tableCopy, tableInbox, tableInvocation, tableJournal, tableCompletion, tableTries, tablePart:
		if id, err := ParseID(key[:min(len(key), 1+24)]); err == nil {
			parts, rest = append(parts, id.String()), rest[24:]
		}
		number(4)
		if key[0] == tablePart {
			number(4)
		}
	case tableState, tableRow, tableRowCount, tablePromise, tableSignal, tableReceive:
		text()
		text()
		if key[0] != tableState {
			text()
		}
		if key[0] == tableRow {
			parts, rest = append(parts, string(rest)), nil
		} else {
			number(8)
		}
	case tablePrepared, tableDecision:
		if root, sequence, err := ParsePrepared(key); err == nil {
			return fmt.Sprintf("%s %s/%d.%d", name, root, sequence>>32, uint32(sequence))
		}
	case tableLimit:
		text()
		if len(rest) == 24 {
			parts[0] = "permit"
			parts, rest = append(parts, invocation.ID(rest).String()), nil
		}
	case tableWait:
		text()
		number(1)
		number(8)
		number(8)
	case tableOutbox:
		number(4)
		number(8)
	case tableSequence, tableDelivered:
		number(4)
	case tableTimer:
		if t, err := ParseTimer(key); err == nil {
			return fmt.Sprintf("timer %d %c %s %d", t.At, t.Kind, t.ID, t.Entry)
		}
	case tableChunk:
		if len(rest) > 4 {
			return "part of " + Describe(rest[:len(rest)-4])
		}
	}
	if len(rest) > 0 {
		parts = append(parts, fmt.Sprintf("%x", rest))
	}
	return strings.Join(parts, " ")
}
