package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/apipb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/cluster"
	"github.com/perdure/perdure/internal/stress"
)

// script is what a handler of a stage does.
type script func(ctx actor.Context) (string, error)

// stage is a node whose handlers do what the test tells them: the root field of a request names
// a script.
type stage struct {
	t                      *testing.T
	node                   *cluster.Node
	client                 *actor.Client
	things, batches, flows *actor.ServiceDesc

	mu struct {
		sync.Mutex
		scripts map[string]script
	}
}

// The handlers of each service of a stage.
const (
	transact = iota  // TRANSACTION
	look             // READ
	keep             // DURABLE
	short            // TRANSACTION of the service that may take a second only
	pausing  = short // DURABLE of things that is paused after three failures, with a journal that goes after ten minutes
)

// The handlers of the stage's workflow.
const (
	flowRun = iota
	flowTell
	flowLook
)

// ways to run the node of a stage: transactions cross partitions, stay in one, or are crashed
// before they commit.
var ways = map[string][]cluster.Option{
	"plain":                {cluster.WithPartitions(8)},
	"one partition":        {cluster.WithPartitions(1)},
	"crash at every entry": {cluster.WithPartitions(8), cluster.WithCrashAtEveryEntry()},
}

// eachWay runs a test in fake time, with a node in memory for each way.
func eachWay(t *testing.T, test func(s *stage)) {
	for name, opts := range ways {
		t.Run(name, func(t *testing.T) { inMemory(t, test, opts...) })
	}
}

// countsAttempts is for a test whose subject is how many attempts there are, or what very many steps cost:
// under make crash each entry has an attempt of its own.
func countsAttempts(t *testing.T) {
	t.Helper()
	if stress.Crashing() {
		t.Skip("its attempts are counted, or its steps are too many to be crashed behind each")
	}
}

// inMemory runs a test in fake time.
func inMemory(t *testing.T, test func(s *stage), opts ...cluster.Option) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, append(opts, cluster.WithInMemory())...)
		defer stopNode(t, s.node)
		test(s)
	})
}

func newStage(t *testing.T, opts ...cluster.Option) *stage {
	t.Helper()
	return newStageWith(t, func(*stage) {}, opts...)
}

// newStageWith has services that edit has changed.
func newStageWith(t *testing.T, edit func(s *stage), opts ...cluster.Option) *stage {
	t.Helper()
	s := &stage{t: t}
	s.mu.scripts = map[string]script{}
	s.node = cluster.NewNode(append([]cluster.Option{
		cluster.WithoutListener(), cluster.WithLogger(slog.New(slog.NewTextHandler(io.Discard, nil))),
		cluster.WithTelemetry(cluster.Telemetry{Prometheus: true}), cluster.WithRemoteAdmin(),
	}, opts...)...)
	s.things = s.service("stage.v1.ThingService", actor.KindObject, actor.ModeTransaction, actor.ModeRead, actor.ModeDurable)
	s.things.StateType = func() proto.Message { return new(wrapperspb.Int64Value) }
	s.things.Tables = []actor.TableDesc{{Name: "rows", New: func() proto.Message { return new(wrapperspb.StringValue) }}}
	patient := *s.things.Methods[keep]
	patient.Name, patient.Options.Retry = "HPAUSING", actor.RetryPolicy{MaxAttempts: 3, PauseOnExhausted: true, InitialInterval: time.Minute}
	patient.Options.InactivityTimeout, patient.Options.JournalRetention = time.Second, 10*time.Minute
	s.things.Methods = append(s.things.Methods, &patient)
	s.batches = s.service("stage.v1.BatchService", actor.KindService, actor.ModeTransaction, actor.ModeRead, actor.ModeDurable)
	brief := *s.batches.Methods[transact]
	brief.Name, brief.Options.StepTimeout = "HSHORT", time.Second
	s.batches.Methods = append(s.batches.Methods, &brief)
	s.flows = s.service("stage.v1.FlowService", actor.KindWorkflow, actor.ModeRun, actor.ModeSignal, actor.ModeRead)
	s.flows.Promises = []actor.PromiseDesc{{Name: "p", New: func() proto.Message { return new(apipb.Mixin) }}}
	edit(s)
	for _, service := range []*actor.ServiceDesc{s.things, s.batches, s.flows} {
		s.node.RegisterService(service, s)
	}
	startNode(t, s.node)
	s.client = s.node.Client()
	return s
}

func (s *stage) service(name string, kind actor.Kind, modes ...actor.Mode) *actor.ServiceDesc {
	desc := &actor.ServiceDesc{Name: name, Kind: kind}
	for _, mode := range modes {
		m := &actor.MethodDesc{
			Service: name, Name: "H" + mode.String(), Kind: kind, Mode: mode,
			NewRequest:  func() proto.Message { return new(apipb.Mixin) },
			NewResponse: func() proto.Message { return new(apipb.Mixin) },
		}
		if kind != actor.KindService {
			m.KeyField = 1
		}
		if mode != actor.ModeSignal {
			m.Handle = func(ctx actor.Context, _ any, req proto.Message) (proto.Message, error) {
				text, err := s.perform(ctx, req.(*apipb.Mixin).Root)
				return &apipb.Mixin{Root: text}, err
			}
		}
		desc.Methods = append(desc.Methods, m)
	}
	return desc
}

// on names a script. Those of DURABLE handlers, and what they call, must be named before they
// run, so that a replay makes the same calls.
func (s *stage) on(name string, do script) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.scripts[name] = do
	return name
}

// fn names a script by itself.
func (s *stage) fn(do func(ctx actor.Context) error) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := fmt.Sprint("script ", len(s.mu.scripts))
	s.mu.scripts[name] = func(ctx actor.Context) (string, error) { return "", do(ctx) }
	return name
}

// perform runs a script: "add N" changes the state by N and returns it, "get" returns it, "fail" changes
// it and fails, and others are what on was given.
func (s *stage) perform(ctx actor.Context, name string) (string, error) {
	if number, ok := strings.CutPrefix(name, "add "); ok {
		by, err := strconv.ParseInt(number, 10, 64)
		return fmt.Sprint(add(ctx, by)), err
	}
	switch name {
	case "get":
		return fmt.Sprint(actor.StateReaderOf[*wrapperspb.Int64Value](ctx).Get().GetValue()), nil
	case "fail":
		add(ctx, 1000)
		return "", actor.Errorf(actor.Aborted, "on purpose")
	case "panic":
		add(ctx, 1000)
		panic("a bug in the handler")
	}
	s.mu.Lock()
	do := s.mu.scripts[name]
	s.mu.Unlock()
	if do == nil {
		return "", actor.Errorf(actor.Unimplemented, "no script %q", name)
	}
	return do(ctx)
}

func add(ctx actor.Context, by int64) int64 {
	state := actor.StateOf[*wrapperspb.Int64Value](ctx)
	value := state.Get().GetValue() + by
	state.Set(wrapperspb.Int64(value))
	return value
}

func rows(ctx actor.Context) actor.Table[*wrapperspb.StringValue] {
	return actor.TableOf[*wrapperspb.StringValue](ctx, "rows")
}

// do calls the TRANSACTION handler of a thing; in a handler ctx is the handler's.
func (s *stage) do(ctx context.Context, key, name string, opts ...actor.CallOption) (string, error) {
	return s.invoke(ctx, s.things.Methods[transact], key, name, opts...)
}

// batch calls the TRANSACTION handler that has no key.
func (s *stage) batch(ctx context.Context, name string, opts ...actor.CallOption) (string, error) {
	return s.invoke(ctx, s.batches.Methods[transact], "", name, opts...)
}

func (s *stage) invoke(ctx context.Context, m *actor.MethodDesc, key, name string, opts ...actor.CallOption) (string, error) {
	got, err := actor.Invoke[*apipb.Mixin](ctx, s.client, m, key, &apipb.Mixin{Root: name}, opts)
	return got.GetRoot(), err
}

func (s *stage) async(ctx context.Context, key, name string) actor.Future[*apipb.Mixin] {
	return actor.InvokeAsync[*apipb.Mixin](ctx, s.client, s.things.Methods[transact], key, &apipb.Mixin{Root: name}, nil)
}

func (s *stage) send(ctx context.Context, m *actor.MethodDesc, key, name string, opts ...actor.SendOption) (*actor.Invocation[*apipb.Mixin], error) {
	return actor.InvokeSend[*apipb.Mixin](ctx, s.client, m, key, &apipb.Mixin{Root: name}, opts)
}

// must ends the test, and fails what a handler does.
func (s *stage) must(_ any, err error) {
	s.t.Helper()
	if err != nil {
		s.t.Error(err)
	}
}

// attach waits a day at most.
func (s *stage) attach(i *actor.Invocation[*apipb.Mixin]) (string, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), 24*time.Hour)
	defer cancel()
	got, err := i.Attach(ctx)
	return got.GetRoot(), err
}

// value of a thing as a READ handler sees it.
func (s *stage) value(key string) string {
	s.t.Helper()
	got, err := s.invoke(s.t.Context(), s.things.Methods[look], key, "get")
	if err != nil {
		s.t.Errorf("value of %s: %v", key, err)
	}
	return got
}

// values checks what things hold, as "a=1 b=2".
func (s *stage) values(want string) {
	s.t.Helper()
	var got []string
	for _, part := range strings.Fields(want) {
		key, _, _ := strings.Cut(part, "=")
		got = append(got, key+"="+s.value(key))
	}
	if text := strings.Join(got, " "); text != want {
		s.t.Errorf("the things are %s, want %s", text, want)
	}
}

// free checks that nobody holds the keys: a call of each comes through in no time.
func (s *stage) free(keys ...string) {
	s.t.Helper()
	for _, key := range keys {
		began := time.Now()
		if _, err := s.do(s.t.Context(), key, "add 0"); err != nil || time.Since(began) > time.Second {
			s.t.Errorf("%s is held: %v after %s", key, err, time.Since(began))
		}
	}
}

// refused checks an error.
func (s *stage) refused(err error, code actor.Code, texts ...string) {
	s.t.Helper()
	if err == nil || actor.CodeOf(err) != code {
		s.t.Errorf("got %v, want %s", err, code)
		return
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			s.t.Errorf("%q does not say %q", err, text)
		}
	}
}

// counter is a counter's value in the metrics.
func (s *stage) counter(name string) int {
	s.t.Helper()
	for line := range strings.Lines(metrics(s.t, s.node)) {
		if number, ok := strings.CutPrefix(line, name+" "); ok {
			value, err := strconv.Atoi(strings.TrimSpace(number))
			if err != nil {
				s.t.Error(err)
			}
			return value
		}
	}
	s.t.Errorf("no metric %s", name)
	return 0
}

func (s *stage) retries(reason string) int {
	return s.counter(`perdure_transaction_retries_total{reason="` + reason + `"}`)
}

// kill ends an invocation by the admin service.
func (s *stage) kill(id string) {
	s.t.Helper()
	if status, body := s.post("/perdure.admin.v1.AdminService/KillInvocation", `{"invocationId":"`+id+`"}`); status != http.StatusOK {
		s.t.Errorf("kill: %d %s", status, body)
	}
}

// post makes a call as JSON, without an idempotency key.
func (s *stage) post(path, body string) (int, string) {
	request := httptest.NewRequestWithContext(s.t.Context(), http.MethodPost, path, strings.NewReader(body))
	request.Header.Set("Content-Type", "application/json")
	response := httptest.NewRecorder()
	s.node.Handler().ServeHTTP(response, request)
	return response.Code, response.Body.String()
}

func transactionTimeout(limit time.Duration) cluster.Option {
	return func(c *cluster.Config) { c.TransactionTimeout = limit }
}

// mixin is what all handlers of a stage take and return.
type mixin = apipb.Mixin

var errDone = errors.New("done")
