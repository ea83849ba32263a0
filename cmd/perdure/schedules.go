package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

func (c *cli) schedulesCommand() *cobra.Command {
	command := &cobra.Command{
		Use:     "schedules",
		Aliases: []string{"schedule"},
		Short:   "Call handlers again and again, by the clock",
		Long: `Call handlers again and again, by the clock.

A schedule calls a handler by a cron expression in a time zone, or in an interval: once for each due
time, whatever crashes. Those that a .proto declares are named package.Service/name; they can be
paused, triggered and backfilled here, and changed there.`,
		Example: `  perdure schedules list
  perdure schedules next bank.v1.InterestService/nightly
  perdure schedules pause bank.v1.InterestService/nightly --note 'the books are closed'
  perdure schedules create remind-bob bank.v1.AccountService/Deposit --key bob --cron '0 9 * * 1-5' --time-zone Europe/Berlin --request '{"amount":"5"}'`,
	}
	command.AddCommand(
		c.listSchedulesCommand(), c.getScheduleCommand(), c.createScheduleCommand(), c.deleteScheduleCommand(), c.pauseScheduleCommand(),
		c.resumeScheduleCommand(), c.triggerScheduleCommand(), c.backfillScheduleCommand(), c.nextDueTimesCommand(),
	)
	return command
}

func (c *cli) schedules(cmd *cobra.Command, rpc string, request, response proto.Message) error {
	return c.builtIn(cmd.Context(), "perdure.v1.ScheduleService", rpc, request, response)
}

func (c *cli) listSchedulesCommand() *cobra.Command {
	request := &perdurev1.ListSchedulesRequest{}
	var limit int
	command := &cobra.Command{
		Use:               "list",
		Short:             "List schedules by name, with when each is due next",
		Example:           "  perdure schedules list --prefix bank.v1.",
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 || limit > adminPage {
				return usagef("--limit is %d; it must be from 1 to %d", limit, adminPage)
			}
			request.PageSize = uint32(limit)
			found := &perdurev1.ListSchedulesResponse{}
			if err := c.schedules(cmd, "ListSchedules", request, found); err != nil {
				return err
			}
			if c.output == "json" {
				return c.printMessage(found)
			}
			c.printSchedules(request, found)
			return nil
		},
	}
	command.Flags().StringVar(&request.Prefix, "prefix", "", "only those whose names begin with `text`")
	command.Flags().IntVar(&limit, "limit", 100, "at most `n`")
	must(command.RegisterFlagCompletionFunc("prefix", cobra.NoFileCompletions))
	must(command.RegisterFlagCompletionFunc("limit", cobra.NoFileCompletions))
	return command
}

func (c *cli) printSchedules(request *perdurev1.ListSchedulesRequest, found *perdurev1.ListSchedulesResponse) {
	if len(found.GetSchedules()) == 0 {
		if request.GetPrefix() != "" {
			c.note("no schedule's name begins with %s", request.GetPrefix())
		} else {
			c.note("there are no schedules; to make one: perdure schedules create --help")
		}
		return
	}
	var rows [][]string
	for _, s := range found.GetSchedules() {
		st, last := s.GetState(), "-"
		if recent := st.GetRecent(); len(recent) > 0 {
			last = enumName(recent[0].GetStatus(), "FIRING_STATUS_")
		}
		next := instant(st.GetNextDue())
		if st.GetPaused() {
			next = "paused"
		}
		rows = append(rows, []string{
			s.GetSchedule().GetName(), when(s.GetSchedule()), next, last, fmt.Sprint(st.GetFired()), fmt.Sprint(st.GetFailed()),
			fmt.Sprint(st.GetSkipped()), fmt.Sprint(st.GetMissed()), aim(s.GetSchedule()),
		})
	}
	c.table("", []string{"NAME", "WHEN", "NEXT", "LATEST", "FIRED", "FAILED", "SKIPPED", "MISSED", "TARGET"}, rows)
	if found.GetNextPageToken() != "" {
		c.note("… and more: filter, or raise --limit (at most %d)", adminPage)
	}
}

// enumName is "succeeded" for FIRING_STATUS_SUCCEEDED.
func enumName(value fmt.Stringer, prefix string) string {
	return strings.ToLower(strings.TrimPrefix(value.String(), prefix))
}

// when is "0 3 * * * Europe/Berlin" or "every 1h".
func when(s *perdurev1.Schedule) string {
	if s.GetCron() != "" {
		return strings.TrimSpace(s.GetCron() + " " + s.GetTimeZone())
	}
	text := "every " + lasting(s.GetEvery())
	if s.GetOffset() != nil {
		text += " + " + lasting(s.GetOffset())
	}
	return text
}

func aim(s *perdurev1.Schedule) string {
	if s.GetKey() == "" {
		return s.GetService() + "/" + s.GetHandler()
	}
	return s.GetService() + "/" + s.GetKey() + "/" + s.GetHandler()
}

func (c *cli) getScheduleCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "get NAME",
		Short:             "Show a schedule with its next due times and latest firings",
		Args:              args("NAME"),
		ValidArgsFunction: c.completeSchedules,
		RunE: func(cmd *cobra.Command, args []string) error {
			found := &perdurev1.GetScheduleResponse{}
			if err := c.schedules(cmd, "GetSchedule", &perdurev1.GetScheduleRequest{Name: args[0]}, found); err != nil {
				return err
			}
			if c.output == "json" {
				return c.printMessage(found)
			}
			return c.printSchedule(found)
		},
	}
}

func (c *cli) printSchedule(found *perdurev1.GetScheduleResponse) error {
	s, st := found.GetSchedule(), found.GetState()
	origin, paused, due := "made at run time", "", ""
	if st.GetDeclared() {
		origin = "declared in the .proto"
	}
	if st.GetPaused() {
		paused = strings.TrimSpace("since " + instant(st.GetPausedAt()) + "  " + st.GetNote())
	}
	for i, at := range found.GetDueTimes() {
		if i > 0 {
			due += ", "
		}
		due += instant(at)
	}
	limit := ""
	if s.GetMisfireLimit() > 0 {
		limit = fmt.Sprintf(", at most %d", s.GetMisfireLimit())
	}
	bounds := ""
	if s.GetStartAt() != nil {
		bounds = "from " + instant(s.GetStartAt())
	}
	if s.GetEndAt() != nil {
		bounds = strings.TrimSpace(bounds + " until " + instant(s.GetEndAt()))
	}
	c.fields("",
		"name", s.GetName(), "origin", origin, "when", when(s), "bounds", bounds, "jitter", lasting(s.GetJitter()),
		"overlap", policyName(s.GetOverlap(), "OVERLAP_", "skip"), "misfire", policyName(s.GetMisfire(), "MISFIRE_", "once")+limit,
		"misfire grace", lasting(s.GetMisfireGrace()), "target", aim(s), "due field", s.GetDueField(),
		"created", instant(st.GetCreatedAt()), "changed", instant(st.GetUpdatedAt()), "paused", paused, "next", due,
		"counts", fmt.Sprintf("%d fired: %d succeeded, %d failed, %d running; %d skipped, %d missed",
			st.GetFired(), st.GetSucceeded(), st.GetFailed(), st.GetRunning(), st.GetSkipped(), st.GetMissed()),
	)
	if b := st.GetBackfill(); b != nil {
		c.fields("", "backfill", fmt.Sprintf("under way, next %s, until %s", instant(b.GetNextDue()), instant(b.GetUntil())))
	}
	if json := s.GetJson(); json != nil {
		c.printf("request:\n")
		if err := c.printMessage(json); err != nil {
			return err
		}
	}
	firings := append(append([]*perdurev1.Firing{}, st.GetPending()...), st.GetRecent()...)
	if len(firings) == 0 {
		return nil
	}
	c.printf("\n")
	var rows [][]string
	for _, f := range firings {
		rows = append(rows, firingRow(f))
	}
	c.tableWith("", []string{"DUE", "STATUS", "WHY", "FIRED", "TOOK", "INVOCATION"}, rows, func(i int) []string {
		if text := firings[i].GetError(); text != "" {
			return []string{enumName(firings[i].GetCode(), "CODE_") + ": " + clip(text, 200)}
		}
		return nil
	})
	return nil
}

func firingRow(f *perdurev1.Firing) []string {
	return []string{
		instant(f.GetDueAt()), enumName(f.GetStatus(), "FIRING_STATUS_"), enumName(f.GetOrigin(), "FIRING_ORIGIN_"),
		instant(f.GetFiredAt()), between(f.GetFiredAt(), f.GetEndedAt()), orDash(f.GetInvocationId()),
	}
}

func policyName(value fmt.Stringer, prefix, or string) string {
	if name := enumName(value, prefix); name != "unspecified" {
		return name
	}
	return or
}

// completeSchedules completes the name of a schedule.
func (c *cli) completeSchedules(cmd *cobra.Command, given []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(given) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	found := &perdurev1.ListSchedulesResponse{}
	if err := c.schedules(cmd, "ListSchedules", &perdurev1.ListSchedulesRequest{Prefix: begun, PageSize: adminPage}, found); err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []cobra.Completion
	for _, s := range found.GetSchedules() {
		names = append(names, cobra.CompletionWithDesc(s.GetSchedule().GetName(), when(s.GetSchedule())))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (c *cli) nextDueTimesCommand() *cobra.Command {
	request := &perdurev1.ListDueTimesRequest{}
	schedule := &perdurev1.Schedule{}
	var count int
	var every, offset time.Duration
	var after string
	command := &cobra.Command{
		Use:   "next [NAME]",
		Short: "Say when a schedule is due, or would be",
		Long: `Say when a schedule is due, or would be: of one that exists by its NAME, of any other by --cron or
--every. Times are shown in this machine's time zone (TZ). Jitter is not in them.`,
		Example: `  perdure schedules next bank.v1.InterestService/nightly --count 3
  perdure schedules next --cron '30 2 * * *' --time-zone Europe/Berlin --after 2026-10-24T00:00:00Z`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: c.completeSchedules,
		RunE: func(cmd *cobra.Command, args []string) error {
			made := schedule.Cron != "" || every != 0
			switch {
			case len(args) == 0 && !made:
				return usagef("NAME is missing; or give --cron or --every")
			case len(args) > 0 && made:
				return usagef("there are both NAME and --cron or --every: give one of them")
			case count < 1 || count > adminPage:
				return usagef("--count is %d; it must be from 1 to %d", count, adminPage)
			case made:
				schedule.Every, schedule.Offset = span(every), span(offset)
				request.Of = &perdurev1.ListDueTimesRequest_Schedule{Schedule: schedule}
			default:
				request.Of = &perdurev1.ListDueTimesRequest_Name{Name: args[0]}
			}
			request.Count = uint32(count)
			if after != "" {
				at, err := parseInstant("--after", after)
				if err != nil {
					return err
				}
				request.After = at
			}
			found := &perdurev1.ListDueTimesResponse{}
			if err := c.schedules(cmd, "ListDueTimes", request, found); err != nil {
				return err
			}
			if c.output == "json" {
				return c.printMessage(found)
			}
			if len(found.GetDueTimes()) == 0 {
				c.note("it is not due any more")
			}
			for _, at := range found.GetDueTimes() {
				c.printf("%s\n", at.AsTime().Local().Format("Mon 2006-01-02 15:04:05 -0700"))
			}
			return nil
		},
	}
	flags := command.Flags()
	flags.StringVar(&schedule.Cron, "cron", "", "`expression`: minute, hour, day of month, month, weekday")
	flags.StringVar(&schedule.TimeZone, "time-zone", "", "IANA `name` for --cron, such as Europe/Berlin; UTC if left out")
	flags.DurationVar(&every, "every", 0, "interval, such as 6h")
	flags.DurationVar(&offset, "offset", 0, "`duration` after each multiple of --every")
	flags.StringVar(&after, "after", "", "`instant` after which to begin, such as 2026-11-28T00:00:00Z; now if left out")
	flags.IntVar(&count, "count", 10, "`n` due times")
	for _, name := range []string{"cron", "time-zone", "every", "offset", "after", "count"} {
		must(command.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions))
	}
	return command
}

// parseInstant reads an argument such as 2026-11-28T03:00:00Z.
func parseInstant(name, text string) (*timestamppb.Timestamp, error) {
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return nil, usagef("%s is %q, which is not an instant such as 2026-11-28T03:00:00Z or 2026-11-28T03:00:00+01:00", name, text)
	}
	return timestamppb.New(at), nil
}
