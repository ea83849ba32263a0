package main

import (
	"testing"

	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
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
