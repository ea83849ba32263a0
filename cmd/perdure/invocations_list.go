package main

import (
	"strconv"

	"github.com/spf13/cobra"

	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

// adminPage is the largest page the node gives.
const adminPage = 1000

func (c *cli) listInvocationsCommand() *cobra.Command {
	filter := &adminv1.ListInvocationsRequest{}
	var status []string
	var limit int
	command := &cobra.Command{
		Use:   "list",
		Short: "List invocations, newest first",
		Long: `List invocations, newest first.

If more than 1,000 match they come in groups of 1,000, each newest first: filter to see the
newest of all. A TRANSACTION that was called without an idempotency key is not kept once it
has ended, and a READ never is.`,
		Example: `  perdure invocations list --status running,suspended,backing_off
  perdure invocations list --service bank.v1.AccountService --key alice --limit 10
  perdure invocations list --status failed -o json | jq -r '.invocations[].id'`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if filter.Status, err = parseStatuses(status); err != nil {
				return err
			}
			if limit < 1 {
				return usagef("--limit is %d; it must be at least 1", limit)
			}
			if filter.Service == "" && (filter.Key != "" || filter.Handler != "") {
				return usagef("--key and --handler need --service")
			}
			found := &adminv1.ListInvocationsResponse{}
			for {
				filter.PageSize = uint32(min(limit-len(found.Invocations), adminPage))
				page := &adminv1.ListInvocationsResponse{}
				if err := c.admin(cmd.Context(), "ListInvocations", filter, page); err != nil {
					return err
				}
				found.Invocations = append(found.Invocations, page.GetInvocations()...)
				filter.PageToken = page.GetNextPageToken()
				if filter.PageToken == "" || len(found.Invocations) >= limit {
					break
				}
			}
			return c.printInvocations(found, filter.PageToken != "")
		},
	}
	flags := command.Flags()
	flags.StringVar(&filter.Service, "service", "", "only those of this `service`, such as bank.v1.AccountService")
	flags.StringVar(&filter.Key, "key", "", "only those of the object with this `key`; needs --service")
	flags.StringVar(&filter.Handler, "handler", "", "only those of this `handler`, such as Deposit; needs --service")
	flags.StringSliceVar(&status, "status", nil, "only those in one of these `statuses`, with commas")
	flags.IntVar(&limit, "limit", 50, "at most `n`")
	must(command.RegisterFlagCompletionFunc("service", c.completeServiceFlag))
	must(command.RegisterFlagCompletionFunc("handler", c.completeHandlerFlag))
	must(command.RegisterFlagCompletionFunc("status", completeStatuses))
	must(command.RegisterFlagCompletionFunc("key", cobra.NoFileCompletions))
	must(command.RegisterFlagCompletionFunc("limit", cobra.NoFileCompletions))
	return command
}

func (c *cli) printInvocations(found *adminv1.ListInvocationsResponse, more bool) error {
	if c.output == "json" {
		return c.printMessage(found)
	}
	if len(found.GetInvocations()) == 0 {
		c.note("no invocations match")
		return nil
	}
	var rows [][]string
	for _, inv := range found.GetInvocations() {
		rows = append(rows, []string{
			inv.GetId(), statusName(inv.GetStatus()), instant(inv.GetCreatedAt()),
			between(inv.GetCreatedAt(), inv.GetCompletedAt()), strconv.Itoa(int(inv.GetAttempt())), targetName(inv.GetTarget()),
		})
	}
	c.table("", []string{"ID", "STATUS", "CREATED", "TOOK", "ATTEMPT", "TARGET"}, rows)
	if more {
		c.note("… and more: filter, or raise --limit")
	}
	return nil
}
