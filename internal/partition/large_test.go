package partition

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
	"github.com/perdure/perdure/internal/journal"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	"github.com/perdure/perdure/internal/stress"
	"github.com/perdure/perdure/internal/table"
	"github.com/perdure/perdure/storage/memstore"
	"github.com/perdure/perdure/storage/nodelog"
	"github.com/perdure/perdure/storage/vfs"
)

// large is an invoker with handlers that write more than one record of the log takes.
type large struct {
	adder
	checked chan error
}

// check reads a value that is in parts as an attempt does.
func (l large) check(j invoker.Journal, value []byte) error {
	found, _, err := j.Completions(1, 2)
	if err == nil && (found[1].GetParts() == nil || found[2] != nil) {
		err = fmt.Errorf("a page has the completions %v", found)
	}
	if err != nil {
		return err
	}
	return same(j, value)
}

// same reports whether the first entry's value, which is in parts, is this one.
func same(j invoker.Journal, value []byte) error {
	completion, err := j.Completion(1)
	if err == nil && (completion.GetParts() == nil || completion.GetResult() != nil) {
		err = fmt.Errorf("the completion is %.100v", completion)
	}
	if err != nil {
		return err
	}
	got, err := journal.Join(completion.GetParts(), func(first uint32) ([][]byte, error) { return j.Parts(1, first) })
	if err == nil && !bytes.Equal(got, value) {
		err = fmt.Errorf("the value has %d bytes, not the %d that were written", len(got), len(value))
	}
	return err
}

func (l large) Start(a *invoker.Attempt) invoker.Running {
	switch a.Target.Key {
	case "long journal":
		go func() {
			for i := range 31_000 {
				a.Host.Append(a, uint32(i+1), &recordv1.Entry{Entry: &recordv1.Entry_Awakeable{Awakeable: &recordv1.Awakeable{}}})
			}
			a.Host.Finish(a, &invoker.Outcome{Result: &recordv1.Result{}})
		}()
		return adder{}
	case "in parts":
		// A first attempt dies behind the last part of a longer value, which the second does not
		// have; and one Run never completes.
		go func() {
			run := &recordv1.Entry{Entry: &recordv1.Entry_Run{Run: &recordv1.Run{Name: "big"}}}
			count := uint32(11)
			if a.Number == 1 {
				a.Host.Append(a, 1, run)
			} else {
				count = 9
				a.Host.Append(a, 2, run)
				a.Host.Part(a, 2, 0, []byte("of a Run that was cancelled"))
			}
			value := bytes.Repeat([]byte("0123456789abcdef"), int(count)*journal.PartBytes/16-1)
			for number, part := range journal.Split(value) {
				a.Host.Part(a, 1, number, part)
			}
			if a.Number == 1 {
				a.Host.Finish(a, &invoker.Outcome{Retry: &recordv1.Error{Message: "crash"}, RetryAfter: 1})
				return
			}
			a.Host.CompleteParts(a, 1, journal.PartsOf(value))
			a.Host.AwaitDurable(a, func() {
				go func() {
					l.checked <- l.check(a.Host.Journal(a), value)
					a.Host.Finish(a, &invoker.Outcome{Result: &recordv1.Result{}})
				}()
			})
		}()
		return adder{}
	case "many rows":
		var entries []*recordv1.Entry
		for i := range 31_000 {
			entries = append(entries, &recordv1.Entry{Entry: &recordv1.Entry_TablePut{TablePut: &recordv1.TablePut{Table: "t", Key: fmt.Sprint(i), Value: []byte("x")}}})
		}
		a.Host.Finish(a, &invoker.Outcome{Result: &recordv1.Result{}, Entries: entries})
		return adder{}
	}
	return adder{}.Start(a)
}

func startLarge(t *testing.T) *node {
	return startLargeWith(t, large{})
}

func startLargeWith(t *testing.T, inv invoker.Invoker) *node {
	log, err := nodelog.Open(nodelog.Options{Dir: "/log", FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	n := startOn(t, log, memstore.New(memstore.Options{}), 1, inv, func() { _ = log.Close() })
	t.Cleanup(n.stop)
	return n
}

// A journal that is too long to be removed in one record must not take its partition down
// when its retention is over.
func TestPurgeOfALongJournal(t *testing.T) {
	n := startLarge(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	in := request("long journal", 1, invocation.ModeDurable)
	in.RetentionMs = 1
	if _, err := n.Call(ctx, in); err != nil {
		t.Fatal(err)
	}
	for calls := 1; ; calls++ {
		if _, err := n.Call(ctx, request("another", 1, invocation.ModeTransaction)); err != nil {
			t.Fatalf("call %d of another object while the journal is removed: %v", calls, err)
		}
		_, err := n.Invocation(ctx, invocation.ID(in.InvocationId))
		if err == nil {
			continue
		}
		if refused, ok := err.(*routing.Error); !ok || refused.Code != routing.CodeNotFound {
			t.Fatal(err)
		}
		return
	}
}

// A value in parts is read back while it is on its way and from the store, one page of the journal
// has it whole, and no part is left once the journal is gone: neither those of an attempt that died
// nor those of a Run that never completed.
func TestPartsOfAValue(t *testing.T) {
	inv := large{checked: make(chan error, 1)}
	n := startLargeWith(t, inv)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	in := request("in parts", 1, invocation.ModeDurable)
	in.RetentionMs = time.Hour.Milliseconds()
	if _, err := n.Call(ctx, in); err != nil {
		t.Fatal(err)
	}
	if err := <-inv.checked; err != nil {
		t.Error(err)
	}
	id := invocation.ID(in.InvocationId)
	if got := partsOf(t, n, id); got != 9+1 {
		t.Errorf("%d parts are kept of a value of 9, and of a Run that did not complete and had 1", got)
	}
	for limit, whole := range map[int]bool{1: true, 2: false} {
		page, err := n.Journal(ctx, id, 0, limit)
		if err != nil {
			t.Fatal(err)
		}
		if c := page.Completions[1]; (len(c.GetResult().GetValue()) > 8*journal.PartBytes) != whole || (c.GetParts() == nil) != whole {
			t.Errorf("a page of %d has %d bytes of the value", limit, len(c.GetResult().GetValue()))
		}
	}
	if err := n.Purge(ctx, id); err != nil {
		t.Fatal(err)
	}
	for got := partsOf(t, n, id); got != 0; got = partsOf(t, n, id) {
		if !stress.Tiny() { // which removes them with later events
			t.Fatalf("%d parts are left of an invocation that is gone", got)
		}
		if _, err := n.Call(ctx, request("another", 1, invocation.ModeTransaction)); err != nil {
			t.Fatal(err)
		}
	}
}

// fills is an invoker whose attempts write a value of so many parts, four at a time, the first of them
// all and those after it half as many.
type fills struct {
	adder
	parts    int
	attempts chan uint32
	checked  chan error
	stopped  <-chan struct{}
}

func (f fills) value(number uint32) []byte {
	parts := f.parts
	if number > 1 {
		parts /= 2
	}
	return bytes.Repeat([]byte{byte(number), 1, 2, 3}, parts*journal.PartBytes/4)
}

func (f fills) Start(a *invoker.Attempt) invoker.Running {
	if a.Target.Key != "large" {
		return adder{}.Start(a)
	}
	durable := func() bool {
		granted := make(chan struct{})
		a.Host.AwaitDurable(a, func() { close(granted) })
		select {
		case <-granted:
			return true
		case <-f.stopped:
			return false
		}
	}
	go func() {
		f.attempts <- a.Number
		if a.Entries == 0 {
			a.Host.Append(a, 1, &recordv1.Entry{Entry: &recordv1.Entry_Run{Run: &recordv1.Run{Name: "large"}}})
		}
		value := f.value(uint32(len(f.attempts)))
		for number, part := range journal.Split(value) {
			if number%4 == 0 && number > 0 && !durable() {
				return
			}
			a.Host.Part(a, 1, number, part)
		}
		a.Host.CompleteParts(a, 1, journal.PartsOf(value))
		if !durable() {
			return
		}
		f.checked <- same(a.Host.Journal(a), value)
		a.Host.Finish(a, &invoker.Outcome{Result: &recordv1.Result{}})
	}()
	return adder{}
}

// TestDiskIsFullInTheMiddleOfAValue: what was recorded of a value before the disk was full does not count,
// nothing is left of it once there is space, and the value that the next attempt records is whole.
func TestDiskIsFullInTheMiddleOfAValue(t *testing.T) {
	const segment, parts = 4 << 20, 80 // 19 MiB
	disk := vfs.NewMem()
	log, err := nodelog.Open(nodelog.Options{Dir: "/log", FS: disk, SegmentBytes: segment, MinFreeBytes: segment})
	if err != nil {
		t.Fatal(err)
	}
	inv := fills{parts: parts, attempts: make(chan uint32, 100), checked: make(chan error, 1), stopped: t.Context().Done()}
	n := startOn(t, log, memstore.New(memstore.Options{}), 1, inv, func() { _ = log.Close() })
	t.Cleanup(n.stop)
	disk.SetCapacity(2 * segment) // another segment would leave less than MinFreeBytes
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	in := request("large", 1, invocation.ModeDurable)
	in.RetentionMs = time.Hour.Milliseconds()
	if _, err := n.Send(ctx, in); err != nil {
		t.Fatal(err)
	}
	for { // Calls of another object are served until the disk is full.
		if _, err := n.Call(ctx, request("another", 1, invocation.ModeTransaction)); err != nil {
			if ctx.Err() != nil {
				t.Fatal("the disk is never full")
			}
			break
		}
	}
	disk.SetCapacity(-1)
	id := invocation.ID(in.InvocationId)
	select {
	case err := <-inv.checked:
		if err != nil {
			t.Error(err)
		}
	case <-ctx.Done():
		t.Fatal("no value was recorded once there was space")
	}
	if got := len(inv.attempts); got < 2 {
		t.Errorf("%d attempts began: the disk was not full in the middle", got)
	}
	if _, err := n.Attach(ctx, id); err != nil {
		t.Error(err)
	}
	if got := partsOf(t, n, id); got != parts/2 {
		t.Errorf("%d parts are kept of a value of %d", got, parts/2)
	}
	if err := n.Purge(ctx, id); err != nil {
		t.Fatal(err)
	}
	for partsOf(t, n, id) > 0 {
		if _, err := n.Call(ctx, request("another", 1, invocation.ModeTransaction)); err != nil {
			t.Fatalf("while parts are left of an invocation that is gone: %v", err)
		}
	}
}

// partsOf counts what is kept of values in parts.
func partsOf(t *testing.T, n *node, id invocation.ID) (count int) {
	t.Helper()
	s, err := n.of(id).pin()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Release()
	lower, upper := table.PartsOf(id)
	if err := s.Scan(lower, upper, func(_, _ []byte) bool { count++; return true }); err != nil {
		t.Error(err)
	}
	return count
}

// A TRANSACTION with more writes than a record takes fails alone.
func TestTransactionWithTooManyWrites(t *testing.T) {
	n := startLarge(t)
	res, err := n.Call(t.Context(), request("many rows", 1, invocation.ModeTransaction))
	if err != nil {
		t.Fatal(err)
	}
	if res.GetError().GetCode() != uint32(routing.CodeResourceExhausted) || !strings.Contains(res.Error.Message, "31000 writes") {
		t.Errorf("result %v, want resource_exhausted", res)
	}
	if _, err := n.Call(t.Context(), request("another", 1, invocation.ModeTransaction)); err != nil {
		t.Errorf("another object of the partition: %v", err)
	}
}
