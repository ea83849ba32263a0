package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

func (c *cli) cancelCommand() *cobra.Command {
	return c.stopCommand("cancel", &cobra.Command{
		Short: "Ask invocations to stop",
		Long: `Ask invocations to stop.

A handler hears of it at its current or next wait, and can still undo what it did; what has
not started yet never does. It returns once the request is on disk, which may be before the
invocation has ended. One that has ended already is left as it is.`,
	}, func(ctx context.Context, id string) (adminv1.InvocationStatus, error) {
		response := &adminv1.CancelInvocationResponse{}
		err := c.admin(ctx, "CancelInvocation", &adminv1.CancelInvocationRequest{InvocationId: id}, response)
		return response.GetStatus(), err
	})
}

func (c *cli) killCommand() *cobra.Command {
	return c.stopCommand("kill", &cobra.Command{
		Short: "End invocations where they are",
		Long: `End invocations where they are.

The handler gets no chance to undo anything: cancel first, and kill only what does not react.
One that has ended already is left as it is.`,
	}, func(ctx context.Context, id string) (adminv1.InvocationStatus, error) {
		response := &adminv1.KillInvocationResponse{}
		err := c.admin(ctx, "KillInvocation", &adminv1.KillInvocationRequest{InvocationId: id}, response)
		return response.GetStatus(), err
	})
}

func (c *cli) stopCommand(verb string, command *cobra.Command, stop func(context.Context, string) (adminv1.InvocationStatus, error)) *cobra.Command {
	command.Use = verb + " ID..."
	command.Example = "  perdure invocations " + verb + " inv_…\n" +
		"  perdure invocations list --status paused -o json | jq -r '.invocations[].id' | xargs perdure invocations " + verb
	command.ValidArgsFunction = cobra.NoFileCompletions
	command.Args = func(_ *cobra.Command, given []string) error {
		if len(given) == 0 {
			return usagef("ID is missing")
		}
		return nil
	}
	command.RunE = func(cmd *cobra.Command, ids []string) error {
		// One that cannot be stopped must not keep the others running.
		var last error
		stopped := []stoppedView{}
		for _, id := range ids {
			status, err := stop(cmd.Context(), id)
			if failure, ok := errors.AsType[*nodeError](err); err != nil && (!ok || failure.Code == "unavailable") {
				return err
			}
			if err != nil {
				c.report(err)
				last = silentError{}
				continue
			}
			stopped = append(stopped, stoppedView{id, statusName(status)})
			if c.output != "json" {
				c.printf("%s %s\n", id, stoppedText(verb, status))
			}
		}
		if c.output == "json" {
			if err := c.printValue(map[string]any{"invocations": stopped}); err != nil {
				return err
			}
		}
		return last
	}
	return command
}

type stoppedView struct {
	ID     string `json:"id"`
	Status string `json:"status"`
}

// stoppedText says what became of the invocation, which may have ended before it was asked.
func stoppedText(verb string, status adminv1.InvocationStatus) string {
	switch status {
	case adminv1.InvocationStatus_INVOCATION_STATUS_CANCELLED, adminv1.InvocationStatus_INVOCATION_STATUS_KILLED:
		return "is " + statusName(status)
	case adminv1.InvocationStatus_INVOCATION_STATUS_SUCCEEDED, adminv1.InvocationStatus_INVOCATION_STATUS_FAILED:
		return "had ended already: " + statusName(status)
	case adminv1.InvocationStatus_INVOCATION_STATUS_UNSPECIFIED:
		return "asked to " + verb + "; it is not kept"
	}
	return "asked to " + verb + "; it is " + statusName(status)
}
