package cluster_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/cluster"
	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

// builtA is what the tests of start-up begin with.
const builtA = `
service Thing {
  option (perdure.v1.service) = {kind: OBJECT state: "St" tables: [{name: "lines" value: "Line"}]};
  rpc Set(Req) returns (Res);
  rpc Wait(Req) returns (Res) { option (perdure.v1.method) = {mode: DURABLE}; }
  rpc Get(Req) returns (Res) { option (perdure.v1.method) = {mode: READ}; }
}
service Flow {
  option (perdure.v1.service) = {kind: WORKFLOW promises: [{name: "done" type: "Line"}]};
  rpc Run(Req) returns (Res) { option (perdure.v1.method) = {mode: RUN}; }
  rpc Tell(Req) returns (Empty) { option (perdure.v1.method) = {mode: SIGNAL}; }
}
service Job {
  option (perdure.v1.service) = {kind: SERVICE};
  rpc Do(Job_) returns (Res);
}
message Req { string name = 1 [(perdure.v1.field).key = true]; string root = 2; }
message Job_ { string root = 2; }
message Res { string root = 2; }
message St { string value = 1; }
message Line { string value = 1; }
message Empty {}
`

func textState(ctx actor.Context) actor.State[*wrapperspb.StringValue] {
	return actor.StateOf[*wrapperspb.StringValue](ctx)
}

func textLines(ctx actor.Context) actor.Table[*wrapperspb.StringValue] {
	return actor.TableOf[*wrapperspb.StringValue](ctx, "lines")
}

// handlersA write what they are told; those that wait wait for ever.
func handlersA() handlers {
	wait := func(ctx actor.Context, _ string) (string, error) {
		return "", actor.Sleep(ctx, 1000*time.Hour)
	}
	return handlers{
		"Thing/Set": func(ctx actor.Context, root string) (string, error) {
			textState(ctx).Set(wrapperspb.String(root))
			return root, nil
		},
		"Thing/Wait": wait, "Flow/Run": wait, "Job/Do": wait,
	}
}

func mustStart(t *testing.T, node *cluster.Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := node.Start(ctx); err != nil {
		t.Fatal(err)
	}
}

// what deployment A leaves, by name.
var leftovers = map[string]func(t *testing.T, a *program, node *cluster.Node){
	"nothing": func(*testing.T, *program, *cluster.Node) {},
	"state": func(t *testing.T, a *program, node *cluster.Node) {
		if _, err := a.call(t, node, "Thing/Set", "k", "kept"); err != nil {
			t.Fatal(err)
		}
	},
	"wait":   func(t *testing.T, a *program, node *cluster.Node) { a.send(t, node, "Thing/Wait", "k", "") },
	"flow":   func(t *testing.T, a *program, node *cluster.Node) { a.send(t, node, "Flow/Run", "k", "") },
	"signal": func(t *testing.T, a *program, node *cluster.Node) { a.send(t, node, "Flow/Tell", "k", "x") },
	"job":    func(t *testing.T, a *program, node *cluster.Node) { a.send(t, node, "Job/Do", "", "") },
	"schedule": func(t *testing.T, a *program, node *cluster.Node) {
		_, err := node.Client().Schedules().Put(t.Context(), &perdurev1.Schedule{
			Name: "yearly", Service: "t.v1.Thing", Handler: "Set", Key: "k", Cron: "@yearly",
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
	},
}

// TestStartRefusesWhatBreaks starts a build that differs over what the first one left.
func TestStartRefusesWhatBreaks(t *testing.T) {
	change := func(pairs ...string) string {
		text := builtA
		for i := 0; i < len(pairs); i += 2 {
			if !strings.Contains(text, pairs[i]) {
				t.Fatalf("%q is not in the text", pairs[i])
			}
			text = strings.ReplaceAll(text, pairs[i], pairs[i+1])
		}
		return text
	}
	without := func(service string) string {
		at := strings.Index(builtA, "service "+service)
		return builtA[:at] + builtA[at+strings.Index(builtA[at:], "\n}\n")+3:]
	}
	for _, test := range []struct {
		name, left, text string
		// refused are parts of the error; none: it starts.
		refused []string
	}{
		{"the same", "state", builtA, nil},
		{"a handler more", "state", change("rpc Set(", "rpc Put(Req) returns (Res); rpc Set("), nil},
		{"a field more", "state", change("message St {", "message St { int32 more = 9;"), nil},
		{"a service more", "wait", builtA + "service More { option (perdure.v1.service) = {kind: SERVICE}; rpc Do(Job_) returns (Res); }", nil},
		{"state's field retyped", "state", change("message St { string value", "message St { int64 value"),
			[]string{"t.v1.St.value: was string and is int64", "there are states"}},
		{"state's field retyped, no state", "flow", change("message St { string value", "message St { int64 value"), nil},
		{"state's field retyped, in flight", "wait", change("message St { string value", "message St { int64 value"),
			[]string{"t.v1.St.value: was", "1 invocation has not ended"}},
		{"state replaced", "state", change(`state: "St"`, `state: "Line"`), []string{"t.v1.Thing: state was"}},
		{"state gone", "state", change(` state: "St"`, ``), []string{"t.v1.Thing: state was"}},
		{"state of a newer version", "state", change(`state: "St"`, `state: "Line" state_version: 2`), nil},
		{"table gone, no rows", "state", change(` tables: [{name: "lines" value: "Line"}]`, ``), nil},
		{"kind", "state", change("{kind: OBJECT state: \"St\" tables: [{name: \"lines\" value: \"Line\"}]}", "{kind: WORKFLOW state: \"St\"}",
			"{mode: DURABLE}", "{mode: RUN}", "rpc Set(Req) returns (Res);", ""), []string{"t.v1.Thing: kind was OBJECT and is WORKFLOW"}},
		{"mode", "state", change("rpc Set(Req) returns (Res);", "rpc Set(Req) returns (Res) { option (perdure.v1.method) = {mode: DURABLE}; }"),
			[]string{"t.v1.Thing.Set: mode was TRANSACTION and is DURABLE"}},
		{"mode, nothing kept", "nothing", change("rpc Set(Req) returns (Res);", "rpc Set(Req) returns (Res) { option (perdure.v1.method) = {mode: DURABLE}; }"), nil},
		{"key's type", "state", change("string name = 1 [", "int64 name = 1 ["), []string{"the key was string and is int64"}},
		{"key's field", "state", change("string name = 1 [(perdure.v1.field).key = true]; string root = 2;", "string name = 1; string root = 2 [(perdure.v1.field).key = true];"),
			[]string{"the key was field name = 1"}},
		{"handler gone", "state", change("rpc Set(Req) returns (Res);", ""), nil},
		{"handler gone, in flight", "wait", change("rpc Wait(Req) returns (Res) { option (perdure.v1.method) = {mode: DURABLE}; }", ""),
			[]string{"rpc Wait is gone", "1 invocation has not ended"}},
		{"handler gone, another in flight", "wait", change("rpc Set(Req) returns (Res);", ""), nil},
		{"service gone", "flow", without("Thing"), nil},
		{"service gone with state", "state", without("Thing"), []string{"t.v1.Thing: is gone", "there are states"}},
		{"service gone in flight", "job", without("Job"), []string{"t.v1.Job: is gone", "1 invocation has not ended"}},
		{"promise gone, in flight", "flow", change(` promises: [{name: "done" type: "Line"}]`, ""), []string{`promise "done" is gone`}},
		{"promise's type, in flight", "flow", change(`{name: "done" type: "Line"}`, `{name: "done" type: "St"}`),
			[]string{`promise "done" was of type "t.v1.Line" and is of type "t.v1.St"`, "1 invocation has not ended"}},
		{"promise's field retyped, in flight", "flow", change("message Line { string value", "message Line { int64 value"),
			[]string{"t.v1.Line.value: was string and is int64", "1 invocation has not ended"}},
		{"promise's field retyped, no run", "state", change("message Line { string value", "message Line { int64 value"), nil},
		{"signal's field retyped", "signal", change("[(perdure.v1.field).key = true]; string root", "[(perdure.v1.field).key = true]; int64 root"),
			[]string{"t.v1.Req.root: was string and is int64", "signals that were not received"}},
		{"signal gone", "signal", change("rpc Tell(Req) returns (Empty) { option (perdure.v1.method) = {mode: SIGNAL}; }", ""),
			[]string{"rpc Tell is gone", "signals that were not received"}},
		{"handler gone, scheduled", "schedule", change("rpc Set(Req) returns (Res);", ""), []string{"rpc Set is gone", "1 schedule calls it"}},
		{"handler gone, another scheduled", "schedule", change("rpc Wait(Req) returns (Res) { option (perdure.v1.method) = {mode: DURABLE}; }", ""), nil},
		{"request's field retyped, scheduled", "schedule", change("[(perdure.v1.field).key = true]; string root", "[(perdure.v1.field).key = true]; int64 root"),
			[]string{"1 schedule calls it"}},
		{"state's field retyped, scheduled", "schedule", change("message St { string value", "message St { int64 value"), nil},
		{"several", "wait", change("string name = 1 [", "int64 name = 1 [", "message St { string value", "message St { int64 value"),
			[]string{"the key was string", "t.v1.St.value: was"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			a := newProgram(t, builtA, handlersA())
			node := a.node(dir, cluster.WithDeployment("a"))
			mustStart(t, node)
			leftovers[test.left](t, a, node)
			stopNode(t, node)

			b := newProgram(t, test.text, handlersA())
			if strings.Contains(test.text, "state_version: 2") {
				b.migrations["Thing"] = []actor.StateMigration{wrapped(1, nil)}
			}
			served := false
			node = b.node(dir, cluster.WithDeployment("b"), cluster.WithOnServing(func(string) { served = true }))
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			err := node.Start(ctx)
			if len(test.refused) == 0 {
				if err != nil {
					t.Fatal(err)
				}
				stopNode(t, node)
				return
			}
			if err == nil {
				stopNode(t, node)
				t.Fatal("it started")
			}
			for _, part := range append(test.refused, "deployment b does not fit", "it was so in deployment a", "--accept-breaking") {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q is not in:\n%v", part, err)
				}
			}
			if served || node.URL() != "" {
				t.Error("it served")
			}

			// Nothing has changed for the build that fits.
			node = a.node(dir, cluster.WithDeployment("a"))
			mustStart(t, node)
			if test.left == "state" {
				if _, err := a.call(t, node, "Thing/Set", "k", "again"); err != nil {
					t.Error(err)
				}
			}
			stopNode(t, node)

			// An operator may say that it's all right.
			node = b.node(dir, cluster.WithDeployment("b"), cluster.WithBreakingChanges())
			mustStart(t, node)
			stopNode(t, node)
			// It was said: the next start doesn't ask again.
			node = b.node(dir, cluster.WithDeployment("b"))
			mustStart(t, node)
			stopNode(t, node)
		})
	}
}

// TestUnregisteredService: a service whose .proto is still there, but whose handler nobody
// registers, is gone too.
func TestUnregisteredService(t *testing.T) {
	dir := t.TempDir()
	a := newProgram(t, builtA, handlersA())
	node := a.node(dir)
	mustStart(t, node)
	leftovers["state"](t, a, node)
	stopNode(t, node)
	b := newProgram(t, builtA, handlersA())
	delete(b.services, "Thing")
	err := b.node(dir).Start(t.Context())
	if err == nil || !strings.Contains(err.Error(), "t.v1.Thing: is not registered any more") {
		t.Error(err)
	}
}

// TestReturningService: what a service left is compared when it comes back, though the deployment
// before had none of it.
func TestReturningService(t *testing.T) {
	dir := t.TempDir()
	a := newProgram(t, builtA, handlersA())
	node := a.node(dir)
	mustStart(t, node)
	leftovers["state"](t, a, node)
	stopNode(t, node)
	between := newProgram(t, builtA, handlersA())
	delete(between.services, "Thing")
	node = between.node(dir, cluster.WithBreakingChanges())
	mustStart(t, node)
	stopNode(t, node)
	back := newProgram(t, builtBroken, handlersA())
	err := back.node(dir).Start(t.Context())
	if err == nil || !strings.Contains(err.Error(), "t.v1.St.value: was") {
		t.Error(err)
	}
}

// TestDeploymentNames: a name is for one build.
func TestDeploymentNames(t *testing.T) {
	dir := t.TempDir()
	a := newProgram(t, builtA, handlersA())
	node := a.node(dir, cluster.WithDeployment("v1"))
	mustStart(t, node)
	stopNode(t, node)
	more := newProgram(t, strings.Replace(builtA, "message St {", "message St { int32 more = 9;", 1), handlersA())
	if err := more.node(dir, cluster.WithDeployment("v1")).Start(t.Context()); err == nil || !strings.Contains(err.Error(), "v1 is the name of another build") {
		t.Error(err)
	}
	if err := more.node(dir, cluster.WithDeployment("no spaces")).Start(t.Context()); err == nil || !strings.Contains(err.Error(), `deployment is "no spaces"`) {
		t.Error(err)
	}
}

// TestDeploymentsFile: a catalog that is damaged is told, and one that is missing is made anew.
func TestDeploymentsFile(t *testing.T) {
	dir := t.TempDir()
	a := newProgram(t, builtA, handlersA())
	node := a.node(dir)
	mustStart(t, node)
	stopNode(t, node)
	path := filepath.Join(dir, "deployments")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, damaged := range map[string][]byte{
		"flipped": append(append([]byte{}, data[:len(data)-1]...), data[len(data)-1]^1), "short": data[:len(data)/2], "empty": {},
	} {
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := a.node(dir).Start(t.Context()); err == nil || !strings.Contains(err.Error(), path+" is damaged") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := os.WriteFile(path, append([]byte("PDEP\x02"), data[5:]...), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := a.node(dir).Start(t.Context()); err == nil || !strings.Contains(err.Error(), "format 2") {
		t.Error(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	node = a.node(dir)
	mustStart(t, node)
	stopNode(t, node)
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}
