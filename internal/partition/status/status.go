// Package status turns what an engine says of its transactions and limits into what the edge shows.
package status

import (
	"time"

	"github.com/perdure/perdure/internal/engine"
	"github.com/perdure/perdure/internal/limit"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	"github.com/perdure/perdure/internal/transaction"
)

// Transactions are what a partition's engine knows of transactions. They belong to the caller.
func Transactions(partition uint32, e *engine.Engine) []routing.Transaction {
	var all []routing.Transaction
	for _, status := range e.Transactions() {
		all = append(all, transactionOf(partition, status))
	}
	return all
}

func transactionOf(partition uint32, status transaction.Status) routing.Transaction {
	return routing.Transaction{
		Root: status.ID.Root, Sequence: status.ID.Sequence, Partition: partition, Coordinator: status.Coordinator,
		// The numbers are the same, which a test makes sure of.
		Phase: routing.TransactionPhase(status.Phase), Target: status.Target,
		At: time.UnixMilli(status.At), Since: time.UnixMilli(status.Since), Try: status.Try, Members: status.Members,
		Held: transactionLocks(status.Held), Waiting: transactionLocks(status.Waiting), Reason: status.Reason,
	}
}

func transactionLocks(locks []transaction.LockStatus) []routing.TransactionLock {
	var all []routing.TransactionLock
	for _, lock := range locks {
		all = append(all, routing.TransactionLock{Object: lock.Object, Shared: lock.Shared, By: lock.By})
	}
	return all
}

// Limits are those of a partition's engine that a query picks. They belong to the caller.
func Limits(partition uint32, e *engine.Engine, query routing.LimitQuery) []routing.Limit {
	var all []routing.Limit
	for _, status := range statusesOf(e, query) {
		all = append(all, limitOf(partition, status))
	}
	return all
}

func statusesOf(e *engine.Engine, query routing.LimitQuery) []limit.Status {
	now := time.Now().UnixMilli()
	if query.Name != "" {
		status, ok := e.Limits().Status(query.Name, routing.MaxLimitMembers, now)
		if !ok {
			return nil
		}
		return []limit.Status{status}
	}
	prefix := ""
	if query.Service != "" {
		prefix = query.Service + "/"
	}
	return e.Limits().Statuses(prefix, query.Waiting, routing.MaxPage, now)
}

func settingsOf(s limit.Settings) routing.LimitSettings {
	return routing.LimitSettings{
		Concurrency: s.Concurrency, MaxQueue: s.MaxQueue,
		RateCount: s.Rate.Count, RateBurst: s.Rate.Burst, RatePer: time.Duration(s.Rate.Per) * time.Millisecond,
	}
}

func limitOf(partition uint32, status limit.Status) routing.Limit {
	out := routing.Limit{
		Name: status.Name, Partition: partition, LimitSettings: settingsOf(status.Settings), UntilDone: status.UntilDone, Rule: status.Rule,
		Held: status.Held, Waiting: status.Waiting, Tokens: status.Tokens,
	}
	if out.Rule != "" {
		out.Declared = settingsOf(status.Declared)
	}
	if status.Oldest != 0 {
		out.Oldest = time.UnixMilli(status.Oldest)
	}
	for _, share := range status.Shares {
		out.Tenants = append(out.Tenants, routing.LimitTenant{Tenant: share.Tenant, Held: share.Held, Waiting: share.Waiting})
	}
	for _, holder := range status.Holders {
		out.Holders = append(out.Holders, routing.LimitMember{ID: holder.ID, Tenant: holder.Tenant, Since: time.UnixMilli(holder.At)})
	}
	for _, a := range status.Queue {
		out.Queue = append(out.Queue, routing.LimitMember{ID: a.ID, Tenant: a.Tenant, Since: time.UnixMilli(a.At), Priority: int(a.Priority), Begun: a.Begun})
	}
	return out
}

// Rules is a page of the rule book, as far as a partition's engine knows it. The rules are shared
// and not to be changed.
func Rules(e *engine.Engine, query routing.RuleQuery) *recordv1.RulesReply {
	book := e.Limits().Book()
	reply := &recordv1.RulesReply{Version: book.Version(), Missing: e.RulesMissing()}
	most := query.Limit
	if most <= 0 || most > routing.MaxPage {
		most = routing.MaxPage
	}
	reply.Rules, reply.More = book.Page(query.Prefix, query.After, most)
	return reply
}
