package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

func (c *cli) getInvocationCommand() *cobra.Command {
	var entries int
	var values, follow, tree bool
	command := &cobra.Command{
		Use:   "get ID",
		Short: "Show an invocation and the timeline of its journal",
		Long: `Show an invocation and the timeline of its journal.

Each line of the timeline is one durable step: when after the start it was recorded, what it
is, where in the handler's code it was made, how long it took and how it ended. The bar shows
when in the life of the invocation that was; ▸ is a step that goes on, × an attempt that failed.

With --follow it prints what happens as it happens, until the invocation has ended; with
--tree the invocations that it has called and sent, and those that they have.`,
		Example: `  perdure invocations get inv_…
  perdure invocations get inv_… --values
  perdure invocations get inv_… --follow
  perdure invocations get inv_… --tree`,
		Args:              args("ID"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if entries < 1 {
				return usagef("--entries is %d; it must be at least 1", entries)
			}
			switch {
			case tree && follow:
				return usagef("--tree shows one instant: leave out --follow")
			case follow:
				return c.followInvocation(cmd.Context(), args[0])
			case tree:
				return c.printTree(cmd.Context(), args[0])
			}
			found, err := c.fetchInvocation(cmd.Context(), args[0], entries)
			if err != nil {
				return err
			}
			if c.output == "json" {
				return c.printMessage(found)
			}
			c.printInvocation(found)
			c.printDivergence(found.GetInvocation().GetDivergence())
			c.printTimeline(found, values)
			if failures := found.GetInvocation().GetFailures(); values && len(failures) > 0 && failures[len(failures)-1].GetStack() != "" {
				c.printf("\n%s\n", c.strong("stack of the newest failure"))
				for line := range strings.Lines(failures[len(failures)-1].GetStack()) {
					c.printf("  %s\n", printable(strings.ReplaceAll(strings.TrimRight(line, "\n"), "\t", "  ")))
				}
			}
			return nil
		},
	}
	command.Flags().IntVar(&entries, "entries", adminPage, "at most `n` entries of the journal")
	command.Flags().BoolVar(&values, "values", false, "show what each step was given and returned")
	command.Flags().BoolVarP(&follow, "follow", "f", false, "print what happens until the invocation has ended")
	command.Flags().BoolVar(&tree, "tree", false, "show the tree of what it has called and sent")
	must(command.RegisterFlagCompletionFunc("entries", cobra.NoFileCompletions))
	return command
}

// fetchInvocation gets an invocation with at most so many entries of its journal.
func (c *cli) fetchInvocation(ctx context.Context, id string, entries int) (*adminv1.GetInvocationResponse, error) {
	var found *adminv1.GetInvocationResponse
	request := &adminv1.GetInvocationRequest{InvocationId: id, PageSize: uint32(min(entries, adminPage))}
	for {
		page := &adminv1.GetInvocationResponse{}
		if err := c.admin(ctx, "GetInvocation", request, page); err != nil {
			return nil, err
		}
		if found == nil {
			found = page
		} else {
			found.Journal = append(found.Journal, page.GetJournal()...)
			found.NextPageToken = page.GetNextPageToken()
		}
		left := entries - len(found.GetJournal())
		if request.PageToken = found.GetNextPageToken(); request.PageToken == "" || left <= 0 {
			return found, nil
		}
		request.PageSize = uint32(min(left, adminPage))
	}
}

func (c *cli) printInvocation(found *adminv1.GetInvocationResponse) {
	inv := found.GetInvocation()
	status := statusName(inv.GetStatus())
	if inv.GetCancelRequested() && inv.GetCompletedAt() == nil {
		status += ", asked to cancel"
	}
	continued := ""
	if times := inv.GetContinuations(); times > 0 {
		continued = fmt.Sprintf("%d× as new", times)
	}
	attempt := ""
	if inv.GetAttempt() > 1 {
		attempt = strconv.Itoa(int(inv.GetAttempt()))
	}
	c.printf("%s\n", c.strong(inv.GetId()))
	c.fields("  ",
		"target", targetName(inv.GetTarget())+" ("+inv.GetMode().String()+")",
		"status", status,
		"waits for", waitsForLimit(inv),
		"tenant", inv.GetTenant(),
		"limit key", inv.GetLimitKey(),
		"priority", priorityText(inv.GetPriority()),
		"error", errorText(inv),
		"attempt", attempt,
		"continued", continued,
		"failed attempts", failedAttempts(inv),
		"last failure", lastFailure(inv),
		"waits for", waitingFor(inv),
		"deployment", inv.GetDeployment(),
		"before that", strings.Join(inv.GetEarlierDeployments(), ", "),
		"retry at", set(inv.GetRetryAt()),
		"created", precise(inv.GetCreatedAt()),
		"due", set(inv.GetDueAt()),
		"timeout at", deadline(inv),
		"started", since(inv, inv.GetStartedAt()),
		"completed", since(inv, inv.GetCompletedAt()),
		"kept for", lasting(inv.GetRetention()),
		"caller", inv.GetCallerInvocationId(),
		"fired by", firedBy(inv.GetFiredBy()),
		"restarted from", restartedFrom(inv),
		"idempotency key", inv.GetIdempotencyKey(),
		"trace", inv.GetTraceparent(),
		"headers", strings.TrimSuffix(strings.TrimPrefix(fmt.Sprint(inv.GetHeaders()), "map["), "]"),
		"input", payload(found.GetInput()),
		"response", payload(found.GetResponse()),
	)
}

// printDivergence puts the journal and the code side by side. A row in which they differ is marked.
func (c *cli) printDivergence(found *adminv1.Divergence) {
	if found == nil {
		return
	}
	c.printf("\n%s\n", c.strong(fmt.Sprintf("attempt %d diverged from the journal at entry %d: %s differs", found.GetAttempt(), found.GetEntry(), found.GetDifference())))
	rows := [][]string{}
	add := func(name, recorded, made string) {
		mark := ""
		if recorded != made {
			mark = "≠"
		}
		rows = append(rows, []string{name, orDash(recorded), mark, orDash(made)})
	}
	add("step", found.GetRecorded().GetStep(), found.GetMade().GetStep())
	add("at", found.GetRecorded().GetSite(), found.GetMade().GetSite())
	for _, field := range found.GetFields() {
		add(field.GetName(), field.GetRecorded(), field.GetMade())
	}
	c.table("  ", []string{"", "JOURNAL", "", "CODE"}, rows)
}

// firedBy is `schedule nightly, firing 3, due 2026-11-28 03:00:00.000`.
func firedBy(fired *adminv1.FiredBy) string {
	if fired == nil {
		return ""
	}
	return fmt.Sprintf("schedule %s, firing %d, due %s", fired.GetSchedule(), fired.GetNumber(), precise(fired.GetDueAt()))
}

func set(at *timestamppb.Timestamp) string {
	if at == nil {
		return ""
	}
	return precise(at)
}

func precise(at *timestamppb.Timestamp) string {
	if at == nil {
		return ""
	}
	return at.AsTime().Local().Format("2006-01-02 15:04:05.000")
}

func since(inv *adminv1.Invocation, at *timestamppb.Timestamp) string {
	if at == nil {
		return ""
	}
	return precise(at) + " (+" + between(inv.GetCreatedAt(), at) + ")"
}

func payload(p *adminv1.Payload) string {
	switch {
	case p == nil:
		return ""
	case p.GetJson() == "":
		return "(" + p.GetNote() + ")"
	}
	return p.GetJson()
}

// given is what --values adds below an entry.
func given(entry *adminv1.JournalEntry) []string {
	var lines []string
	for _, value := range []struct{ name, text string }{
		{"in ", payload(entry.GetInput())}, {"out", payload(entry.GetResult())}, {"id ", entry.GetInvocationId()},
	} {
		if value.text != "" {
			lines = append(lines, value.name+" "+value.text)
		}
	}
	return lines
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// took is empty for steps that complete as they are recorded.
func took(entry *adminv1.JournalEntry) string {
	if entry.GetCompletedAt() != nil && entry.GetCompletedAt().AsTime().Equal(entry.GetAt().AsTime()) && entry.GetResult() == nil {
		return "-"
	}
	return between(entry.GetAt(), entry.GetCompletedAt())
}

// tried is empty for what is no Run, or one whose first try has not failed.
func tried(entry *adminv1.JournalEntry, next string) string {
	if entry.GetFailedTries() == 0 {
		return ""
	}
	return fmt.Sprintf(", failed tries: %d%s: %s", entry.GetFailedTries(), next, errorName(entry.GetLastFailure()))
}

// outcome is "unfinished" for what is pending though the invocation has ended: a timer that lost
// against a signal, say.
func outcome(entry *adminv1.JournalEntry, ended bool) string {
	switch entry.GetOutcome() {
	case adminv1.EntryOutcome_ENTRY_OUTCOME_SUCCEEDED:
		return "ok"
	case adminv1.EntryOutcome_ENTRY_OUTCOME_FAILED:
		return "failed: " + errorName(entry.GetError())
	case adminv1.EntryOutcome_ENTRY_OUTCOME_PENDING:
		if ended {
			return "unfinished" + tried(entry, "")
		}
		return "pending" + tried(entry, ", the next at "+entry.GetNextTryAt().AsTime().Local().Format("15:04:05"))
	}
	return strings.ToLower(fmt.Sprint(entry.GetOutcome()))
}

// waitsForLimit is empty for an invocation that waits for none.
func waitsForLimit(inv *adminv1.Invocation) string {
	if inv.GetWaitsForLimit() == "" {
		return ""
	}
	return "limit " + inv.GetWaitsForLimit() + ", since " + precise(inv.GetWaitingSince())
}

func priorityText(priority int32) string {
	if priority == 0 {
		return ""
	}
	return strconv.Itoa(int(priority))
}
