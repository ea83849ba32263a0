package partition

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	"github.com/perdure/perdure/storage/memstore"
	"github.com/perdure/perdure/storage/nodelog"
	"github.com/perdure/perdure/storage/vfs"
)

// large is an invoker with handlers that write more than one record of the log takes.
type large struct{ adder }

func (large) Start(a *invoker.Attempt) invoker.Running {
	switch a.Target.Key {
	case "long journal":
		go func() {
			for i := range 31_000 {
				a.Host.Append(a, uint32(i+1), &recordv1.Entry{Entry: &recordv1.Entry_Awakeable{Awakeable: &recordv1.Awakeable{}}})
			}
			a.Host.Finish(a, &invoker.Outcome{Result: &recordv1.Result{}})
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
	log, err := nodelog.Open(nodelog.Options{Dir: "/log", FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	n := startOn(t, log, memstore.New(memstore.Options{}), 1, large{}, func() { _ = log.Close() })
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
