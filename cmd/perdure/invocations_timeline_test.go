package main

import (
	"testing"

	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

func TestWaitingFor(t *testing.T) {
	suspended := adminv1.InvocationStatus_INVOCATION_STATUS_SUSPENDED
	for _, test := range []struct {
		status  adminv1.InvocationStatus
		attempt uint32
		waits   []uint32
		want    string
	}{
		{adminv1.InvocationStatus_INVOCATION_STATUS_RUNNING, 1, []uint32{3}, ""},
		{suspended, 1, nil, ""},
		{suspended, 2, []uint32{3, 5}, "entry 3, 5"},
		{suspended, 1, []uint32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, "entry 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 2 more"},
		{suspended, 0, []uint32{0}, "its journal, which is being copied"},
	} {
		if got := waitingFor(&adminv1.Invocation{Status: test.status, Attempt: test.attempt, WaitingFor: test.waits}); got != test.want {
			t.Errorf("%s in attempt %d for %v: %q, want %q", test.status, test.attempt, test.waits, got, test.want)
		}
	}
}

// TestWhereItFailed: the error that an invocation ended with and the failure of an attempt before that are each
// shown with their own entry.
func TestWhereItFailed(t *testing.T) {
	inv := &adminv1.Invocation{
		LastFailure: &adminv1.Error{Code: perdurev1.Code_CODE_UNAVAILABLE, Message: "no line"}, Error: &adminv1.Error{Code: perdurev1.Code_CODE_DEADLINE_EXCEEDED, Message: "it took too long"},
		Failures: []*adminv1.Failure{{Entry: 1, Step: `Run "pay"`}, {Entry: 3, Step: "Sleep", Terminal: true}},
	}
	if got, want := lastFailure(inv), `unavailable: no line (at entry 1: Run "pay")`; got != want {
		t.Errorf("the last failure is %q, want %q", got, want)
	}
	if got, want := errorText(inv), "deadline_exceeded: it took too long (at entry 3: Sleep)"; got != want {
		t.Errorf("the error is %q, want %q", got, want)
	}
	inv.Failures = inv.Failures[:1]
	if got, want := errorText(inv), "deadline_exceeded: it took too long"; got != want {
		t.Errorf("the error of a journal that says nothing of it is %q, want %q", got, want)
	}
	if got := errorText(&adminv1.Invocation{Failures: inv.Failures}); got != "" {
		t.Errorf("without an error there is %q", got)
	}
}
