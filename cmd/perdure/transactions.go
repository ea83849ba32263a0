package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

func (c *cli) transactionsCommand() *cobra.Command {
	command := &cobra.Command{
		Use:     "transactions",
		Aliases: []string{"transaction", "tx"},
		Short:   "Show the transactions over several objects that are under way",
		Long: `Show the transactions over several objects that are under way.

A transaction is in doubt between a partition's promise to commit and the moment it hears the
decision: some milliseconds, or as long as the deciding partition cannot answer. It keeps its
objects meanwhile. Nothing has to be done about it: the partition asks until it is answered, and
what was never decided is taken back. Only if a partition it needs refuses to serve is there
something to do, which is said then.`,
		Example: `  perdure transactions list --in-doubt
  perdure transactions get inv_…`,
	}
	command.AddCommand(c.listTransactionsCommand(), c.getTransactionCommand())
	return command
}

func (c *cli) listTransactionsCommand() *cobra.Command {
	request := &adminv1.ListTransactionsRequest{}
	var limit int
	command := &cobra.Command{
		Use:   "list",
		Short: "List transactions under way, oldest first",
		Long: `List transactions under way, oldest first, with what each waits for.

Only those over more than one object are listed, until they have ended; each is named by the
invocation that began it. AGE is counted from the start of the first try, IN PHASE from when the
latest try reached its phase.`,
		Example: `  perdure transactions list --in-doubt
  perdure transactions list --service bank.v1.TransferService
  perdure transactions list --in-doubt -o json | jq -r '.transactions[].rootInvocationId'`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 || limit > adminPage {
				return usagef("--limit is %d; it must be from 1 to %d", limit, adminPage)
			}
			request.PageSize = uint32(limit)
			found := &adminv1.ListTransactionsResponse{}
			if err := c.admin(cmd.Context(), "ListTransactions", request, found); err != nil {
				return err
			}
			if c.output == "json" {
				return c.printMessage(found)
			}
			c.printTransactions(request, found)
			return nil
		},
	}
	flags := command.Flags()
	flags.BoolVar(&request.InDoubt, "in-doubt", false, "only those of which a partition has promised to commit and not heard the decision")
	flags.StringVar(&request.Service, "service", "", "only those that a handler of this `service` began, such as bank.v1.TransferService")
	flags.IntVar(&limit, "limit", 50, "at most `n`")
	must(command.RegisterFlagCompletionFunc("service", c.completeServiceFlag))
	must(command.RegisterFlagCompletionFunc("limit", cobra.NoFileCompletions))
	return command
}

func (c *cli) getTransactionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "get ROOT_INVOCATION_ID",
		Short: "Show what all partitions say of one transaction",
		Long: `Show what all partitions say of one transaction: the coordinator, which decides, and the
participants, with the objects that each holds and waits for, and why.

ROOT_INVOCATION_ID is the invocation that began it. One that has ended is not found: see
"perdure invocations get".`,
		Example: `  perdure transactions get inv_…
  perdure transactions get inv_… -o json`,
		Args:              args("ROOT_INVOCATION_ID"),
		ValidArgsFunction: c.completeTransactions,
		RunE: func(cmd *cobra.Command, args []string) error {
			found := &adminv1.GetTransactionResponse{}
			if err := c.admin(cmd.Context(), "GetTransaction", &adminv1.GetTransactionRequest{RootInvocationId: args[0]}, found); err != nil {
				return err
			}
			if c.output == "json" {
				return c.printMessage(found)
			}
			c.printTransaction(found)
			return nil
		},
	}
}

// phaseName is "rolling_back".
func phaseName(phase adminv1.TransactionPhase) string {
	return strings.ToLower(strings.TrimPrefix(phase.String(), "TRANSACTION_PHASE_"))
}

func (c *cli) printTransactions(request *adminv1.ListTransactionsRequest, found *adminv1.ListTransactionsResponse) {
	all := found.GetTransactions()
	if len(all) == 0 {
		c.note("%s", noTransactions(request, found.GetMore()))
		return
	}
	var rows [][]string
	inDoubt, stuck := 0, 0
	for _, t := range all {
		doubt := "-"
		if t.GetInDoubt() {
			inDoubt++
			doubt = between(t.GetInDoubtSince(), found.GetAt())
		}
		if t.GetObstacle() != "" {
			stuck++
		}
		rows = append(rows, []string{
			t.GetRootInvocationId(), phaseName(t.GetPhase()), doubt, between(t.GetAcceptedAt(), found.GetAt()),
			between(t.GetPhaseSince(), found.GetAt()), number(t.GetTry()), orDash(targetName(t.GetTarget())),
		})
	}
	c.tableWith("", []string{"ROOT", "PHASE", "IN DOUBT", "AGE", "IN PHASE", "TRY", "TARGET"}, rows, func(i int) []string { return waitsFor(all[i]) })
	if found.GetMore() {
		c.note("… and more, younger ones: filter, or raise --limit (at most %d)", adminPage)
	}
	switch {
	case stuck > 0:
		c.note("%d in doubt; %d of those listed cannot end before a partition serves again that refuses to: see perdure node", inDoubt, stuck)
	case inDoubt > 0:
		c.note("%d in doubt; nothing has to be done, each ends by itself when it hears the decision", inDoubt)
	}
}

// noTransactions is what an empty list means. more: the node has not looked at all of them.
func noTransactions(request *adminv1.ListTransactionsRequest, more bool) string {
	what := "no transaction is under way"
	switch {
	case request.GetInDoubt() && request.GetService() != "":
		what = "no transaction that " + request.GetService() + " began is in doubt"
	case request.GetInDoubt():
		what = "no transaction is in doubt"
	case request.GetService() != "":
		what = "no transaction that " + request.GetService() + " began is under way"
	}
	if more {
		return what + " among the oldest; there are more than the node looks at"
	}
	return what
}

// waitsFor are the reasons that the partitions give.
func waitsFor(t *adminv1.Transaction) []string {
	const most = 3
	var lines []string
	if t.GetObstacle() != "" {
		lines = append(lines, t.GetObstacle())
	}
	for _, part := range t.GetParts() {
		if part.GetReason() == "" {
			continue
		}
		if len(lines) == most {
			return append(lines, "…")
		}
		lines = append(lines, fmt.Sprintf("partition %d: %s", part.GetPartition(), part.GetReason()))
	}
	return lines
}

// number is "-" for what is not known.
func number(n uint32) string {
	if n == 0 {
		return "-"
	}
	return strconv.Itoa(int(n))
}

func (c *cli) printTransaction(found *adminv1.GetTransactionResponse) {
	t, now := found.GetTransaction(), found.GetAt()
	doubt := "no"
	if t.GetInDoubt() {
		doubt = "since " + ago(t.GetInDoubtSince(), now)
	}
	try, coordinator := "", ""
	if t.GetTry() > 0 {
		try = strconv.Itoa(int(t.GetTry()))
	}
	if t.GetCoordinatorPartition() > 0 {
		coordinator = fmt.Sprintf("partition %d", t.GetCoordinatorPartition())
	}
	c.printf("%s\n", c.strong(t.GetRootInvocationId()))
	c.fields("  ",
		"target", targetName(t.GetTarget()),
		"phase", phaseName(t.GetPhase())+", since "+ago(t.GetPhaseSince(), now),
		"in doubt", doubt,
		"accepted", ago(t.GetAcceptedAt(), now),
		"try", try,
		"coordinator", coordinator,
		"what follows", t.GetExplanation(),
		"to be done", toDo(t),
	)
	c.printf("\n")
	var rows [][]string
	for _, part := range t.GetParts() {
		role := "participant"
		if part.GetCoordinator() {
			role = "coordinator"
		}
		rows = append(rows, []string{
			strconv.Itoa(int(part.GetPartition())), role, phaseName(part.GetPhase()), between(part.GetPhaseSince(), now), number(part.GetTry()),
			number(part.GetHeldCount()), number(part.GetWaitingCount()),
		})
	}
	c.tableWith("  ", []string{"PARTITION", "ROLE", "PHASE", "IN PHASE", "TRY", "HOLDS", "WAITS FOR"}, rows,
		func(i int) []string { return partLines(t.GetParts()[i]) })
}

func toDo(t *adminv1.Transaction) string {
	if t.GetObstacle() == "" {
		return "nothing, it ends by itself"
	}
	return t.GetObstacle() + "; it ends by itself once that serves again"
}

// ago is an instant and how long it is back by the node's clock.
func ago(at, now *timestamppb.Timestamp) string {
	if at == nil || now == nil {
		return orDash(precise(at))
	}
	return precise(at) + " (" + short(max(now.AsTime().Sub(at.AsTime()), time.Duration(0))) + " ago)"
}

// partLines is what a partition says beyond its row.
func partLines(part *adminv1.TransactionPart) []string {
	var lines []string
	if members := part.GetMembers(); len(members) > 0 {
		names := make([]string, 0, len(members))
		for _, member := range members {
			names = append(names, strconv.Itoa(int(member)))
		}
		what := "called"
		if part.GetPhase() == adminv1.TransactionPhase_TRANSACTION_PHASE_COMMITTED {
			what = "not heard from"
		}
		if len(names) == 1 {
			what += ": partition "
		} else {
			what += ": partitions "
		}
		lines = append(lines, what+strings.Join(names, ", "))
	}
	for _, lock := range part.GetHeld() {
		lines = append(lines, "holds "+lockName(lock))
	}
	lines = append(lines, cutOff(part.GetHeldCount(), len(part.GetHeld()), "held")...)
	for _, lock := range part.GetWaiting() {
		line := "waits for " + lockName(lock)
		if len(lock.GetHeldBy()) > 0 {
			line += ", held by " + strings.Join(lock.GetHeldBy(), ", ")
		}
		lines = append(lines, line)
	}
	lines = append(lines, cutOff(part.GetWaitingCount(), len(part.GetWaiting()), "waited for")...)
	if reason := part.GetReason(); reason != "" && !slices.Contains(lines, reason) {
		lines = append(lines, "why: "+part.GetReason())
	}
	return lines
}

func cutOff(all uint32, shown int, what string) []string {
	if int(all) <= shown {
		return nil
	}
	return []string{fmt.Sprintf("… and %d more %s", int(all)-shown, what)}
}

// lockName is "bank.v1.AccountService/alice (to read)".
func lockName(lock *adminv1.TransactionLock) string {
	name := lock.GetService() + "/" + lock.GetKey()
	if lock.GetShared() {
		name += " (to read)"
	}
	return name
}
