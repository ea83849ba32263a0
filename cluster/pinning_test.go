package cluster_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/cluster"
	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

// adminCall calls an rpc of the admin service.
func adminCall(t testing.TB, node *cluster.Node, name string, in, out proto.Message) {
	t.Helper()
	body, err := protojson.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.Post(node.URL()+"/perdure.admin.v1.AdminService/"+name, "application/json", bytes.NewReader(body)) //nolint:noctx // ends with the node
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode == http.StatusOK {
		err = protojson.Unmarshal(data, out)
	}
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %s %v", name, response.Status, data, err)
	}
}

// awaitInvocation looks at an invocation until it is as it should be.
func awaitInvocation(t testing.TB, node *cluster.Node, id string, is func(*adminv1.Invocation) bool) *adminv1.Invocation {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		found := &adminv1.GetInvocationResponse{}
		adminCall(t, node, "GetInvocation", &adminv1.GetInvocationRequest{InvocationId: id}, found)
		if is(found.GetInvocation()) {
			return found.GetInvocation()
		}
		if time.Now().After(deadline) {
			t.Fatal(found)
		}
	}
}

func inFlightOn(t testing.TB, node *cluster.Node) map[string]uint64 {
	t.Helper()
	found, counts := &adminv1.ListDeploymentsResponse{}, map[string]uint64{}
	adminCall(t, node, "ListDeployments", &adminv1.ListDeploymentsRequest{}, found)
	for _, d := range found.GetDeployments() {
		counts[d.GetId()] = d.GetInFlight()
	}
	return counts
}

// begin starts deployment a with a handler that waits for a signal, and stops it.
func begin(t *testing.T, dir string, opts ...cluster.Option) *actor.Invocation[*mixin] {
	t.Helper()
	a := newProgram(t, builtA, handlers{"Flow/Run": func(ctx actor.Context, _ string) (string, error) {
		if err := textDo(ctx, "first"); err != nil {
			return "", err
		}
		_, err := actor.InboxOf[*mixin](ctx, "Tell").Receive(ctx)
		return "by a", err
	}})
	node := a.node(dir, append(opts, cluster.WithDeployment("a"))...)
	mustStart(t, node)
	flow := a.send(t, node, "Flow/Run", "f", "")
	awaitInvocation(t, node, flow.ID(), func(i *adminv1.Invocation) bool { return i.GetDeployment() == "a" && i.GetEntries() >= 2 })
	if got := inFlightOn(t, node); got["a"] != 1 {
		t.Error(got)
	}
	stopNode(t, node)
	return flow
}

func textDo(ctx actor.Context, name string) error {
	_, err := actor.Run(ctx, name, func(context.Context) (string, error) { return name, nil })
	return err
}

// TestMovesOn: what one deployment began goes on with the next, and says so.
func TestMovesOn(t *testing.T) {
	for name, opts := range waysOnDisk {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			flow := begin(t, dir, opts...)
			b := newProgram(t, builtA, handlers{"Flow/Run": func(ctx actor.Context, _ string) (string, error) {
				if err := textDo(ctx, "first"); err != nil {
					return "", err
				}
				got, err := actor.InboxOf[*mixin](ctx, "Tell").Receive(ctx)
				if err != nil {
					return "", err
				}
				return "by b: " + got.GetRoot(), textDo(ctx, "second")
			}})
			node := b.node(dir, append(opts, cluster.WithDeployment("b"))...)
			mustStart(t, node)
			defer stopNode(t, node)
			b.send(t, node, "Flow/Tell", "f", "go on")
			ended := awaitInvocation(t, node, flow.ID(), func(i *adminv1.Invocation) bool { return i.GetCompletedAt() != nil })
			if ended.GetStatus() != adminv1.InvocationStatus_INVOCATION_STATUS_SUCCEEDED || ended.GetDeployment() != "b" ||
				strings.Join(ended.GetEarlierDeployments(), " ") != "a" {
				t.Error(ended)
			}
			if got := inFlightOn(t, node); got["a"] != 0 || got["b"] != 0 {
				t.Error(got)
			}
			for deployment, want := range map[string]string{"": flow.ID(), "a": "", "b": flow.ID()} {
				listed, ids := &adminv1.ListInvocationsResponse{}, ""
				adminCall(t, node, "ListInvocations", &adminv1.ListInvocationsRequest{Service: "t.v1.Flow", Handler: "Run", Deployment: deployment}, listed)
				for _, i := range listed.GetInvocations() {
					ids += i.GetId()
				}
				if ids != want {
					t.Errorf("of deployment %q: %q, want %q", deployment, ids, want)
				}
			}
			adminCall(t, node, "RemoveDeployment", &adminv1.RemoveDeploymentRequest{Id: "a"}, &adminv1.RemoveDeploymentResponse{})
		})
	}
}

// waysOnDisk are ways to run the nodes of tests that start several on one directory.
var waysOnDisk = map[string][]cluster.Option{
	"plain":                nil,
	"suspended at once":    {cluster.WithInactivityTimeout(time.Nanosecond)},
	"crash at every entry": {cluster.WithCrashAtEveryEntry()},
}

// TestDivergenceNamesDeployments: code that can't go on with a journal is told whose it is.
func TestDivergenceNamesDeployments(t *testing.T) {
	dir := t.TempDir()
	flow := begin(t, dir)
	b := newProgram(t, builtA, handlers{"Flow/Run": func(ctx actor.Context, _ string) (string, error) {
		return "", textDo(ctx, "another")
	}})
	node := b.node(dir, cluster.WithDeployment("b"))
	mustStart(t, node)
	defer stopNode(t, node)
	b.send(t, node, "Flow/Tell", "f", "go on")
	failed := awaitInvocation(t, node, flow.ID(), func(i *adminv1.Invocation) bool { return i.GetDivergence() != nil })
	const want = "; the journal is of deployment a, the code of b: "
	if got := failed.GetLastFailure().GetMessage(); !strings.Contains(got, want) {
		t.Error(got)
	}
	if first := failed.GetDivergence().GetFields()[0]; first.GetName() != "deployment" || first.GetRecorded() != "a" || first.GetMade() != "b" {
		t.Error(first)
	}
}

// TestVanishedHandler: an invocation whose handler the build lacks pauses, and says what it needs.
func TestVanishedHandler(t *testing.T) {
	dir := t.TempDir()
	flow := begin(t, dir, cluster.WithInactivityTimeout(time.Nanosecond))
	b := newProgram(t, builtA, nil)
	delete(b.services, "Flow")
	node := b.node(dir, cluster.WithDeployment("b"), cluster.WithBreakingChanges())
	mustStart(t, node)
	adminCall(t, node, "CancelInvocation", &adminv1.CancelInvocationRequest{InvocationId: flow.ID()}, &adminv1.CancelInvocationResponse{}) // wakes it
	paused := awaitInvocation(t, node, flow.ID(), func(i *adminv1.Invocation) bool {
		return i.GetStatus() == adminv1.InvocationStatus_INVOCATION_STATUS_PAUSED
	})
	if got := paused.GetLastFailure().GetMessage(); !strings.Contains(got, "no handler t.v1.Flow/Run is registered on this node, which is deployment b; deployment a has begun the invocation") {
		t.Error(got)
	}
	stopNode(t, node)
}

// TestVanishedHandlerOfAnEmptyJournal: an invocation that has recorded nothing says too which
// deployment had its handler, also after others that lacked it.
func TestVanishedHandlerOfAnEmptyJournal(t *testing.T) {
	dir := t.TempDir()
	a := newProgram(t, builtA, handlers{"Flow/Run": func(ctx actor.Context, _ string) (string, error) {
		<-ctx.Done()
		return "", ctx.Err()
	}})
	node := a.node(dir, cluster.WithDeployment("a"))
	mustStart(t, node)
	flow := a.send(t, node, "Flow/Run", "k", "")
	awaitInvocation(t, node, flow.ID(), func(i *adminv1.Invocation) bool { return i.GetDeployment() == "a" })
	stopNode(t, node)
	for _, name := range []string{"b", "c"} {
		next := newProgram(t, builtA, nil)
		delete(next.services, "Flow")
		node = next.node(dir, cluster.WithDeployment(name), cluster.WithBreakingChanges())
		mustStart(t, node)
		if name == "c" {
			adminCall(t, node, "ResumeInvocation", &adminv1.ResumeInvocationRequest{InvocationId: flow.ID()}, &adminv1.ResumeInvocationResponse{})
		}
		want := "no handler t.v1.Flow/Run is registered on this node, which is deployment " + name +
			"; deployment a was the last to have it: start a build that has the handler, or kill the invocation"
		awaitInvocation(t, node, flow.ID(), func(i *adminv1.Invocation) bool {
			return i.GetStatus() == adminv1.InvocationStatus_INVOCATION_STATUS_PAUSED && strings.Contains(i.GetLastFailure().GetMessage(), want)
		})
		stopNode(t, node)
	}
}
