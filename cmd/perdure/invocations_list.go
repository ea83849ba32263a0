package main

import (
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

// adminPage is the largest page the node gives.
const adminPage = 1000

// maxScanned is how many invocations one command has the node look at: with a filter that
// hardly any matches, a person would rather hear where it stands than wait for all of millions.
const maxScanned = 1_000_000

func (c *cli) listInvocationsCommand() *cobra.Command {
	filter := &adminv1.ListInvocationsRequest{}
	var status []string
	var limit int
	command := &cobra.Command{
		Use:   "list",
		Short: "List invocations, newest first",
		Long: `List invocations, newest first.

What is printed is in that order, but if more than that match, or the node keeps more than
20,000 invocations, there may be newer ones among the rest: filter to see the newest of all. By
--service and --key, or by statuses that are all unfinished, the node finds them at once; for
anything else it looks at every invocation it keeps. A TRANSACTION that was called without an
idempotency key is not kept once it has ended, and a READ never is.`,
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
				found.Scanned += page.GetScanned()
				filter.PageToken = page.GetNextPageToken()
				if filter.PageToken == "" || len(found.Invocations) >= limit || found.Scanned >= maxScanned {
					break
				}
			}
			found.NextPageToken = filter.PageToken
			// Each page is in order; several together are not.
			slices.SortStableFunc(found.Invocations, func(a, b *adminv1.Invocation) int {
				return b.GetCreatedAt().AsTime().Compare(a.GetCreatedAt().AsTime())
			})
			return c.printInvocations(found, len(found.Invocations) < limit)
		},
	}
	flags := command.Flags()
	flags.StringVar(&filter.Service, "service", "", "only those of this `service`, such as bank.v1.AccountService")
	flags.StringVar(&filter.Key, "key", "", "only those of the object with this `key`; needs --service")
	flags.StringVar(&filter.Handler, "handler", "", "only those of this `handler`, such as Deposit; needs --service")
	flags.StringSliceVar(&status, "status", nil, "only those in one of these `statuses`, with commas")
	flags.IntVar(&limit, "limit", 50, "at most `n`")
	flags.StringVar(&filter.PageToken, "page-token", "", "go on where a list with the same filters ended: the `token` it printed")
	must(command.RegisterFlagCompletionFunc("service", c.completeServiceFlag))
	must(command.RegisterFlagCompletionFunc("handler", c.completeHandlerFlag))
	must(command.RegisterFlagCompletionFunc("status", completeStatuses))
	must(command.RegisterFlagCompletionFunc("key", cobra.NoFileCompletions))
	must(command.RegisterFlagCompletionFunc("limit", cobra.NoFileCompletions))
	must(command.RegisterFlagCompletionFunc("page-token", cobra.NoFileCompletions))
	return command
}

// printInvocations prints a list. short: it has fewer than were asked for.
func (c *cli) printInvocations(found *adminv1.ListInvocationsResponse, short bool) error {
	if c.output == "json" {
		return c.printMessage(found)
	}
	more := found.GetNextPageToken()
	if len(found.GetInvocations()) == 0 && more == "" {
		c.note("no invocations match")
		return nil
	}
	if len(found.GetInvocations()) > 0 {
		var rows [][]string
		for _, inv := range found.GetInvocations() {
			rows = append(rows, []string{
				inv.GetId(), statusName(inv.GetStatus()), instant(inv.GetCreatedAt()),
				between(inv.GetCreatedAt(), inv.GetCompletedAt()), strconv.Itoa(int(inv.GetAttempt())), targetName(inv.GetTarget()),
			})
		}
		c.table("", []string{"ID", "STATUS", "CREATED", "TOOK", "ATTEMPT", "TARGET"}, rows)
	}
	switch {
	case more == "":
	case short:
		c.note("… %d of %s match so far, and there are more to look at: filter, or go on with --page-token %s",
			len(found.GetInvocations()), count(int(found.GetScanned()), "invocation"), more)
	default:
		c.note("… and more: filter, raise --limit, or go on with --page-token %s", more)
	}
	return nil
}
