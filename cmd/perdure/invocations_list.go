package main

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

// adminPage is the largest page the node gives.
const adminPage = 1000

// maxScanned is how many invocations one command has the node look at: with a filter that
// hardly any matches, a person would rather hear where it stands than wait for all of millions.
const maxScanned = 1_000_000

func (c *cli) listInvocationsCommand() *cobra.Command {
	var picked *filterFlags
	var token string
	var limit int
	var follow bool
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
  perdure invocations list --service bank.v1.TransferService --follow
  perdure invocations list --status failed -o json | jq -r '.invocations[].id'`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			filter, err := picked.read(time.Now())
			if err != nil {
				return err
			}
			if limit < 1 {
				return usagef("--limit is %d; it must be at least 1", limit)
			}
			filter.PageToken = token
			if follow {
				if token != "" {
					return usagef("--follow begins with the newest: leave out --page-token")
				}
				return c.followList(cmd.Context(), func() (*adminv1.ListInvocationsResponse, error) {
					filter, err := picked.read(time.Now())
					if err != nil {
						return nil, err
					}
					filter.PageToken = ""
					return c.fetchInvocations(cmd.Context(), filter, limit)
				})
			}
			found, err := c.fetchInvocations(cmd.Context(), filter, limit)
			if err != nil {
				return err
			}
			return c.printInvocations(found, len(found.Invocations) < limit)
		},
	}
	picked = c.filterFlags(command)
	flags := command.Flags()
	flags.IntVar(&limit, "limit", 50, "at most `n`")
	flags.BoolVarP(&follow, "follow", "f", false, "print what is new, or has another status, until it is interrupted")
	flags.StringVar(&token, "page-token", "", "go on where a list with the same filters ended: the `token` it printed")
	must(command.RegisterFlagCompletionFunc("limit", cobra.NoFileCompletions))
	must(command.RegisterFlagCompletionFunc("page-token", cobra.NoFileCompletions))
	return command
}

// fetchInvocations gets a list of at most so many.
func (c *cli) fetchInvocations(ctx context.Context, filter *adminv1.ListInvocationsRequest, limit int) (*adminv1.ListInvocationsResponse, error) {
	found := &adminv1.ListInvocationsResponse{}
	for {
		filter.PageSize = uint32(min(limit-len(found.Invocations), adminPage))
		page := &adminv1.ListInvocationsResponse{}
		if err := c.admin(ctx, "ListInvocations", filter, page); err != nil {
			return nil, err
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
	return found, nil
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
