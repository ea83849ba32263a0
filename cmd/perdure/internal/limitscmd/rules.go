package limitscmd

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

// anyNumber is the value of a flag that lifts what is declared.
const anyNumber = "unlimited"

// ruleNames says what rules may be for.
const ruleNames = `NAME is the limit's, as "perdure services describe" has it behind the service and a slash. Of a limit
that counts limit keys, tenants or objects apart it is for all of them; with =VALUE behind it is
for one, and with =BEGINNING* for those that begin so. Of several rules for one limit the most exact
one counts, and no other.`

func (c command) set() *cobra.Command {
	r := &adminv1.LimitRule{}
	var concurrency, rate, queue string
	var burst uint32
	var undeclared bool
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Let a limit let something else than what is declared, from now on",
		Long: `Let a limit let something else than what is declared, from now on and until the rule is removed: through
restarts, changes of leaders and new builds.

` + ruleNames + ` What is not given is as declared. A rule of the same name is replaced.

Who runs goes on. With a lower concurrency nobody begins until fewer run; with a higher one, those that
wait begin at once.`,
		Example: `  perdure limits set bank.v1.AccountService/workers --concurrency 5
  perdure limits set bank.v1.AccountService/Charge/provider --rate 100/1m --burst 10
  perdure limits set bank.v1.AccountService/customer=alice --concurrency 0 --description 'see ticket 4711'
  perdure limits set 'bank.v1.AccountService/customer=test-*' --max-queue 10`,
		Args:              c.Args("NAME"),
		ValidArgsFunction: c.completeLimits,
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Name = args[0]
			var err error
			if r.Concurrency, r.AnyConcurrency, err = c.bound("--concurrency", concurrency); err != nil {
				return err
			}
			if r.MaxQueue, r.AnyQueue, err = c.bound("--max-queue", queue); err != nil {
				return err
			}
			if r.Rate, r.AnyRate, err = c.rate(rate); err != nil {
				return err
			}
			switch {
			case burst > 0 && r.Rate == nil:
				return c.Usage("--burst is of a rate: give --rate too")
			case burst > 0:
				r.Rate.Burst = burst
			}
			if r.Concurrency == nil && r.Rate == nil && r.MaxQueue == nil && !r.AnyConcurrency && !r.AnyRate && !r.AnyQueue {
				return c.Usage("the rule says nothing: give --concurrency, --rate or --max-queue")
			}
			made := &adminv1.SetLimitRulesResponse{}
			if err := c.Call(cmd.Context(), "SetLimitRules", &adminv1.SetLimitRulesRequest{Rules: []*adminv1.LimitRule{r}, Undeclared: undeclared}, made); err != nil {
				return err
			}
			if c.JSON() {
				return c.Print(made)
			}
			for _, r := range made.GetRules() {
				c.printRule(r, nil)
			}
			c.noteMissing(made.GetMissing())
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&concurrency, "concurrency", "", "how many `n` may run; 0 for none, or "+anyNumber)
	flags.StringVar(&rate, "rate", "", "how many may begin, `count/duration` such as 20/1s, or "+anyNumber)
	flags.Uint32Var(&burst, "burst", 0, "with --rate, how many `n` may begin at once after a rest; the count if left out")
	flags.StringVar(&queue, "max-queue", "", "how many `n` may wait; 0 for none, or "+anyNumber)
	flags.StringVar(&r.Description, "description", "", "`why`, for whoever sees the rule")
	flags.BoolVar(&undeclared, "undeclared", false, "set it though this build declares no such limit: the next one will")
	for _, name := range []string{"concurrency", "rate", "burst", "max-queue", "description"} {
		must(cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions))
	}
	return cmd
}

// bound reads a number or that there is none.
func (c command) bound(flag, value string) (most *uint32, anything bool, err error) {
	switch value {
	case "":
		return nil, false, nil
	case anyNumber:
		return nil, true, nil
	}
	n, err := strconv.ParseUint(value, 10, 31)
	if err != nil {
		return nil, false, c.Usage("%s is %q; it must be a number or %s", flag, value, anyNumber)
	}
	return proto.Uint32(uint32(n)), false, nil
}

func (c command) rate(value string) (rate *perdurev1.Rate, anything bool, err error) {
	switch value {
	case "":
		return nil, false, nil
	case anyNumber:
		return nil, true, nil
	}
	count, per, ok := strings.Cut(value, "/")
	n, countErr := strconv.ParseUint(count, 10, 31)
	switch per {
	case "s", "m", "h":
		per = "1" + per
	}
	duration, perErr := time.ParseDuration(per)
	if !ok || countErr != nil || perErr != nil || n == 0 || duration <= 0 {
		return nil, false, c.Usage("--rate is %q; it must be count/duration, such as 20/1s or 100/1m, or %s", value, anyNumber)
	}
	return &perdurev1.Rate{Count: uint32(n), Per: durationpb.New(duration)}, false, nil
}

func (c command) remove() *cobra.Command {
	return &cobra.Command{
		Use:   "remove NAME",
		Short: "Remove a rule: what is declared counts again, or a rule for more",
		Long: `Remove a rule: what is declared counts again, or a rule for more.

NAME is as "perdure limits list --rules" has it.`,
		Example: `  perdure limits remove bank.v1.AccountService/workers
  perdure limits remove 'bank.v1.AccountService/customer=test-*'`,
		Args:              c.Args("NAME"),
		ValidArgsFunction: c.completeRules,
		RunE: func(cmd *cobra.Command, args []string) error {
			made := &adminv1.RemoveLimitRulesResponse{}
			if err := c.Call(cmd.Context(), "RemoveLimitRules", &adminv1.RemoveLimitRulesRequest{Names: args}, made); err != nil {
				return err
			}
			if c.JSON() {
				return c.Print(made)
			}
			c.Printf("the rule %s is removed\n", args[0])
			c.noteMissing(made.GetMissing())
			return nil
		},
	}
}

// noteMissing says where a change does not hold yet.
func (c command) noteMissing(missing []uint32) {
	if len(missing) == 0 {
		return
	}
	var names []string
	for _, id := range missing {
		names = append(names, strconv.Itoa(int(id)))
	}
	c.Note("it is kept, and not yet known in partitions %s: there it holds as soon as they have a leader", strings.Join(names, ", "))
}

// says is what a rule says.
func (c command) says(r *adminv1.LimitRule) string {
	var parts []string
	switch {
	case r.GetAnyConcurrency():
		parts = append(parts, "any number at once")
	case r.Concurrency != nil && r.GetConcurrency() == 0:
		parts = append(parts, "none")
	case r.Concurrency != nil:
		parts = append(parts, fmt.Sprintf("at most %d", r.GetConcurrency()))
	}
	switch {
	case r.GetAnyRate():
		parts = append(parts, "at any rate")
	case r.GetRate() != nil:
		parts = append(parts, rateText(r.GetRate(), c.Lasting))
	}
	switch {
	case r.GetAnyQueue():
		parts = append(parts, "any number waiting")
	case r.MaxQueue != nil:
		parts = append(parts, queueText(r.GetMaxQueue()))
	}
	return strings.Join(parts, ", ")
}

func (c command) printRule(r *adminv1.LimitRule, now *timestamppb.Timestamp) {
	set := ""
	if now != nil {
		set = c.Ago(r.GetSetAt(), now)
	}
	c.Printf("%s\n", c.Strong(r.GetName()))
	c.Fields("  ",
		"rule", c.says(r),
		"because", r.GetDescription(),
		"declared", c.declaredText(r.GetDeclared()),
		"unused", unusedText(r),
		"set", set,
	)
}

// unusedText leaves out the name, which is beside it.
func unusedText(r *adminv1.LimitRule) string {
	return strings.TrimPrefix(r.GetUnused(), r.GetName()+": ")
}

func (c command) listRules(ctx context.Context, service string, limit int) error {
	found := &adminv1.ListLimitRulesResponse{}
	if err := c.Call(ctx, "ListLimitRules", &adminv1.ListLimitRulesRequest{Service: service, PageSize: uint32(limit)}, found); err != nil {
		return err
	}
	if c.JSON() {
		return c.Print(found)
	}
	if len(found.GetRules()) == 0 {
		what := "there are no rules"
		if service != "" {
			what += " for limits of " + service
		}
		c.Note("%s", what)
	} else {
		var rows [][]string
		for _, r := range found.GetRules() {
			rows = append(rows, []string{r.GetName(), c.says(r), orDash(c.declaredText(r.GetDeclared())), c.Between(r.GetSetAt(), found.GetAt())})
		}
		c.Table("", []string{"RULE", "LETS", "INSTEAD OF", "AGE"}, rows, func(row int) []string {
			r := found.GetRules()[row]
			var below []string
			if r.GetDescription() != "" {
				below = append(below, "because: "+r.GetDescription())
			}
			if r.GetUnused() != "" {
				below = append(below, "unused: "+unusedText(r))
			}
			return below
		})
	}
	if found.GetNextPageToken() != "" {
		c.Note("… and more: filter, or raise --limit (at most %d)", mostListed)
	}
	c.noteMissing(found.GetMissing())
	return nil
}

// completeRules proposes the rules.
func (c command) completeRules(cmd *cobra.Command, given []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	var found []cobra.Completion
	if len(given) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	response := &adminv1.ListLimitRulesResponse{}
	c.Complete(cmd, "ListLimitRules", &adminv1.ListLimitRulesRequest{}, response)
	for _, r := range response.GetRules() {
		found = append(found, cobra.CompletionWithDesc(r.GetName(), c.says(r)))
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}
