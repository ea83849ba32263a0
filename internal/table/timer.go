package table

import (
	"encoding/binary"

	"github.com/perdure/perdure/internal/invocation"
)

// TimerKind is what a timer does when it fires. Frozen: it is on disk.
type TimerKind byte

// The kinds of timer.
const (
	TimerSchedule TimerKind = 'c' // a schedule has something due; the id is the schedule's
	TimerDue      TimerKind = 'd' // a scheduled invocation joins its inbox
	TimerSleep    TimerKind = 's' // a Sleep entry completes
	TimerRetry    TimerKind = 'r' // the next attempt starts
	TimerDeadline TimerKind = 't' // the invocation's time is up
	TimerExpire   TimerKind = 'x' // a completed invocation's retention is over; its entry is where its removal goes on
	TimerWake     TimerKind = 'u' // a suspended invocation is started again
	TimerTrim     TimerKind = 'j' // entries of runs before the last ContinueAsNew are removed, from its entry on
	TimerInbox    TimerKind = 'g' // signals that nobody has received go; the id is that of Inbox
	TimerTell     TimerKind = 'f' // more of those who wait for a result, or the entry that waits for a promise, are told
	TimerLimit    TimerKind = 'l' // a limit has a token for who waits, or nobody uses it any more

	TimerExpireJournal TimerKind = 'b' // that of its journal is, which is shorter; its entry is where its removal goes on
)

// Timer is a durable wake-up. Its key sorts by instant.
type Timer struct {
	// At is milliseconds since 1970 UTC.
	At    int64
	Kind  TimerKind
	ID    invocation.ID
	Entry uint32
}

// Key is the timer's key; its row has no value.
func (t Timer) Key() []byte {
	key := make([]byte, 0, 1+8+1+invocation.IDBytes+4)
	key = append(key, tableTimer)
	key = binary.BigEndian.AppendUint64(key, uint64(t.At))
	key = append(key, byte(t.Kind))
	key = append(key, t.ID[:]...)
	return binary.BigEndian.AppendUint32(key, t.Entry)
}

// ParseTimer reads a timer's key.
func ParseTimer(key []byte) (Timer, error) {
	if len(key) != 1+8+1+invocation.IDBytes+4 || key[0] != tableTimer {
		return Timer{}, ErrMalformedKey
	}
	return Timer{
		At:    int64(binary.BigEndian.Uint64(key[1:])),
		Kind:  TimerKind(key[9]),
		ID:    invocation.ID(key[10 : 10+invocation.IDBytes]),
		Entry: binary.BigEndian.Uint32(key[10+invocation.IDBytes:]),
	}, nil
}

// TimersFrom is the range of the timers that are due at an instant or after.
func TimersFrom(at int64) (lower, upper []byte) {
	return binary.BigEndian.AppendUint64([]byte{tableTimer}, uint64(at)), []byte{tableTimer + 1}
}
