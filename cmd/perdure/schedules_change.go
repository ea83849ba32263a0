package main

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

// span is nil for 0.
func span(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

// policy finds an enum's value by the name that users write.
func policy(flag, name, prefix string, values map[string]int32) (int32, error) {
	if name == "" {
		return 0, nil
	}
	if value, ok := values[prefix+strings.ToUpper(strings.ReplaceAll(name, "-", "_"))]; ok && value != 0 {
		return value, nil
	}
	return 0, usagef("%s is %q; it must be one of: %s", flag, name, strings.Join(policies(prefix, values), ", "))
}

func policies(prefix string, values map[string]int32) []string {
	var names []string
	for name, value := range values {
		if value != 0 {
			names = append(names, strings.ToLower(strings.TrimPrefix(name, prefix)))
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		return int(values[prefix+strings.ToUpper(a)] - values[prefix+strings.ToUpper(b)])
	})
	return names
}

func (c *cli) createScheduleCommand() *cobra.Command {
	s := &perdurev1.Schedule{}
	var every, offset, jitter, grace time.Duration
	var overlap, misfire, start, end, request string
	var replace bool
	command := &cobra.Command{
		Use:   "create NAME SERVICE/HANDLER",
		Short: "Make a schedule, or with --replace give one another definition",
		Long: `Make a schedule, or with --replace give one another definition.

The request is JSON without the key, which --key gives. {due} in the key stands for the due time, and
--due-field names a field of the request that gets it.`,
		Example: `  perdure schedules create standing-order bank.v1.AccountService/Deposit --key bob --request '{"amount":"5"}' --cron '0 9 1 * *' --time-zone Europe/Berlin
  perdure schedules create sync shop.v1.StockService/Sync --every 15m --jitter 1m --overlap queue_one
  perdure schedules create report shop.v1.ReportService/Run --key 'report {due}' --cron @daily --misfire all`,
		Args:              args("NAME", "SERVICE/HANDLER"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			slash := strings.LastIndexByte(args[1], '/')
			if slash < 0 {
				return usagef("%q is not SERVICE/HANDLER, such as bank.v1.AccountService/Deposit", args[1])
			}
			s.Name, s.Service, s.Handler = args[0], args[1][:slash], args[1][slash+1:]
			s.Every, s.Offset, s.Jitter, s.MisfireGrace = span(every), span(offset), span(jitter), span(grace)
			value, err := policy("--overlap", overlap, "OVERLAP_", perdurev1.Overlap_value)
			if err != nil {
				return err
			}
			s.Overlap = perdurev1.Overlap(value)
			if value, err = policy("--misfire", misfire, "MISFIRE_", perdurev1.Misfire_value); err != nil {
				return err
			}
			s.Misfire = perdurev1.Misfire(value)
			if start != "" {
				if s.StartAt, err = parseInstant("--start", start); err != nil {
					return err
				}
			}
			if end != "" {
				if s.EndAt, err = parseInstant("--end", end); err != nil {
					return err
				}
			}
			if request != "" {
				given := &structpb.Struct{}
				if !json.Valid([]byte(request)) || protojson.Unmarshal([]byte(request), given) != nil {
					return usagef("--request is %q, which is not a JSON object", clip(request, 80))
				}
				s.Request = &perdurev1.Schedule_Json{Json: given}
			}
			made := &perdurev1.PutScheduleResponse{}
			if err := c.schedules(cmd, "PutSchedule", &perdurev1.PutScheduleRequest{Schedule: s, Create: !replace}, made); err != nil {
				return err
			}
			if c.output == "json" {
				return c.printMessage(made)
			}
			what := "is as it was"
			if made.GetChanged() {
				what = "is made"
				if !made.GetState().GetCreatedAt().AsTime().Equal(made.GetState().GetUpdatedAt().AsTime()) {
					what = "is changed"
				}
			}
			if made.GetState().GetPaused() {
				c.printf("%s %s; it is paused\n", s.Name, what)
			} else {
				c.printf("%s %s; next due %s\n", s.Name, what, instant(made.GetState().GetNextDue()))
			}
			return nil
		},
	}
	flags := command.Flags()
	flags.StringVar(&s.Cron, "cron", "", "`expression`: minute, hour, day of month, month, weekday; or @hourly, @daily, @weekly, @monthly")
	flags.StringVar(&s.TimeZone, "time-zone", "", "IANA `name` for --cron, such as Europe/Berlin; UTC if left out")
	flags.DurationVar(&every, "every", 0, "interval, counted from 1970 in UTC, such as 6h")
	flags.DurationVar(&offset, "offset", 0, "`duration` after each multiple of --every")
	flags.DurationVar(&jitter, "jitter", 0, "fire up to this `duration` late, each due time at its own place")
	flags.StringVar(&overlap, "overlap", "", "`policy` for a due time while a firing is under way: "+strings.Join(policies("OVERLAP_", perdurev1.Overlap_value), ", "))
	flags.StringVar(&misfire, "misfire", "", "`policy` for due times that passed while the node was down: "+strings.Join(policies("MISFIRE_", perdurev1.Misfire_value), ", "))
	flags.Uint32Var(&s.MisfireLimit, "misfire-limit", 0, "the most due times, `n`, that --misfire all makes up for")
	flags.DurationVar(&grace, "misfire-grace", 0, "`duration` by which a due time may be late before it was missed; a minute if left out")
	flags.StringVar(&start, "start", "", "first `instant` at which it may be due")
	flags.StringVar(&end, "end", "", "last `instant` at which it may be due")
	flags.StringVar(&s.Key, "key", "", "`key` of the object")
	flags.StringVar(&request, "request", "", "`JSON` of the request, without its key")
	flags.StringVar(&s.DueField, "due-field", "", "`field` of the request, a google.protobuf.Timestamp, that gets the due time")
	flags.BoolVar(&s.Paused, "paused", false, "make it paused")
	flags.BoolVar(&replace, "replace", false, "change the schedule of that name if there is one")
	for _, name := range []string{"cron", "time-zone", "every", "offset", "jitter", "misfire-limit", "misfire-grace", "start", "end", "key", "request", "due-field"} {
		must(command.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions))
	}
	must(command.RegisterFlagCompletionFunc("overlap", cobra.FixedCompletions(policies("OVERLAP_", perdurev1.Overlap_value), cobra.ShellCompDirectiveNoFileComp)))
	must(command.RegisterFlagCompletionFunc("misfire", cobra.FixedCompletions(policies("MISFIRE_", perdurev1.Misfire_value), cobra.ShellCompDirectiveNoFileComp)))
	return command
}

// changeSchedule is a command that changes a schedule and says so.
func (c *cli) changeSchedule(command *cobra.Command, change func(cmd *cobra.Command, name string) (answer proto.Message, text string, err error)) *cobra.Command {
	command.Args, command.ValidArgsFunction = args("NAME"), c.completeSchedules
	command.RunE = func(cmd *cobra.Command, args []string) error {
		answer, text, err := change(cmd, args[0])
		if err != nil {
			return err
		}
		if c.output == "json" {
			return c.printMessage(answer)
		}
		c.printf("%s %s\n", args[0], text)
		return nil
	}
	return command
}

func (c *cli) deleteScheduleCommand() *cobra.Command {
	return c.changeSchedule(&cobra.Command{
		Use: "delete NAME", Short: "Remove a schedule; what it has fired goes on",
	}, func(cmd *cobra.Command, name string) (proto.Message, string, error) {
		answer := &perdurev1.DeleteScheduleResponse{}
		return answer, "is deleted", c.schedules(cmd, "DeleteSchedule", &perdurev1.DeleteScheduleRequest{Name: name}, answer)
	})
}

func (c *cli) pauseScheduleCommand() *cobra.Command {
	var note string
	command := c.changeSchedule(&cobra.Command{
		Use: "pause NAME", Short: "Keep a schedule from firing until it is resumed",
	}, func(cmd *cobra.Command, name string) (proto.Message, string, error) {
		answer := &perdurev1.PauseScheduleResponse{}
		err := c.schedules(cmd, "PauseSchedule", &perdurev1.PauseScheduleRequest{Name: name, Note: note}, answer)
		if !answer.GetChanged() {
			return answer, "was paused already", err
		}
		return answer, "is paused", err
	})
	command.Flags().StringVar(&note, "note", "", "`text` that says why")
	must(command.RegisterFlagCompletionFunc("note", cobra.NoFileCompletions))
	return command
}

func (c *cli) resumeScheduleCommand() *cobra.Command {
	return c.changeSchedule(&cobra.Command{
		Use: "resume NAME", Short: "Let a paused schedule go on, with its next due time",
	}, func(cmd *cobra.Command, name string) (proto.Message, string, error) {
		answer := &perdurev1.ResumeScheduleResponse{}
		err := c.schedules(cmd, "ResumeSchedule", &perdurev1.ResumeScheduleRequest{Name: name}, answer)
		if !answer.GetChanged() {
			return answer, "was not paused", err
		}
		return answer, "goes on", err
	})
}

func (c *cli) triggerScheduleCommand() *cobra.Command {
	var overlaps bool
	command := c.changeSchedule(&cobra.Command{
		Use: "trigger NAME", Short: "Fire a schedule now, be it paused or not",
	}, func(cmd *cobra.Command, name string) (proto.Message, string, error) {
		answer := &perdurev1.TriggerScheduleResponse{}
		request := &perdurev1.TriggerScheduleRequest{Name: name, RequestId: uuid.NewString(), Overlaps: overlaps}
		err := c.schedules(cmd, "TriggerSchedule", request, answer)
		if f := answer.GetFiring(); f.GetStatus() == perdurev1.FiringStatus_FIRING_STATUS_PENDING {
			return answer, "fires when the firing before has ended", err
		}
		return answer, "has fired " + answer.GetFiring().GetInvocationId(), err
	})
	command.Flags().BoolVar(&overlaps, "overlaps", false, "whatever the overlap policy says")
	return command
}

func (c *cli) backfillScheduleCommand() *cobra.Command {
	var from, until string
	var stop bool
	command := c.changeSchedule(&cobra.Command{
		Use: "backfill NAME (--from INSTANT --until INSTANT | --stop)", Short: "Fire the due times of a range of the past",
		Long: `Fire the due times of a range of the past, both ends included: each of them, whether it fired then or
not. They fire one after the other, or, if the overlap policy is to allow it, many at once.
With --stop the backfill under way ends: what it has fired goes on, and the rest never fires.`,
		Example: "  perdure schedules backfill bank.v1.InterestService/nightly --from 2026-11-01T00:00:00Z --until 2026-11-04T00:00:00Z",
	}, func(cmd *cobra.Command, name string) (proto.Message, string, error) {
		answer := &perdurev1.BackfillScheduleResponse{}
		request := &perdurev1.BackfillScheduleRequest{Name: name, RequestId: uuid.NewString(), Stop: stop}
		if stop {
			if from != "" || until != "" {
				return answer, "", usagef("--stop ends whatever backfill there is: leave --from and --until out")
			}
			return answer, "is not being backfilled any more", c.schedules(cmd, "BackfillSchedule", request, answer)
		}
		var err error
		if request.From, err = parseInstant("--from", from); err != nil {
			return answer, "", err
		}
		if request.Until, err = parseInstant("--until", until); err != nil {
			return answer, "", err
		}
		return answer, "is being backfilled; perdure schedules get shows how far it is", c.schedules(cmd, "BackfillSchedule", request, answer)
	})
	command.Flags().StringVar(&from, "from", "", "first `instant`, such as 2026-11-01T00:00:00Z")
	command.Flags().StringVar(&until, "until", "", "last `instant`")
	command.Flags().BoolVar(&stop, "stop", false, "end the one under way")
	must(command.RegisterFlagCompletionFunc("from", cobra.NoFileCompletions))
	must(command.RegisterFlagCompletionFunc("until", cobra.NoFileCompletions))
	return command
}
