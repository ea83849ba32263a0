package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/routing"
	"github.com/perdure/perdure/internal/routing/routingtest"
	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

// saying is a router whose partitions say what it holds.
type saying struct {
	routingtest.Fake
	parts []routing.Transaction
	err   error
}

func (s *saying) Transactions(context.Context) ([]routing.Transaction, error) {
	return slices.Clone(s.parts), s.err
}

func second(n int) time.Time {
	return time.UnixMilli(1_800_000_000_000).Add(time.Duration(n) * time.Second)
}

func lock(key string, by ...string) routing.TransactionLock {
	return routing.TransactionLock{Object: invocation.Object{Service: bank.AccountServiceName, Key: key}, By: by}
}

func transfer() invocation.Target {
	return invocation.Target{Service: bank.TransferServiceName, Handler: "Transfer"}
}

// told is a service of a node with eight partitions, of which the given one refuses to serve.
func told(t *testing.T, failed uint32, parts ...routing.Transaction) *Service {
	t.Helper()
	s, err := New(Config{
		Router: &saying{parts: parts}, Logger: slog.New(slog.DiscardHandler), Now: func() time.Time { return second(100) },
		Node: func() NodeInfo {
			var info NodeInfo
			for id := uint32(1); id <= 8; id++ {
				one := PartitionInfo{ID: id, Leader: id != failed}
				if id == failed {
					one.Failure = errors.New("record 7: checksum differs")
				}
				info.Partitions = append(info.Partitions, one)
			}
			return info
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestPhaseNumbersAreThoseOfTheRouter(t *testing.T) {
	for phase, want := range map[routing.TransactionPhase]adminv1.TransactionPhase{
		routing.TransactionRunning: adminv1.TransactionPhase_TRANSACTION_PHASE_RUNNING, routing.TransactionPreparing: adminv1.TransactionPhase_TRANSACTION_PHASE_PREPARING,
		routing.TransactionPrepared: adminv1.TransactionPhase_TRANSACTION_PHASE_PREPARED, routing.TransactionCommitted: adminv1.TransactionPhase_TRANSACTION_PHASE_COMMITTED,
		routing.TransactionRollingBack: adminv1.TransactionPhase_TRANSACTION_PHASE_ROLLING_BACK,
	} {
		if int(phase) != int(want) {
			t.Errorf("phase %d is %s, number %d", phase, want, want)
		}
	}
	if len(adminv1.TransactionPhase_name) != 6 {
		t.Errorf("AdminService has %d phases, the router 5", len(adminv1.TransactionPhase_name)-1)
	}
}

// TestGetTransaction merges a coordinator in its second try with a participant of each try.
func TestGetTransaction(t *testing.T) {
	root := number(6) // of partition 7 of 8
	s := told(t, 0,
		routing.Transaction{Root: root, Sequence: 1<<32 | 4, Partition: 9, Phase: routing.TransactionPrepared, At: second(1), Since: second(5), Held: []routing.TransactionLock{lock("bob")}},
		routing.Transaction{Root: root, Sequence: 1<<32 | 3, Partition: 3, Phase: routing.TransactionPrepared, At: second(1), Since: second(4)},
		routing.Transaction{Root: root, Sequence: 1<<32 | 4, Partition: 3, Phase: routing.TransactionRunning, At: second(1), Since: second(6),
			Waiting: []routing.TransactionLock{lock("carla", slices.Repeat([]string{"inv_x"}, 25)...)}, Reason: "an older one is before it"},
		routing.Transaction{Root: number(2), Partition: 1, Coordinator: true, Phase: routing.TransactionRunning, At: second(2), Since: second(2)},
		routing.Transaction{Root: root, Sequence: 1<<32 | 4, Partition: 7, Coordinator: true, Phase: routing.TransactionPreparing, Target: transfer(),
			At: second(1), Since: second(7), Try: 2, Members: []uint32{3, 9}, Held: slices.Repeat([]routing.TransactionLock{lock("alice")}, maxLocks+1)},
	)
	response, err := s.getTransaction(t.Context(), &adminv1.GetTransactionRequest{RootInvocationId: root.String()})
	if err != nil {
		t.Fatal(err)
	}
	got := response.Transaction
	if got.RootInvocationId != root.String() || got.Target.GetHandler() != "Transfer" || got.Phase != adminv1.TransactionPhase_TRANSACTION_PHASE_PREPARING ||
		!got.InDoubt || !got.InDoubtSince.AsTime().Equal(second(4)) || !got.AcceptedAt.AsTime().Equal(second(1)) || !got.PhaseSince.AsTime().Equal(second(7)) ||
		got.Try != 2 || got.CoordinatorPartition != 7 || !response.At.AsTime().Equal(second(100)) {
		t.Errorf("got %v", got)
	}
	var order []string
	for _, part := range got.Parts {
		order = append(order, fmt.Sprint(part.Partition, part.Coordinator, uint32(part.Sequence)))
	}
	if want := []string{"7 true 4", "3 false 4", "3 false 3", "9 false 4"}; !slices.Equal(order, want) {
		t.Fatalf("the parts are %q, want %q", order, want)
	}
	coordinator, waiting := got.Parts[0], got.Parts[1]
	if len(coordinator.Held) != maxLocks || coordinator.HeldCount != maxLocks+1 || !slices.Equal(coordinator.Members, []uint32{3, 9}) {
		t.Errorf("the coordinator has %d locks of %d, members %v", len(coordinator.Held), coordinator.HeldCount, coordinator.Members)
	}
	if by := waiting.Waiting[0].HeldBy; waiting.Reason != "an older one is before it" || len(by) != maxHolders+1 || by[maxHolders] != "5 more" {
		t.Errorf("the participant waits for %v: %s", waiting.Waiting, waiting.Reason)
	}
	want := "It commits as soon as every participant has promised to. It is tried again if one has lost its part, and taken back when its time is over. " +
		"Partitions 3 and 9 have promised to commit and keep their objects until then."
	if got.Explanation != want {
		t.Errorf("it says %q", got.Explanation)
	}

	_, err = s.getTransaction(t.Context(), &adminv1.GetTransactionRequest{RootInvocationId: number(5).String()})
	wantCode(t, err, routing.CodeNotFound, "is under way: it has ended, or it has called no other object")
	_, err = s.getTransaction(t.Context(), &adminv1.GetTransactionRequest{})
	wantCode(t, err, routing.CodeInvalidArgument, "rootInvocationId is empty")
	_, err = s.getTransaction(t.Context(), &adminv1.GetTransactionRequest{RootInvocationId: "x"})
	wantCode(t, err, routing.CodeInvalidArgument, "is not an invocation id")
}

// TestExplanation: a person learns what is waited for, whatever phase it stands in and whoever
// is left to speak of it.
func TestExplanation(t *testing.T) {
	root := number(6) // of partition 7 of 8
	coordinator := func(phase routing.TransactionPhase, members ...uint32) routing.Transaction {
		return routing.Transaction{Root: root, Sequence: 2, Partition: 7, Coordinator: true, Phase: phase, Members: members}
	}
	participant := func(partition uint32, phase routing.TransactionPhase) routing.Transaction {
		return routing.Transaction{Root: root, Sequence: 2, Partition: partition, Phase: phase}
	}
	for _, test := range []struct {
		name   string
		failed uint32
		parts  []routing.Transaction
		phase  adminv1.TransactionPhase
		doubt  bool
		want   string
	}{
		{"running", 0, []routing.Transaction{coordinator(routing.TransactionRunning), participant(3, routing.TransactionRunning)}, 1, false,
			"Its handlers are at work, or wait for an object. Nothing is promised yet"},
		{"preparing", 0, []routing.Transaction{coordinator(routing.TransactionPreparing), participant(3, routing.TransactionRunning)}, 2, false,
			"It commits as soon as every participant has promised to"},
		{"committed, not heard", 0, []routing.Transaction{coordinator(routing.TransactionCommitted, 3), participant(3, routing.TransactionPrepared)}, 4, true,
			"It has committed. Partition 3 has its part not on disk yet, and is told again until it says so."},
		{"committed, one of them silent", 0, []routing.Transaction{coordinator(routing.TransactionCommitted, 9, 3), participant(3, routing.TransactionPrepared)}, 4, true,
			"Partitions 3 and 9 have their part not on disk yet, and are told again until they say so."},
		{"rolling back", 0, []routing.Transaction{coordinator(routing.TransactionRollingBack)}, 5, false, "is being taken back"},
		{"an earlier try's promise", 0, []routing.Transaction{coordinator(routing.TransactionRunning), participant(3, routing.TransactionPrepared)}, 1, true,
			"Another try is under way. Partition 3 asks about an earlier one that never committed, and lets go at the answer."},
		{"nobody decides", 7, []routing.Transaction{participant(3, routing.TransactionPrepared), participant(4, routing.TransactionPrepared)}, 3, true,
			"Partitions 3 and 4 have promised to commit, and ask partition 7, or the participant that it has handed the decision on to, until that answers. " +
				"No decision there means that it never committed."},
		{"nobody to tell", 3, []routing.Transaction{coordinator(routing.TransactionCommitted, 9, 3)}, 4, false, "Partitions 3 and 9 have their part not on disk yet"},
		{"the coordinator has forgotten", 0, []routing.Transaction{participant(3, routing.TransactionPrepared)}, 3, true, "asks partition 7, or the participant"},
		{"left over", 0, []routing.Transaction{participant(3, routing.TransactionRunning)}, 1, false, "Partition 7, where it began, does not speak of it"},
	} {
		s := told(t, test.failed, test.parts...)
		response, err := s.getTransaction(t.Context(), &adminv1.GetTransactionRequest{RootInvocationId: root.String()})
		if err != nil {
			t.Fatal(err)
		}
		got := response.Transaction
		if got.Phase != test.phase || got.InDoubt != test.doubt || !strings.Contains(got.Explanation, test.want) || got.CoordinatorPartition != 7 {
			t.Errorf("%s: phase %s, in doubt %v, coordinator %d, %q; want %q", test.name, got.Phase, got.InDoubt, got.CoordinatorPartition, got.Explanation, test.want)
		}
		obstacle := ""
		if test.failed > 0 {
			obstacle = fmt.Sprintf("partition %d refuses to serve: record 7: checksum differs", test.failed)
		}
		if got.Obstacle != obstacle || got.Target != nil {
			t.Errorf("%s: obstacle %q, want %q; target %v", test.name, got.Obstacle, obstacle, got.Target)
		}
	}
	// A participant has decided, and the coordinator has not heard of it.
	decided := routing.Transaction{Root: root, Sequence: 2, Partition: 9, Coordinator: true, Phase: routing.TransactionCommitted, Members: []uint32{3}}
	response, err := told(t, 0, coordinator(routing.TransactionPreparing, 3, 9), participant(3, routing.TransactionPrepared), decided).
		getTransaction(t.Context(), &adminv1.GetTransactionRequest{RootInvocationId: root.String()})
	if err != nil || response.Transaction.Phase != adminv1.TransactionPhase_TRANSACTION_PHASE_COMMITTED || response.Transaction.CoordinatorPartition != 9 {
		t.Errorf("decided by a participant: %v, %v", response, err)
	}
	// One that is not decided ends by itself, whoever does not answer.
	response, err = told(t, 3, coordinator(routing.TransactionPreparing, 3)).getTransaction(t.Context(), &adminv1.GetTransactionRequest{RootInvocationId: root.String()})
	if err != nil || response.Transaction.Obstacle != "" {
		t.Errorf("undecided: %v, %v", response, err)
	}
}

func TestListTransactions(t *testing.T) {
	s := told(t, 0,
		routing.Transaction{Root: number(1), Partition: 2, Coordinator: true, Phase: routing.TransactionRunning, Target: transfer(), At: second(30), Since: second(31)},
		routing.Transaction{Root: number(2), Partition: 3, Coordinator: true, Phase: routing.TransactionCommitted, Target: invocation.Target{Service: bank.AccountServiceName, Key: "a", Handler: "Deposit"}, At: second(9), Since: second(9)},
		routing.Transaction{Root: number(2), Partition: 4, Phase: routing.TransactionPrepared, At: second(10), Held: []routing.TransactionLock{lock("bob")}, Reason: "not told"},
		routing.Transaction{Root: number(3), Partition: 5, Phase: routing.TransactionPrepared, At: second(20)},
	)
	for _, test := range []struct {
		name    string
		request *adminv1.ListTransactionsRequest
		want    []int
		more    bool
	}{
		{"all", &adminv1.ListTransactionsRequest{}, []int{2, 3, 1}, false},
		{"in doubt", &adminv1.ListTransactionsRequest{InDoubt: true}, []int{2, 3}, false},
		{"of a service", &adminv1.ListTransactionsRequest{Service: bank.TransferServiceName}, []int{1}, false},
		{"both", &adminv1.ListTransactionsRequest{Service: bank.TransferServiceName, InDoubt: true}, nil, false},
		{"two", &adminv1.ListTransactionsRequest{PageSize: 2}, []int{2, 3}, true},
		{"just all", &adminv1.ListTransactionsRequest{PageSize: 3}, []int{2, 3, 1}, false},
	} {
		response, err := s.listTransactions(t.Context(), test.request)
		if err != nil {
			t.Fatal(err)
		}
		var got, want []string
		for _, one := range response.Transactions {
			got = append(got, one.RootInvocationId)
			for _, part := range one.Parts {
				if len(part.Held) > 0 {
					t.Errorf("%s: a list holds objects", test.name)
				}
			}
		}
		for _, n := range test.want {
			want = append(want, number(n).String())
		}
		if !slices.Equal(got, want) || response.More != test.more {
			t.Errorf("%s: got %v, more %v; want %v, %v", test.name, got, response.More, want, test.more)
		}
	}
	response, err := s.listTransactions(t.Context(), &adminv1.ListTransactionsRequest{InDoubt: true, PageSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	if part := response.Transactions[0].Parts[1]; part.HeldCount != 1 || part.Reason != "not told" {
		t.Errorf("the participant is %v", part)
	}
	if at := response.Transactions[0].AcceptedAt; !at.AsTime().Equal(second(10)) {
		t.Errorf("accepted at %v: the decision's time?", at.AsTime())
	}
	_, err = s.listTransactions(t.Context(), &adminv1.ListTransactionsRequest{PageSize: 1001})
	wantCode(t, err, routing.CodeInvalidArgument, "at most 1000")
}

// TestTransactionsCutOff: what the router leaves out is not taken for what is not there.
func TestTransactionsCutOff(t *testing.T) {
	var parts []routing.Transaction
	for n := range routing.MaxPage {
		parts = append(parts, routing.Transaction{Root: number(n + 1), Partition: 1, Coordinator: true, Phase: routing.TransactionRunning, At: second(n)})
	}
	s := told(t, 0, parts...)
	response, err := s.listTransactions(t.Context(), &adminv1.ListTransactionsRequest{InDoubt: true})
	if err != nil || !response.More || len(response.Transactions) != 0 {
		t.Errorf("got %v, %v", response, err)
	}
	_, err = s.getTransaction(t.Context(), &adminv1.GetTransactionRequest{RootInvocationId: number(5000).String()})
	wantCode(t, err, routing.CodeNotFound, "among the 1000 oldest")

	s = newService(t, &saying{err: routing.Errorf(routing.CodeUnavailable, "partition 3 did not answer")})
	_, err = s.listTransactions(t.Context(), &adminv1.ListTransactionsRequest{})
	wantCode(t, err, routing.CodeUnavailable, "partition 3")
}
