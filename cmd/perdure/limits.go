package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

func (c *cli) limitsCommand() *cobra.Command {
	command := &cobra.Command{
		Use:     "limits",
		Aliases: []string{"limit"},
		Short:   "Show limits on how many invocations run, begin or wait",
		Long: `Show limits on how many invocations run, begin or wait.

Limits are declared in the .proto: "perdure services describe" shows them. Here is what becomes of
them: who holds permits, who waits, and in which order.`,
		Example: `  perdure limits list --waiting
  perdure limits get bank.v1.AccountService/workers`,
	}
	command.AddCommand(c.listLimitsCommand(), c.getLimitCommand())
	return command
}

func (c *cli) listLimitsCommand() *cobra.Command {
	request := &adminv1.ListLimitsRequest{}
	var limit int
	command := &cobra.Command{
		Use:   "list",
		Short: "List the limits in use, those with the most waiting first",
		Long: `List the limits in use, those with the most waiting first.

A limit that counts keys, limit keys or tenants apart has a line for each that somebody uses. TOKENS
are what a rate lets begin at once now.`,
		Example: `  perdure limits list --waiting
  perdure limits list --service bank.v1.AccountService -o json | jq -r '.limits[].name'`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 || limit > adminPage {
				return usagef("--limit is %d; it must be from 1 to %d", limit, adminPage)
			}
			request.PageSize = uint32(limit)
			found := &adminv1.ListLimitsResponse{}
			if err := c.admin(cmd.Context(), "ListLimits", request, found); err != nil {
				return err
			}
			if c.output == "json" {
				return c.printMessage(found)
			}
			c.printLimits(request, found)
			return nil
		},
	}
	flags := command.Flags()
	flags.BoolVar(&request.Waiting, "waiting", false, "only those that somebody waits for")
	flags.StringVar(&request.Service, "service", "", "only those of this `service`, such as bank.v1.AccountService")
	flags.IntVar(&limit, "limit", 50, "at most `n`")
	must(command.RegisterFlagCompletionFunc("service", c.completeServiceFlag))
	must(command.RegisterFlagCompletionFunc("limit", cobra.NoFileCompletions))
	return command
}

func (c *cli) getLimitCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "get NAME",
		Short: "Show who holds the permits of one limit and who waits",
		Long: `Show who holds the permits of one limit and who waits, in the order in which they begin: what has
begun before, then the higher priority, then turns of the tenants, then the first to come.

NAME is as "perdure limits list" has it. A limit that nobody uses is not found.`,
		Example: `  perdure limits get bank.v1.AccountService/workers
  perdure limits get bank.v1.AccountService/customer=alice -o json`,
		Args:              args("NAME"),
		ValidArgsFunction: c.completeLimits,
		RunE: func(cmd *cobra.Command, args []string) error {
			found := &adminv1.GetLimitResponse{}
			if err := c.admin(cmd.Context(), "GetLimit", &adminv1.GetLimitRequest{Name: args[0]}, found); err != nil {
				return err
			}
			if c.output == "json" {
				return c.printMessage(found)
			}
			c.printLimit(found)
			return nil
		},
	}
}

// limitText is "at most 3, 10 each 1s with 5 at once, at most 100 waiting".
func limitText(by perdurev1.By, concurrency uint32, rate *perdurev1.Rate, maxQueue *uint32, untilDone bool) string {
	var parts []string
	if by != perdurev1.By_BY_UNSPECIFIED {
		parts = append(parts, "by "+by.String())
	}
	if concurrency > 0 {
		parts = append(parts, fmt.Sprintf("at most %d", concurrency))
	}
	if untilDone {
		parts = append(parts, "until done")
	}
	if rate != nil {
		parts = append(parts, fmt.Sprintf("%d each %s with %d at once", rate.GetCount(), lasting(rate.GetPer()), rate.GetBurst()))
	}
	switch {
	case maxQueue == nil:
	case *maxQueue == 0:
		parts = append(parts, "none waiting")
	default:
		parts = append(parts, fmt.Sprintf("at most %d waiting", *maxQueue))
	}
	return strings.Join(parts, ", ")
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

func (c *cli) printLimits(request *adminv1.ListLimitsRequest, found *adminv1.ListLimitsResponse) {
	if len(found.GetLimits()) == 0 {
		what := "nobody uses a limit"
		if request.GetWaiting() {
			what = "nobody waits for a limit"
		}
		if request.GetService() != "" {
			what += " of " + request.GetService()
		}
		c.note("%s", what)
		return
	}
	var rows [][]string
	for _, l := range found.GetLimits() {
		held, tokens := "-", "-"
		if l.GetConcurrency() > 0 {
			held = fmt.Sprintf("%d of %d", l.GetHeld(), l.GetConcurrency())
		}
		if l.GetRate() != nil {
			tokens = fmt.Sprintf("%d of %d", l.GetTokens(), l.GetRate().GetBurst())
		}
		rows = append(rows, []string{l.GetName(), held, tokens, number(l.GetWaiting()), orDash(between(l.GetOldestWait(), found.GetAt()))})
	}
	c.table("", []string{"LIMIT", "HELD", "TOKENS", "WAITING", "LONGEST"}, rows)
	if found.GetMore() {
		c.note("… and more: filter, or raise --limit (at most %d)", adminPage)
	}
}

func (c *cli) printLimit(found *adminv1.GetLimitResponse) {
	l := found.GetLimit()
	tokens := ""
	if l.GetRate() != nil {
		tokens = fmt.Sprintf("%d of %d", l.GetTokens(), l.GetRate().GetBurst())
	}
	oldest := ""
	if l.GetOldestWait() != nil {
		oldest = ago(l.GetOldestWait(), found.GetAt())
	}
	c.printf("%s\n", c.strong(l.GetName()))
	c.fields("  ",
		"lets", limitText(0, l.GetConcurrency(), l.GetRate(), l.MaxQueue, l.GetUntilDone()),
		"held", strconv.Itoa(int(l.GetHeld())),
		"waiting", strconv.Itoa(int(l.GetWaiting())),
		"longest wait", oldest,
		"tokens", tokens,
		"owner", fmt.Sprintf("partition %d", l.GetPartition()),
	)
	if len(l.GetTenants()) > 1 || len(l.GetTenants()) == 1 && l.GetTenants()[0].GetTenant() != "" {
		var rows [][]string
		for _, t := range l.GetTenants() {
			rows = append(rows, []string{orDash(t.GetTenant()), number(t.GetHeld()), number(t.GetWaiting())})
		}
		c.printf("\n")
		c.table("  ", []string{"TENANT", "HELD", "WAITING"}, rows)
	}
	var rows [][]string
	for _, m := range l.GetHolders() {
		rows = append(rows, []string{m.GetInvocationId(), "holds", between(m.GetSince(), found.GetAt()), "-", orDash(m.GetTenant())})
	}
	for _, m := range l.GetQueue() {
		what := "waits"
		if m.GetBegun() {
			what = "waits to go on"
		}
		rows = append(rows, []string{m.GetInvocationId(), what, between(m.GetSince(), found.GetAt()), strconv.Itoa(int(m.GetPriority())), orDash(m.GetTenant())})
	}
	if len(rows) > 0 {
		c.printf("\n")
		c.table("  ", []string{"INVOCATION", "", "SINCE", "PRIORITY", "TENANT"}, rows)
	}
	if more := int(l.GetHeld()) - len(l.GetHolders()) + int(l.GetWaiting()) - len(l.GetQueue()); more > 0 {
		c.note("… and %d more", more)
	}
}

// completeLimits proposes the limits in use.
func (c *cli) completeLimits(cmd *cobra.Command, given []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	var found []cobra.Completion
	if len(given) > 0 || c.checkGlobals() != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := completeContext(cmd)
	defer cancel()
	response := &adminv1.ListLimitsResponse{}
	if err := c.admin(ctx, "ListLimits", &adminv1.ListLimitsRequest{}, response); err != nil {
		cobra.CompDebugln(err.Error(), false)
	}
	for _, l := range response.GetLimits() {
		found = append(found, cobra.CompletionWithDesc(l.GetName(), fmt.Sprintf("%d waiting", l.GetWaiting())))
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}
