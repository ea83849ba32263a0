package main

import (
	"fmt"

	"github.com/spf13/cobra"

	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

func (c *cli) journalCommand() *cobra.Command {
	command := &cobra.Command{
		Use:     "journal",
		Short:   "Export the journal of an invocation, for tests",
		Example: `  perdure journal export inv_… > testdata/journals/order.json`,
	}
	command.AddCommand(c.exportJournalCommand())
	return command
}

func (c *cli) exportJournalCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "export ID",
		Short: "Write the journal of an invocation as a file that actortest.Replay reads",
		Long: `Write the journal of an invocation as a file that actortest.Replay reads.

A Go test then runs the handler's code as it is now on the journal as it was recorded, without
calling any closure, and fails if the code makes other steps: a deploy of it would break what is
running. The file is JSON, and is read by all later versions.

It holds the request, the object's state and the result of every step as they are: treat it like
the data it is from. A handler that reads state and never sets it is best exported while it runs,
for the state is that of the export.`,
		Example: `  perdure journal export inv_… > testdata/journals/order.json

  // in a _test.go file
  actortest.Replay(t, register, "testdata/journals/*.json")`,
		Args:              args("ID"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			response := &adminv1.ExportJournalResponse{}
			if err := c.admin(cmd.Context(), "ExportJournal", &adminv1.ExportJournalRequest{InvocationId: args[0]}, response); err != nil {
				return err
			}
			if _, err := c.out.Write(response.GetJournal()); err != nil {
				return err
			}
			_, err := fmt.Fprintln(c.err, "the file holds the request, the state and all results as they are: keep it as you keep those")
			return err
		},
	}
}
