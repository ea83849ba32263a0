package admin

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/routing"
	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

const (
	// maxLocks and maxHolders bound what is shown of a transaction's part and of one object.
	maxLocks   = 1000
	maxHolders = 20
)

// transaction is what the partitions say about one, before it is made a message.
type transaction struct {
	root invocation.ID
	// parts in the order in which they are shown.
	parts []routing.Transaction
	// prepared are the participants' partitions that have not heard the decision.
	prepared []uint32
	// coordinator is the part that decides; nil if nobody says to be it.
	coordinator *routing.Transaction
}

// merged puts together what partitions say about the same transaction, oldest first.
func merged(all []routing.Transaction) []*transaction {
	byRoot := map[invocation.ID]*transaction{}
	var found []*transaction
	for _, part := range all {
		t := byRoot[part.Root]
		if t == nil {
			t = &transaction{root: part.Root}
			byRoot[part.Root] = t
			found = append(found, t)
		}
		t.parts = append(t.parts, part)
	}
	for _, t := range found {
		slices.SortFunc(t.parts, partOrder)
		for i := range t.parts {
			part := &t.parts[i]
			switch {
			case part.Coordinator && (t.coordinator == nil || part.Phase == routing.TransactionCommitted):
				t.coordinator = part // of the latest try, or the participant that has decided
			case !part.Coordinator && part.Phase == routing.TransactionPrepared:
				t.prepared = append(t.prepared, part.Partition)
			}
		}
		t.prepared = slices.Compact(t.prepared) // of two tries
	}
	slices.SortStableFunc(found, func(a, b *transaction) int {
		return cmp.Or(a.place().Compare(b.place()), bytes.Compare(a.root[:], b.root[:]))
	})
	return found
}

// partOrder has the coordinator first, then partition after partition, each with the latest try
// first.
func partOrder(a, b routing.Transaction) int {
	switch {
	case a.Coordinator && !b.Coordinator:
		return -1
	case !a.Coordinator && b.Coordinator:
		return 1
	}
	return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(b.Sequence, a.Sequence))
}

// acceptedAt is the earliest that a part says. All mean the same instant but a decision, whose At
// is when it was made.
func (t *transaction) acceptedAt() (earliest time.Time) {
	for _, part := range t.parts {
		if part.Phase != routing.TransactionCommitted && !unset(part.At) && (earliest.IsZero() || part.At.Before(earliest)) {
			earliest = part.At
		}
	}
	return earliest
}

// place is what lists are ordered by.
func (t *transaction) place() time.Time {
	if at := t.acceptedAt(); !at.IsZero() {
		return at
	}
	return t.leading().Since
}

// leading is the part whose phase is the transaction's.
func (t *transaction) leading() *routing.Transaction {
	if t.coordinator != nil {
		return t.coordinator
	}
	first := &t.parts[0]
	for i := range t.parts {
		part := &t.parts[i]
		prepared, before := part.Phase == routing.TransactionPrepared, first.Phase == routing.TransactionPrepared
		if prepared && !before || prepared == before && part.Since.Before(first.Since) {
			first = part
		}
	}
	return first
}

// inDoubtSince is when the first participant promised, of those that have not heard the
// decision.
func (t *transaction) inDoubtSince() (earliest time.Time) {
	for _, part := range t.parts {
		if !part.Coordinator && part.Phase == routing.TransactionPrepared && (earliest.IsZero() || part.Since.Before(earliest)) {
			earliest = part.Since
		}
	}
	return earliest
}

func (s *Service) listTransactions(ctx context.Context, request *adminv1.ListTransactionsRequest) (*adminv1.ListTransactionsResponse, error) {
	limit, err := pageSize(request.GetPageSize())
	if err != nil {
		return nil, err
	}
	all, err := s.config.Router.Transactions(ctx)
	if err != nil {
		return nil, err
	}
	response := &adminv1.ListTransactionsResponse{At: timestamppb.New(s.config.Now()), More: len(all) >= routing.MaxPage}
	in := s.layout()
	for _, t := range merged(all) {
		if request.GetInDoubt() && len(t.prepared) == 0 ||
			request.GetService() != "" && (t.coordinator == nil || t.coordinator.Target.Service != request.GetService()) {
			continue
		}
		if len(response.Transactions) == limit {
			response.More = true
			break
		}
		response.Transactions = append(response.Transactions, t.message(in, 0))
	}
	return response, nil
}

func (s *Service) getTransaction(ctx context.Context, request *adminv1.GetTransactionRequest) (*adminv1.GetTransactionResponse, error) {
	text := request.GetRootInvocationId()
	if text == "" {
		return nil, invalid("rootInvocationId is empty: it is the id of the invocation that began the transaction, as ListTransactions has it")
	}
	id, err := parseID(text)
	if err != nil {
		return nil, err
	}
	all, err := s.config.Router.Transactions(ctx)
	if err != nil {
		return nil, err
	}
	asked := len(all)
	all = slices.DeleteFunc(all, func(part routing.Transaction) bool { return part.Root != id })
	switch {
	case len(all) > 0:
		return &adminv1.GetTransactionResponse{
			Transaction: merged(all)[0].message(s.layout(), maxLocks), At: timestamppb.New(s.config.Now()),
		}, nil
	case asked >= routing.MaxPage:
		return nil, routing.Errorf(routing.CodeNotFound,
			"no transaction of %s is among the %d oldest entries, which is all that is looked at: try again when fewer are under way", id, routing.MaxPage)
	}
	return nil, routing.Errorf(routing.CodeNotFound,
		"no transaction of %s is under way: it has ended, or it has called no other object; if its invocation is kept, GetInvocation says how it ended", id)
}

// layout is which partitions there are, and which of them refuse to serve.
type layout struct {
	count    uint32
	failures map[uint32]error
}

func (s *Service) layout() layout {
	l := layout{failures: map[uint32]error{}}
	for _, info := range s.config.Node().Partitions {
		l.count = max(l.count, info.ID)
		if info.Failure != nil {
			l.failures[info.ID] = info.Failure
		}
	}
	return l
}

// obstacle is the first of those partitions that refuses to serve, and why.
func (l layout) obstacle(needed []uint32) string {
	for _, id := range needed {
		if err := l.failures[id]; err != nil {
			return fmt.Sprintf("partition %d refuses to serve: %s", id, strings.ReplaceAll(err.Error(), "\n", "; "))
		}
	}
	return ""
}

// message shows at most so many locks of each part.
func (t *transaction) message(in layout, locks int) *adminv1.Transaction {
	leading := t.leading()
	out := &adminv1.Transaction{
		RootInvocationId: t.root.String(), Phase: adminv1.TransactionPhase(leading.Phase), PhaseSince: moment(leading.Since),
		InDoubt: len(t.prepared) > 0, InDoubtSince: moment(t.inDoubtSince()), AcceptedAt: moment(t.acceptedAt()),
	}
	if c := t.coordinator; c != nil {
		out.CoordinatorPartition = c.Partition
		if c.Phase == routing.TransactionCommitted { // one that is not decided ends when its time is over
			out.Obstacle = in.obstacle(c.Members)
		}
		if c.Target.Service != "" {
			out.Target = &adminv1.Target{Service: c.Target.Service, Key: c.Target.Key, Handler: c.Target.Handler}
		}
	} else if in.count > 0 {
		out.CoordinatorPartition = t.root.Partition(in.count)
		out.Obstacle = in.obstacle([]uint32{out.CoordinatorPartition})
	}
	for _, part := range t.parts {
		out.Try = max(out.Try, part.Try)
		shown := &adminv1.TransactionPart{
			Partition: part.Partition, Coordinator: part.Coordinator, Phase: adminv1.TransactionPhase(part.Phase),
			PhaseSince: moment(part.Since), Try: part.Try, Sequence: part.Sequence, Members: part.Members,
			HeldCount: uint32(len(part.Held)), WaitingCount: uint32(len(part.Waiting)), Reason: part.Reason,
		}
		for _, lock := range part.Held[:min(len(part.Held), locks)] {
			shown.Held = append(shown.Held, lockMessage(lock))
		}
		for _, lock := range part.Waiting[:min(len(part.Waiting), locks)] {
			shown.Waiting = append(shown.Waiting, lockMessage(lock))
		}
		out.Parts = append(out.Parts, shown)
	}
	out.Explanation = t.explain(out.CoordinatorPartition)
	return out
}

func lockMessage(lock routing.TransactionLock) *adminv1.TransactionLock {
	by := lock.By
	if more := len(by) - maxHolders; more > 0 {
		by = append(slices.Clone(by[:maxHolders]), fmt.Sprintf("%d more", more))
	}
	return &adminv1.TransactionLock{Service: lock.Object.Service, Key: lock.Object.Key, Shared: lock.Shared, HeldBy: by}
}

// explain says what the transaction waits for and what follows, so that nobody looks for
// something to do.
func (t *transaction) explain(coordinator uint32) string {
	if t.coordinator == nil {
		return t.explainAlone(coordinator)
	}
	doubt := ""
	if len(t.prepared) > 0 {
		doubt = " " + capital(partitions(t.prepared)) + pick(t.prepared, " has", " have") + " promised to commit and " +
			pick(t.prepared, "keeps its", "keep their") + " objects until then."
	}
	switch t.coordinator.Phase {
	case routing.TransactionPreparing:
		return "It commits as soon as every participant has promised to. It is tried again if one has lost its part, " +
			"and taken back when its time is over." + doubt
	case routing.TransactionCommitted:
		left := t.coordinator.Members
		if len(left) == 0 {
			left = t.prepared
		}
		if len(left) == 0 {
			return "It has committed, and its participants know."
		}
		return "It has committed. " + capital(partitions(left)) + pick(left, " has its", " have their") +
			" part not on disk yet, and " + pick(left, "is", "are") + " told again until " + pick(left, "it says so.", "they say so.")
	case routing.TransactionRollingBack:
		return "What it did is being taken back. Then it is tried again, or its caller gets the error."
	}
	if len(t.prepared) > 0 {
		return "Another try is under way. " + capital(partitions(t.prepared)) + pick(t.prepared, " asks", " ask") +
			" about an earlier one that never committed, and " + pick(t.prepared, "lets", "let") + " go at the answer."
	}
	return "Its handlers are at work, or wait for an object. Nothing is promised yet: a crash would take it back and free what it holds."
}

// explainAlone is explain when the coordinator says nothing.
func (t *transaction) explainAlone(coordinator uint32) string {
	name := "the coordinator"
	if coordinator > 0 {
		name = fmt.Sprintf("partition %d", coordinator)
	}
	if len(t.prepared) == 0 {
		return capital(name) + ", where it began, does not speak of it: it has just begun or ended, or was lost in a crash, " +
			"and what is left of it is let go at the next answer."
	}
	return capital(partitions(t.prepared)) + pick(t.prepared, " has", " have") + " promised to commit, and " +
		pick(t.prepared, "asks ", "ask ") + name + ", or the participant that it has handed the decision on to, until that answers. No decision there means that it never committed."
}

// partitions is "partition 3" or "partitions 3, 4 and 9".
func partitions(ids []uint32) string {
	names := make([]string, 0, len(ids))
	for _, id := range slices.Sorted(slices.Values(ids)) {
		names = append(names, fmt.Sprint(id))
	}
	if most := 10; len(names) > most {
		names = append(names[:most], fmt.Sprintf("%d more", len(ids)-most))
	}
	last := len(names) - 1
	if last == 0 {
		return "partition " + names[0]
	}
	return "partitions " + strings.Join(names[:last], ", ") + " and " + names[last]
}

func pick(ids []uint32, one, several string) string {
	if len(ids) == 1 {
		return one
	}
	return several
}

func capital(text string) string { return strings.ToUpper(text[:1]) + text[1:] }

// unset is true for what a partition does not know: no time at all, or 0 milliseconds of a row.
func unset(at time.Time) bool { return at.IsZero() || at.UnixMilli() == 0 }

func moment(at time.Time) *timestamppb.Timestamp {
	if unset(at) {
		return nil
	}
	return timestamppb.New(at)
}
