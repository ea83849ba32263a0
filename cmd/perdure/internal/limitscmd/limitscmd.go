// Package limitscmd is the command "perdure limits": it shows what becomes of limits, and sets the
// rules by which an operator changes what they let. It talks to any node's AdminService.
package limitscmd

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

// Console is what the command needs of the program that it is part of. All of it must be set.
type Console struct {
	// Call calls an rpc of AdminService, and Complete does while a shell waits for proposals, or
	// leaves the response empty.
	Call     func(ctx context.Context, rpc string, request, response proto.Message) error
	Complete func(cmd *cobra.Command, rpc string, request, response proto.Message)
	// CompleteService proposes services.
	CompleteService cobra.CompletionFunc
	// Args takes arguments of these names.
	Args func(names ...string) cobra.PositionalArgs
	// Usage is an error of the command line.
	Usage func(format string, args ...any) error
	// JSON is whether messages are printed, by Print, rather than tables. Table prints the lines
	// that below returns for a row under it.
	JSON   func() bool
	Print  func(message proto.Message) error
	Table  func(indent string, header []string, rows [][]string, below func(row int) []string)
	Fields func(indent string, pairs ...string)
	Printf func(format string, args ...any)
	Strong func(text string) string
	// Note is for people, beside what is printed.
	Note func(format string, args ...any)
	// Lasting, Between and Ago are how durations and instants are written.
	Lasting func(*durationpb.Duration) string
	Between func(from, to *timestamppb.Timestamp) string
	Ago     func(at, now *timestamppb.Timestamp) string
}

// mostListed is the largest page the node gives.
const mostListed = 1000

type command struct{ Console }

// Command makes the command.
func Command(console Console) *cobra.Command {
	c := command{console}
	root := &cobra.Command{
		Use:     "limits",
		Aliases: []string{"limit"},
		Short:   "Show limits on how many invocations run, begin or wait, and change them",
		Long: `Show limits on how many invocations run, begin or wait, and change them.

Limits are declared in the .proto: "perdure services describe" shows them. Here is what becomes of
them: who holds permits, who waits, and in which order; and the rules by which, at run time, they let
something else than what is declared.`,
		Example: `  perdure limits list --waiting
  perdure limits get bank.v1.AccountService/workers
  perdure limits set bank.v1.AccountService/workers --concurrency 5
  perdure limits list --rules`,
	}
	root.AddCommand(c.list(), c.get(), c.set(), c.remove())
	return root
}

func must(err error) {
	if err != nil {
		panic(err) // A test builds the whole tree.
	}
}

func (c command) list() *cobra.Command {
	request := &adminv1.ListLimitsRequest{}
	var limit int
	var rules bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the limits in use, those with the most waiting first, or the rules",
		Long: `List the limits in use, those with the most waiting first, or the rules.

A limit that counts keys, limit keys or tenants apart has a line for each that somebody uses. TOKENS
are what a rate lets begin at once now. Under a limit for which a rule counts are the rule and what
is declared.

With --rules the rules that operators have set are listed by name, used or not.`,
		Example: `  perdure limits list --waiting
  perdure limits list --rules
  perdure limits list --service bank.v1.AccountService -o json | jq -r '.limits[].name'`,
		Args:              c.Args(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 || limit > mostListed {
				return c.Usage("--limit is %d; it must be from 1 to %d", limit, mostListed)
			}
			if rules {
				if request.Waiting {
					return c.Usage("--waiting is of limits, and --rules lists rules: drop one")
				}
				return c.listRules(cmd.Context(), request.Service, limit)
			}
			request.PageSize = uint32(limit)
			found := &adminv1.ListLimitsResponse{}
			if err := c.Call(cmd.Context(), "ListLimits", request, found); err != nil {
				return err
			}
			if c.JSON() {
				return c.Print(found)
			}
			c.printLimits(request, found)
			return nil
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&request.Waiting, "waiting", false, "only those that somebody waits for")
	flags.BoolVar(&rules, "rules", false, "list the rules instead of the limits in use")
	flags.StringVar(&request.Service, "service", "", "only those of this `service`, such as bank.v1.AccountService")
	flags.IntVar(&limit, "limit", 50, "at most `n`")
	must(cmd.RegisterFlagCompletionFunc("service", c.CompleteService))
	must(cmd.RegisterFlagCompletionFunc("limit", cobra.NoFileCompletions))
	return cmd
}

func (c command) get() *cobra.Command {
	return &cobra.Command{
		Use:   "get NAME",
		Short: "Show who holds the permits of one limit and who waits, or one rule",
		Long: `Show who holds the permits of one limit and who waits, in the order in which they begin: what has
begun before, then the higher priority, then turns of the tenants, then the first to come.

NAME is as "perdure limits list" has it, or the name of a rule. A limit that nobody uses and that no
rule is for is not found.`,
		Example: `  perdure limits get bank.v1.AccountService/workers
  perdure limits get bank.v1.AccountService/customer=alice -o json`,
		Args:              c.Args("NAME"),
		ValidArgsFunction: c.completeLimits,
		RunE: func(cmd *cobra.Command, args []string) error {
			found := &adminv1.GetLimitResponse{}
			if err := c.Call(cmd.Context(), "GetLimit", &adminv1.GetLimitRequest{Name: args[0]}, found); err != nil {
				return err
			}
			if c.JSON() {
				return c.Print(found)
			}
			c.printLimit(found)
			return nil
		},
	}
}

// Text is what a limit lets: "at most 3, 10 each 1s with 5 at once, at most 100 waiting".
func Text(l *perdurev1.Limit, lasting func(*durationpb.Duration) string) string {
	var parts []string
	if l.GetBy() != perdurev1.By_BY_UNSPECIFIED {
		parts = append(parts, "by "+l.GetBy().String())
	}
	if l.GetConcurrency() > 0 {
		parts = append(parts, fmt.Sprintf("at most %d", l.GetConcurrency()))
	}
	if l.GetUntilDone() {
		parts = append(parts, "until done")
	}
	if l.GetRate() != nil {
		parts = append(parts, rateText(l.GetRate(), lasting))
	}
	if l.MaxQueue != nil {
		parts = append(parts, queueText(l.GetMaxQueue()))
	}
	return strings.Join(parts, ", ")
}

func rateText(rate *perdurev1.Rate, lasting func(*durationpb.Duration) string) string {
	return fmt.Sprintf("%d each %s with %d at once", rate.GetCount(), lasting(rate.GetPer()), rate.GetBurst())
}

func queueText(most uint32) string {
	if most == 0 {
		return "none waiting"
	}
	return fmt.Sprintf("at most %d waiting", most)
}

// lets is what a limit in use lets now.
func (c command) lets(l *adminv1.Limit) string {
	text := Text(&perdurev1.Limit{Concurrency: l.GetConcurrency(), Rate: l.GetRate(), MaxQueue: l.MaxQueue, UntilDone: l.GetUntilDone()}, c.Lasting)
	switch {
	case l.GetClosed() && text == "":
		return "none"
	case l.GetClosed():
		return "none, " + text
	case text == "":
		return "any number"
	}
	return text
}

func (c command) declaredText(l *perdurev1.Limit) string {
	if l == nil {
		return ""
	}
	return Text(l, c.Lasting)
}

func number(n uint32) string {
	if n == 0 {
		return "-"
	}
	return strconv.Itoa(int(n))
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func (c command) printLimits(request *adminv1.ListLimitsRequest, found *adminv1.ListLimitsResponse) {
	if len(found.GetLimits()) == 0 {
		what := "nobody uses a limit"
		if request.GetWaiting() {
			what = "nobody waits for a limit"
		}
		if request.GetService() != "" {
			what += " of " + request.GetService()
		}
		c.Note("%s", what)
		return
	}
	var rows [][]string
	for _, l := range found.GetLimits() {
		held, tokens := "-", "-"
		switch {
		case l.GetConcurrency() > 0 || l.GetClosed():
			held = fmt.Sprintf("%d of %d", l.GetHeld(), l.GetConcurrency())
		case l.GetHeld() > 0:
			held = number(l.GetHeld())
		}
		if l.GetRate() != nil {
			tokens = fmt.Sprintf("%d of %d", l.GetTokens(), l.GetRate().GetBurst())
		}
		rows = append(rows, []string{l.GetName(), held, tokens, number(l.GetWaiting()), orDash(c.Between(l.GetOldestWait(), found.GetAt()))})
	}
	c.Table("", []string{"LIMIT", "HELD", "TOKENS", "WAITING", "LONGEST"}, rows, func(row int) []string {
		l := found.GetLimits()[row]
		if l.GetRule() == "" {
			return nil
		}
		return []string{"by the rule " + l.GetRule() + ": " + c.lets(l), "declared: " + c.declaredText(l.GetDeclared())}
	})
	if found.GetMore() {
		c.Note("… and more: filter, or raise --limit (at most %d)", mostListed)
	}
}

func (c command) printLimit(found *adminv1.GetLimitResponse) {
	l, r := found.GetLimit(), found.GetRule()
	if l.GetPartition() == 0 { // Nobody uses it: it is a rule.
		c.printRule(r, found.GetAt())
		c.Note("nobody uses a limit of that very name")
		return
	}
	tokens, rule, declared, oldest := "", "", "", ""
	if l.GetRate() != nil {
		tokens = fmt.Sprintf("%d of %d", l.GetTokens(), l.GetRate().GetBurst())
	}
	if l.GetRule() != "" {
		rule, declared = l.GetRule(), c.declaredText(l.GetDeclared())
		if r != nil {
			rule += ", set " + c.Ago(r.GetSetAt(), found.GetAt())
		}
	}
	if l.GetOldestWait() != nil {
		oldest = c.Ago(l.GetOldestWait(), found.GetAt())
	}
	c.Printf("%s\n", c.Strong(l.GetName()))
	c.Fields("  ",
		"lets", c.lets(l),
		"rule", rule,
		"because", r.GetDescription(),
		"declared", declared,
		"held", strconv.Itoa(int(l.GetHeld())),
		"waiting", strconv.Itoa(int(l.GetWaiting())),
		"longest wait", oldest,
		"tokens", tokens,
		"owner", fmt.Sprintf("partition %d", l.GetPartition()),
	)
	c.printMembers(l, found.GetAt())
}

func (c command) printMembers(l *adminv1.Limit, now *timestamppb.Timestamp) {
	none := func(int) []string { return nil }
	if len(l.GetTenants()) > 1 || len(l.GetTenants()) == 1 && l.GetTenants()[0].GetTenant() != "" {
		var rows [][]string
		for _, t := range l.GetTenants() {
			rows = append(rows, []string{orDash(t.GetTenant()), number(t.GetHeld()), number(t.GetWaiting())})
		}
		c.Printf("\n")
		c.Table("  ", []string{"TENANT", "HELD", "WAITING"}, rows, none)
	}
	var rows [][]string
	for _, m := range l.GetHolders() {
		rows = append(rows, []string{m.GetInvocationId(), "holds", c.Between(m.GetSince(), now), "-", orDash(m.GetTenant())})
	}
	for _, m := range l.GetQueue() {
		what := "waits"
		if m.GetBegun() {
			what = "waits to go on"
		}
		rows = append(rows, []string{m.GetInvocationId(), what, c.Between(m.GetSince(), now), strconv.Itoa(int(m.GetPriority())), orDash(m.GetTenant())})
	}
	if len(rows) > 0 {
		c.Printf("\n")
		c.Table("  ", []string{"INVOCATION", "", "SINCE", "PRIORITY", "TENANT"}, rows, none)
	}
	if more := int(l.GetHeld()) - len(l.GetHolders()) + int(l.GetWaiting()) - len(l.GetQueue()); more > 0 {
		c.Note("… and %d more", more)
	}
}

// completeLimits proposes the limits in use.
func (c command) completeLimits(cmd *cobra.Command, given []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	var found []cobra.Completion
	if len(given) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	response := &adminv1.ListLimitsResponse{}
	c.Complete(cmd, "ListLimits", &adminv1.ListLimitsRequest{}, response)
	for _, l := range response.GetLimits() {
		found = append(found, cobra.CompletionWithDesc(l.GetName(), fmt.Sprintf("%d waiting", l.GetWaiting())))
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}
