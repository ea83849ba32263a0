package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/cluster"
)

// complaints are the lines of a log that say a partition had to start over.
type complaints struct {
	sync.Mutex
	lines []string
}

func (c *complaints) Write(line []byte) (int, error) {
	c.Lock()
	defer c.Unlock()
	for _, text := range []string{"record refused", "event failed", "out of sequence"} {
		if strings.Contains(string(line), text) {
			c.lines = append(c.lines, string(line))
		}
	}
	return len(line), nil
}

// TestTooLarge: what is too large is refused with an error that says what it is, how large it is, how
// large it may be and what to do, at once and not again and again; the partition and the object are not touched.
func TestTooLarge(t *testing.T) {
	var log complaints
	// With little memory records are small: a step may have about 370 KB, a request 256 KiB.
	s := newStage(t, cluster.WithDataDir(t.TempDir()), cluster.WithPartitions(1), cluster.WithMemory(128<<20), cluster.WithMaxResultBytes(64<<20),
		cluster.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	defer stopNode(t, s.node)
	huge := strings.Repeat("x", 600<<10)
	large := strings.Repeat("x", 300<<10) // fits a step and no request
	s.on("response", func(actor.Context) (string, error) { return huge, nil })
	s.on("row", func(ctx actor.Context) (string, error) {
		rows(ctx).Put("r", wrapperspb.String(huge))
		return "put", nil
	})
	s.on("rows", func(ctx actor.Context) (string, error) {
		for i := range 5 {
			rows(ctx).Put(fmt.Sprint(i), wrapperspb.String(huge[:100<<10]))
		}
		return "put", nil
	})
	s.on("replaced", func(ctx actor.Context) (string, error) {
		rows(ctx).Put("0", wrapperspb.String(huge[:400<<10]))
		return "", nil
	})
	s.on("key", func(ctx actor.Context) (string, error) {
		rows(ctx).Put(huge[:70_000], wrapperspb.String("v"))
		return "put", nil
	})
	s.on("send", func(ctx actor.Context) (string, error) {
		_, err := s.send(ctx, s.things.Methods[keep], "other", huge)
		return "sent", err
	})
	s.on("call", func(ctx actor.Context) (string, error) {
		got, err := s.do(ctx, "other", huge)
		return got, err
	})
	s.on("read", func(ctx actor.Context) (string, error) {
		return s.invoke(ctx, s.things.Methods[look], "other", "response")
	})
	s.on("awakeable", func(ctx actor.Context) (string, error) {
		id := actor.NewAwakeable[*mixin](ctx).ID()
		return "resolved", actor.ResolveAwakeable(ctx, s.client, id, &mixin{Root: huge})
	})
	s.on("promise", func(ctx actor.Context) (string, error) {
		return "resolved", actor.PromiseOf[*mixin](ctx, "p").Resolve(ctx, &mixin{Root: huge})
	})
	s.on("signal", func(ctx actor.Context) (string, error) {
		_, err := s.send(ctx, s.flows.Methods[flowTell], "f", huge)
		return "sent", err
	})
	s.on("failed", func(actor.Context) (string, error) { return "", actor.Errorf(actor.Aborted, "%s", huge) })
	s.on("details", func(actor.Context) (string, error) {
		return "", actor.NewError(actor.Aborted, "no", &anypb.Any{TypeUrl: "type.googleapis.com/google.protobuf.StringValue", Value: protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), []byte(huge))})
	})
	s.on("uncoded", func(actor.Context) (string, error) { return "", errors.New(huge) })
	s.on("run fails", func(ctx actor.Context) (string, error) {
		return "", actor.Do(ctx, "broken", func(context.Context) error { return actor.Errorf(actor.Aborted, "%s", huge) })
	})
	s.on("retried", func(ctx actor.Context) (string, error) {
		return "", actor.Do(ctx, "broken", func(context.Context) error { return errors.New(huge) }, actor.RunRetry(actor.RunPolicy{MaxAttempts: 2, InitialInterval: time.Millisecond}))
	})
	s.on("run", func(ctx actor.Context) (string, error) {
		_, err := actor.Run(ctx, "download", func(context.Context) (*wrapperspb.BytesValue, error) {
			return wrapperspb.Bytes(make([]byte, 64<<20+1)), nil
		})
		return "", err
	})
	s.on("continue", func(actor.Context) (string, error) {
		return "", actor.ContinueAsNew(&mixin{Root: huge})
	})
	s.on("name", func(ctx actor.Context) (string, error) {
		return "", actor.Do(ctx, huge, func(context.Context) error { return nil })
	})
	const fits, instead = ", more than the 413857 that fit one record", "or keep it elsewhere and pass on where it is"
	transaction, durable, reading, run := s.things.Methods[transact], s.things.Methods[keep], s.things.Methods[look], s.flows.Methods[flowRun]
	for _, test := range []struct {
		method *actor.MethodDesc
		script string
		code   actor.Code // 0: it is not too large
		says   []string
	}{
		{transaction, "response", actor.ResourceExhausted, []string{"stage.v1.ThingService/k/HTRANSACTION: its response has 614408 bytes" + fits, instead}},
		{durable, "response", actor.ResourceExhausted, []string{"stage.v1.ThingService/k/HDURABLE: its response has 614408 bytes" + fits}},
		{reading, "response", 0, nil},
		{transaction, "row", actor.ResourceExhausted, []string{"all that it writes, sends and returns has 614429 bytes" + fits}},
		{transaction, "rows", actor.ResourceExhausted, []string{"all that it writes, sends and returns has 512117 bytes" + fits}},
		{durable, "row", actor.ResourceExhausted, []string{`Put of "r" in table rows has 614452 bytes` + fits}},
		{durable, "rows", 0, nil},
		{durable, "replaced", actor.ResourceExhausted, []string{`Put of "0" in table rows, with the value that it replaces, has 512`, fits}},
		{transaction, "key", actor.ResourceExhausted, []string{`table rows: the key "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"… has 70000 bytes; at most 1024 are allowed: use a hash of it`}},
		{durable, "key", actor.ResourceExhausted, []string{"has 70000 bytes; at most 1024"}},
		{transaction, "send", actor.ResourceExhausted, []string{"all that it writes, sends and returns has 6145", fits}},
		{durable, "send", actor.ResourceExhausted, []string{"Send stage.v1.ThingService/other/HDURABLE has 6145", fits}},
		{transaction, "call", actor.ResourceExhausted, []string{"Call stage.v1.ThingService/other/HTRANSACTION has 6144", fits}},
		{durable, "call", actor.ResourceExhausted, []string{"Call stage.v1.ThingService/other/HTRANSACTION has 6145", fits}},
		{transaction, "read", actor.ResourceExhausted, []string{"stage.v1.ThingService/other/HREAD: its response has 614408 bytes" + fits}},
		{durable, "read", actor.ResourceExhausted, []string{"stage.v1.ThingService/other/HREAD: its response to another handler has 614408 bytes" + fits}},
		{durable, "awakeable", actor.ResourceExhausted, []string{"ResolveAwakeable awk_", "has 614548 bytes" + fits}},
		{run, "promise", actor.ResourceExhausted, []string{"Resolve of promise p has 614448 bytes" + fits}},
		{s.flows.Methods[flowLook], "promise", actor.ResourceExhausted, []string{"the value of promise p has 614408 bytes" + fits}},
		{run, "signal", actor.ResourceExhausted, []string{"Send stage.v1.FlowService/f/HSIGNAL has 6145", fits}},
		{durable, "continue", actor.ResourceExhausted, []string{"the request with which it continues as new has 614407 bytes" + fits}},
		{durable, "name", actor.ResourceExhausted, []string{`Run "xxx`, "has 614437 bytes" + fits}},
		{durable, "run", actor.ResourceExhausted, []string{`Run "download" of stage.v1.ThingService/k/HDURABLE returned 67108923 bytes, more than the 67108864`, "keep the value elsewhere"}},
		// Errors keep their codes, and as much of their text as travels.
		{transaction, "failed", actor.Aborted, []string{"xxx… (the message has 614400 bytes, of which the first 16384 are shown)"}},
		{durable, "failed", actor.Aborted, []string{"xxx… (the message has 614400 bytes, of which the first 16384 are shown)"}},
		{transaction, "uncoded", actor.Unknown, []string{"the first 16384 are shown"}},
		{durable, "details", actor.Aborted, []string{"no (its details are left out: they have 6144", "and at most 65536 are kept)"}},
		{durable, "run fails", actor.Aborted, []string{"the first 16384 are shown"}},
		{durable, "retried", actor.Unknown, []string{"the last of 2 tries: xxx", "the first 16384 are shown"}},
	} {
		t.Run(test.method.Name+" "+test.script, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			key := "k"
			if test.method.Service == s.flows.Name {
				key = "a workflow for " + test.method.Name + test.script
			}
			_, err := s.invoke(ctx, test.method, key, test.script)
			text := fmt.Sprint(err)
			if (err == nil) != (test.code == 0) || err != nil && actor.CodeOf(err) != test.code {
				t.Errorf("got %s, want %s: %.300s", actor.CodeOf(err), test.code, text)
			}
			for _, say := range test.says {
				if !strings.Contains(text, say) {
					t.Errorf("it does not say %q: %.300s", say, text)
				}
			}
			log.Lock()
			for _, line := range log.lines {
				t.Errorf("the log says %.500s", line)
			}
			log.lines = nil
			log.Unlock()
			if _, err := s.do(ctx, "k", "add 1"); err != nil {
				t.Errorf("the object: %.300v", err)
			}
		})
	}
	status, body := s.post("/stage.v1.ThingService/HTRANSACTION", `{"name":"k","root":"`+large+`"}`)
	if status != http.StatusTooManyRequests || !strings.Contains(body, "the request is larger than 262144 bytes, the most this node accepts: split it, or keep what is large elsewhere") {
		t.Errorf("as JSON: %d %.300s", status, body)
	}
	server := httptest.NewServer(s.node.Handler())
	defer server.Close()
	dialled := cluster.Dial(server.Client(), server.URL)
	for name, client := range map[string]*actor.Client{"over the network": dialled, "in the process": s.client} {
		sends := func(root string) error {
			_, err := actor.Invoke[*mixin](t.Context(), client, durable, "k", &mixin{Root: root}, nil)
			return err
		}
		want := map[bool]string{true: "the request has 6145", false: "the request is larger than 262144 bytes"}[client == s.client]
		if err := sends(huge); actor.CodeOf(err) != actor.ResourceExhausted || !strings.Contains(err.Error(), want) {
			t.Errorf("a call %s: %.300v", name, err)
		}
	}
	awakeables := make(chan string, 1)
	s.on("waits", func(ctx actor.Context) (string, error) {
		awakeable := actor.NewAwakeable[*mixin](ctx)
		select {
		case awakeables <- awakeable.ID():
		default: // It is replayed.
		}
		_, err := awakeable.Await(ctx)
		return "", err
	})
	_, err := s.send(t.Context(), durable, "waits", "waits")
	s.must(nil, err)
	if err := actor.ResolveAwakeable(t.Context(), s.client, <-awakeables, &mixin{Root: huge}); actor.CodeOf(err) != actor.ResourceExhausted || !strings.Contains(err.Error(), "the value of awakeable awk_") {
		t.Errorf("an awakeable in the process: %.300v", err)
	}
}
