package peer

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/perdure/perdure/internal/invocation"
	peerv1 "github.com/perdure/perdure/internal/peer/v1"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
)

func idOf(id invocation.ID) *peerv1.InvocationID { return &peerv1.InvocationID{Id: id[:]} }

// idFrom is the zero ID for anything that is none.
func idFrom(data []byte) invocation.ID {
	id, _ := invocation.IDFromBytes(data)
	return id
}

// pageSize keeps the meaning of a limit: 0 stays, and what is out of range is the most.
func pageSize(limit int) int32 {
	if limit < 0 || limit > routing.MaxPage {
		return routing.MaxPage
	}
	return int32(limit)
}

func resultOf(answer *peerv1.Answer) (*recordv1.Result, bool) {
	return answer.GetResult(), answer.GetResult() != nil
}

func scheduleOf(answer *peerv1.Answer) (*recordv1.ScheduleReply, bool) {
	return answer.GetSchedule(), answer.GetSchedule() != nil
}

// failureFrom is an error as another node is told of it.
func failureFrom(err error) *peerv1.Failure {
	failed, ok := errors.AsType[*routing.Error](err)
	switch {
	case !ok && errors.Is(err, context.DeadlineExceeded):
		return &peerv1.Failure{Code: uint32(routing.CodeDeadlineExceeded), Message: "the time for the request is over", Timeout: true}
	case !ok:
		return &peerv1.Failure{Code: uint32(routing.CodeInternal), Message: strings.ToValidUTF8(err.Error(), "?")}
	}
	failure := &peerv1.Failure{Code: uint32(failed.Code), Message: strings.ToValidUTF8(failed.Message, "?"), Details: failed.Details}
	if e := failed.Elsewhere; e != nil {
		failure.Elsewhere = elsewhereFrom(e)
	}
	return failure
}

func failureOf(failure *peerv1.Failure) error {
	if failure.Timeout {
		return context.DeadlineExceeded
	}
	err := &routing.Error{Code: routing.Code(failure.Code), Message: failure.Message, Details: failure.Details}
	if e := failure.Elsewhere; e != nil {
		err.Elsewhere = &routing.Elsewhere{Partition: e.Partition, Leader: e.Leader, Term: e.Term, Untouched: e.Untouched}
	}
	return err
}

func elsewhereFrom(e *routing.Elsewhere) *peerv1.Elsewhere {
	return &peerv1.Elsewhere{Partition: e.Partition, Leader: e.Leader, Term: e.Term, Untouched: e.Untouched}
}

func journalOf(detail *routing.InvocationDetail) *peerv1.Journal {
	journal := &peerv1.Journal{Row: detail.Row, Entries: detail.Journal, After: detail.After, More: detail.More, Tries: detail.Tries}
	for _, index := range slices.Sorted(maps.Keys(detail.Completions)) {
		journal.Completions = append(journal.Completions, detail.Completions[index])
	}
	return journal
}

func journalFrom(id invocation.ID, journal *peerv1.Journal) *routing.InvocationDetail {
	detail := &routing.InvocationDetail{
		ID: id, Row: journal.GetRow(), Journal: journal.GetEntries(), After: journal.GetAfter(), More: journal.GetMore(),
		Completions: map[uint32]*recordv1.Completion{}, Tries: journal.GetTries(),
	}
	if detail.Row == nil {
		detail.Row = &recordv1.Invocation{}
	}
	for _, completion := range journal.GetCompletions() {
		detail.Completions[completion.Entry] = completion
	}
	return detail
}

func stateOf(state *routing.ObjectState) *peerv1.State {
	out := &peerv1.State{State: state.State, Has: state.Has}
	for _, name := range slices.Sorted(maps.Keys(state.Tables)) {
		page := state.Tables[name]
		table := &peerv1.Table{Name: name, Size: page.Size, More: page.More}
		for _, row := range page.Rows {
			table.Rows = append(table.Rows, &peerv1.Row{Key: []byte(row.Key), Value: row.Value})
		}
		out.Tables = append(out.Tables, table)
	}
	return out
}

func stateFrom(state *peerv1.State) *routing.ObjectState {
	out := &routing.ObjectState{State: state.GetState(), Has: state.GetHas(), Tables: map[string]*routing.Table{}}
	for _, table := range state.GetTables() {
		page := &routing.Table{Size: table.Size, More: table.More}
		for _, row := range table.Rows {
			page.Rows = append(page.Rows, routing.TableRow{Key: string(row.Key), Value: row.Value})
		}
		out.Tables[table.Name] = page
	}
	return out
}

func filterOf(f routing.Filter) *peerv1.InvocationsQuery {
	query := &peerv1.InvocationsQuery{
		Service: f.Service, Key: f.Key, Handler: f.Handler, Deployment: f.Deployment, Statuses: f.Statuses, KeyPrefix: []byte(f.KeyPrefix),
		CreatedFrom: f.CreatedFrom, CreatedBefore: f.CreatedBefore, Limit: pageSize(f.Limit), Scan: int32(min(f.Scan, 1<<30)),
	}
	if !f.After.IsZero() {
		query.After = f.After[:]
	}
	if !f.Until.IsZero() {
		query.Until = f.Until[:]
	}
	return query
}

func filterFrom(query *peerv1.InvocationsQuery) routing.Filter {
	return routing.Filter{
		Service: query.Service, Key: query.Key, Handler: query.Handler, Deployment: query.Deployment, Statuses: query.Statuses, KeyPrefix: string(query.KeyPrefix),
		CreatedFrom: query.CreatedFrom, CreatedBefore: query.CreatedBefore,
		After: idFrom(query.After), Until: idFrom(query.Until), Limit: int(query.Limit), Scan: int(query.Scan),
	}
}

func invocationsOf(page *routing.InvocationsPage) *peerv1.InvocationsPage {
	out := &peerv1.InvocationsPage{Scanned: int32(page.Scanned)}
	for i := range page.Found {
		out.Found = append(out.Found, &peerv1.Listed{Id: page.Found[i].ID[:], Row: page.Found[i].Row})
	}
	if !page.Next.IsZero() {
		out.Next = page.Next[:]
	}
	return out
}

func invocationsFrom(page *peerv1.InvocationsPage) *routing.InvocationsPage {
	out := &routing.InvocationsPage{Next: idFrom(page.GetNext()), Scanned: int(page.GetScanned())}
	for _, listed := range page.GetFound() {
		out.Found = append(out.Found, routing.InvocationDetail{ID: idFrom(listed.Id), Row: listed.Row})
	}
	return out
}

func targetOf(t invocation.Target) *recordv1.Target {
	return &recordv1.Target{Service: t.Service, Key: t.Key, Handler: t.Handler}
}

func transactionsOf(all []routing.Transaction) *peerv1.Transactions {
	out := &peerv1.Transactions{}
	for i := range all {
		t := &all[i]
		out.Found = append(out.Found, &peerv1.Transaction{
			Root: t.Root[:], Sequence: t.Sequence, Partition: t.Partition, Coordinator: t.Coordinator, Phase: uint32(t.Phase),
			Target: targetOf(t.Target), At: t.At.UnixMilli(), Since: t.Since.UnixMilli(), Try: t.Try, Members: t.Members,
			Held: locksOf(t.Held), Waiting: locksOf(t.Waiting), Reason: t.Reason,
		})
	}
	return out
}

func locksOf(locks []routing.TransactionLock) []*peerv1.TransactionLock {
	var out []*peerv1.TransactionLock
	for _, lock := range locks {
		out = append(out, &peerv1.TransactionLock{Service: lock.Object.Service, Key: lock.Object.Key, Shared: lock.Shared, By: lock.By})
	}
	return out
}

func transactionsFrom(all *peerv1.Transactions) []routing.Transaction {
	var out []routing.Transaction
	for _, t := range all.GetFound() {
		out = append(out, routing.Transaction{
			Root: idFrom(t.Root), Sequence: t.Sequence, Partition: t.Partition, Coordinator: t.Coordinator, Phase: routing.TransactionPhase(t.Phase),
			Target: invocation.Target{Service: t.GetTarget().GetService(), Key: t.GetTarget().GetKey(), Handler: t.GetTarget().GetHandler()},
			At:     time.UnixMilli(t.At), Since: time.UnixMilli(t.Since), Try: t.Try, Members: t.Members,
			Held: locksFrom(t.Held), Waiting: locksFrom(t.Waiting), Reason: t.Reason,
		})
	}
	return out
}

func locksFrom(locks []*peerv1.TransactionLock) []routing.TransactionLock {
	var out []routing.TransactionLock
	for _, lock := range locks {
		out = append(out, routing.TransactionLock{Object: invocation.Object{Service: lock.Service, Key: lock.Key}, Shared: lock.Shared, By: lock.By})
	}
	return out
}

func limitsOf(all []routing.Limit) *peerv1.Limits {
	out := &peerv1.Limits{}
	for i := range all {
		l := &all[i]
		limit := &peerv1.Limit{
			Name: l.Name, Partition: l.Partition, Concurrency: int64(l.Concurrency), UntilDone: l.UntilDone,
			RateCount: l.RateCount, RateBurst: l.RateBurst, RatePerMs: l.RatePer.Milliseconds(), MaxQueue: int64(l.MaxQueue),
			Held: int64(l.Held), Waiting: int64(l.Waiting), Tokens: l.Tokens, Holders: membersOf(l.Holders), Queue: membersOf(l.Queue),
			Rule: l.Rule,
		}
		if l.Rule != "" {
			d := l.Declared
			limit.Declared = &peerv1.LimitSettings{
				Concurrency: int64(d.Concurrency), RateCount: d.RateCount, RateBurst: d.RateBurst, RatePerMs: d.RatePer.Milliseconds(), MaxQueue: int64(d.MaxQueue),
			}
		}
		if !l.Oldest.IsZero() {
			limit.Oldest = l.Oldest.UnixMilli()
		}
		for _, t := range l.Tenants {
			limit.Tenants = append(limit.Tenants, &peerv1.LimitTenant{Tenant: t.Tenant, Held: int64(t.Held), Waiting: int64(t.Waiting)})
		}
		out.Found = append(out.Found, limit)
	}
	return out
}

func membersOf(members []routing.LimitMember) []*peerv1.LimitMember {
	var out []*peerv1.LimitMember
	for i := range members {
		m := &members[i]
		out = append(out, &peerv1.LimitMember{Id: m.ID[:], Tenant: m.Tenant, Since: m.Since.UnixMilli(), Priority: int64(m.Priority), Begun: m.Begun})
	}
	return out
}

func limitsFrom(all *peerv1.Limits) []routing.Limit {
	var out []routing.Limit
	for _, l := range all.GetFound() {
		limit := routing.Limit{
			Name: l.Name, Partition: l.Partition, UntilDone: l.UntilDone, Rule: l.Rule,
			LimitSettings: routing.LimitSettings{
				Concurrency: int(l.Concurrency), MaxQueue: int(l.MaxQueue),
				RateCount: l.RateCount, RateBurst: l.RateBurst, RatePer: time.Duration(l.RatePerMs) * time.Millisecond,
			},
			Held: int(l.Held), Waiting: int(l.Waiting), Tokens: l.Tokens, Holders: membersFrom(l.Holders), Queue: membersFrom(l.Queue),
		}
		if d := l.Declared; d != nil {
			limit.Declared = routing.LimitSettings{
				Concurrency: int(d.Concurrency), MaxQueue: int(d.MaxQueue),
				RateCount: d.RateCount, RateBurst: d.RateBurst, RatePer: time.Duration(d.RatePerMs) * time.Millisecond,
			}
		}
		if l.Oldest != 0 {
			limit.Oldest = time.UnixMilli(l.Oldest)
		}
		for _, t := range l.Tenants {
			limit.Tenants = append(limit.Tenants, routing.LimitTenant{Tenant: t.Tenant, Held: int(t.Held), Waiting: int(t.Waiting)})
		}
		out = append(out, limit)
	}
	return out
}

func membersFrom(members []*peerv1.LimitMember) []routing.LimitMember {
	var out []routing.LimitMember
	for _, m := range members {
		out = append(out, routing.LimitMember{ID: idFrom(m.Id), Tenant: m.Tenant, Since: time.UnixMilli(m.Since), Priority: int(m.Priority), Begun: m.Begun})
	}
	return out
}
