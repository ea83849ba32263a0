package cluster_test

import (
	"net/http"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/cluster"
	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

// refusedCall is the error with which the admin service answers, as JSON; empty if it did what it was asked.
func refusedCall(t *testing.T, node *cluster.Node, name string, in proto.Message) string {
	t.Helper()
	body, err := protojson.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	status, text := request(t, node.URL()+"/perdure.admin.v1.AdminService/"+name, string(body))
	if status == http.StatusOK {
		return ""
	}
	return text
}

// TestResumeOnAnotherDeployment: a paused invocation goes on with a build that runs and can read its
// journal, and with no other.
func TestResumeOnAnotherDeployment(t *testing.T) {
	dir := t.TempDir()
	a := newProgram(t, builtA, handlersA())
	node := a.node(dir, cluster.WithDeployment("a"))
	mustStart(t, node)
	id := a.send(t, node, "Thing/Wait", "k", "").ID()
	pause := func() {
		t.Helper()
		adminCall(t, node, "PauseInvocation", &adminv1.PauseInvocationRequest{InvocationId: id}, &adminv1.PauseInvocationResponse{})
	}
	status := func() (adminv1.InvocationStatus, string) {
		t.Helper()
		found := &adminv1.GetInvocationResponse{}
		adminCall(t, node, "GetInvocation", &adminv1.GetInvocationRequest{InvocationId: id}, found)
		return found.GetInvocation().GetStatus(), found.GetInvocation().GetDeployment()
	}
	refused := func(on string, parts ...string) {
		t.Helper()
		batch := &adminv1.BatchInvocationsRequest{
			Operation: adminv1.InvocationOperation_INVOCATION_OPERATION_RESUME, ResumeDeployment: on, Invocations: &adminv1.ListInvocationsRequest{},
		}
		one := refusedCall(t, node, "ResumeInvocation", &adminv1.ResumeInvocationRequest{InvocationId: id, Deployment: on})
		many := refusedCall(t, node, "BatchInvocations", batch)
		if many == "" { // It names each that it left.
			page := &adminv1.BatchInvocationsResponse{}
			adminCall(t, node, "BatchInvocations", batch, page)
			if page.GetDone() != 0 || page.GetFailed() != 1 {
				t.Errorf("batch on %s: %v", on, page)
			}
			many = page.GetFailures()[0].GetError().GetMessage()
		}
		for _, part := range parts {
			if !strings.Contains(one, part) || !strings.Contains(many, part) {
				t.Errorf("on %s: %q is not in both of\n%s\n%s", on, part, one, many)
			}
		}
		if is, _ := status(); is != adminv1.InvocationStatus_INVOCATION_STATUS_PAUSED {
			t.Errorf("on %s: refused, and it is %s", on, is)
		}
	}
	pause()
	refused("z", "no deployment", "there are: a")
	stopNode(t, node)

	// It was forced to start, and can't read the state that the invocation's object has.
	b := newProgram(t, builtBroken, handlersA())
	node = b.node(dir, cluster.WithDeployment("b"), cluster.WithBreakingChanges())
	mustStart(t, node)
	refused("a", "deployment a does not run", "this node runs b")
	refused("b", "deployment b can't read", "t.v1.St.value: was string and is int64")
	refused("latest", "t.v1.St.value: was string and is int64")
	stopNode(t, node)

	c := newProgram(t, strings.Replace(builtA, "rpc Set(", "rpc Put(Req) returns (Res); rpc Set(", 1), handlersA())
	node = c.node(dir, cluster.WithDeployment("c"), cluster.WithBreakingChanges()) // b's state is string again
	mustStart(t, node)
	adminCall(t, node, "ResumeInvocation", &adminv1.ResumeInvocationRequest{InvocationId: id, Deployment: "c"}, &adminv1.ResumeInvocationResponse{})
	if is, on := status(); is == adminv1.InvocationStatus_INVOCATION_STATUS_PAUSED || on != "c" {
		t.Errorf("it is %s on %q", is, on)
	}
	pause()
	page := &adminv1.BatchInvocationsResponse{}
	adminCall(t, node, "BatchInvocations", &adminv1.BatchInvocationsRequest{
		Operation: adminv1.InvocationOperation_INVOCATION_OPERATION_RESUME, ResumeDeployment: "latest", Invocations: &adminv1.ListInvocationsRequest{},
	}, page)
	if page.GetDone() != 1 {
		t.Errorf("batch: %v", page)
	}
	if text := refusedCall(t, node, "BatchInvocations", &adminv1.BatchInvocationsRequest{
		Operation: adminv1.InvocationOperation_INVOCATION_OPERATION_PAUSE, ResumeDeployment: "c", Invocations: &adminv1.ListInvocationsRequest{},
	}); !strings.Contains(text, "only what is resumed") {
		t.Error(text)
	}
	stopNode(t, node)
}
