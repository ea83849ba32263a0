package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

// operation is something that is done to invocations, one by one or to all that match a filter.
type operation struct {
	verb, done string // "cancel", "asked to cancel"
	short      string
	long       string
	batch      adminv1.InvocationOperation
	// one does it to a single invocation. about says more of it than its status.
	one func(ctx context.Context, id string) (status adminv1.InvocationStatus, about string, err error)
	// from is set for a restart, on for a resume.
	from uint32
	on   string
}

// operationCommands are cancel, kill, pause, resume, restart and purge.
func (c *cli) operationCommands() []*cobra.Command {
	cancel := &operation{
		verb: "cancel", done: "asked to cancel", batch: adminv1.InvocationOperation_INVOCATION_OPERATION_CANCEL,
		short: "Ask invocations to stop",
		long: `Ask invocations to stop.

A handler hears of it at its current or next wait, and can still undo what it did; what has
not started yet never does. What it has called and waits for is cancelled first, down to the
leaves of the tree, and a handler hears of it when its call has ended so. It returns once the
request is on disk, which may be before the invocation has ended. One that has ended already
is left as it is; one that is paused goes on, to hear of it.`,
		one: func(ctx context.Context, id string) (adminv1.InvocationStatus, string, error) {
			response := &adminv1.CancelInvocationResponse{}
			err := c.admin(ctx, "CancelInvocation", &adminv1.CancelInvocationRequest{InvocationId: id}, response)
			return response.GetStatus(), "", err
		},
	}
	kill := &operation{
		verb: "kill", done: "killed", batch: adminv1.InvocationOperation_INVOCATION_OPERATION_KILL,
		short: "End invocations where they are",
		long: `End invocations where they are, with all that they have called and wait for.

The handler gets no chance to undo anything: cancel first, and kill only what does not react.
One that has ended already is left as it is.`,
		one: func(ctx context.Context, id string) (adminv1.InvocationStatus, string, error) {
			response := &adminv1.KillInvocationResponse{}
			err := c.admin(ctx, "KillInvocation", &adminv1.KillInvocationRequest{InvocationId: id}, response)
			return response.GetStatus(), "", err
		},
	}
	pause := &operation{
		verb: "pause", done: "paused", batch: adminv1.InvocationOperation_INVOCATION_OPERATION_PAUSE,
		short: "Make invocations stand still",
		long: `Make invocations stand still until they are resumed.

The attempt that runs is aborted. What the invocation waits for is recorded meanwhile; it
keeps its object's key, so that others wait behind it, and its timeout runs on. One that waits
in an inbox leaves it, and joins it again at the end. A TRANSACTION that runs can't be paused.`,
		one: func(ctx context.Context, id string) (adminv1.InvocationStatus, string, error) {
			response := &adminv1.PauseInvocationResponse{}
			err := c.admin(ctx, "PauseInvocation", &adminv1.PauseInvocationRequest{InvocationId: id}, response)
			return response.GetStatus(), "", err
		},
	}
	resume := &operation{
		verb: "resume", done: "resumed", batch: adminv1.InvocationOperation_INVOCATION_OPERATION_RESUME,
		short: "Let paused invocations go on",
		long: `Let paused invocations go on, and those that back off try again at once.

One that was paused because its attempts were used up has all of them before it again. One
that is suspended is replayed, and waits again.

They go on with the deployment that they are tied to, as long as a node runs that, else with
the one that runs. --on names the one it must be: one that no node runs, or that could not read
what the invocation has left, is refused with the list of what breaks, and the invocation stays
as it is. With IDs --deployment is the same as --on; without, it is a filter.`,
	}
	resume.one = func(ctx context.Context, id string) (adminv1.InvocationStatus, string, error) {
		response := &adminv1.ResumeInvocationResponse{}
		err := c.admin(ctx, "ResumeInvocation", &adminv1.ResumeInvocationRequest{InvocationId: id, Deployment: resume.on}, response)
		return response.GetStatus(), "", err
	}
	restart := &operation{
		verb: "restart", done: "restarted", batch: adminv1.InvocationOperation_INVOCATION_OPERATION_RESTART,
		short: "Start invocations that have ended anew",
		long: `Start a new invocation with the request of a DURABLE one that has ended.

With --from N it begins with the first N entries of the journal: they are replayed and not
done again, however large they are; a long journal is copied before the new one begins, and
the old one can't be purged before that. All entries must be complete. What the old one has
written to its object after entry N is taken back, which fails if anybody else has changed it
since; what it has called and sent is not. Of a workflow there is one run for each key: purge it, and run it again.`,
	}
	restart.one = func(ctx context.Context, id string) (adminv1.InvocationStatus, string, error) {
		response := &adminv1.RestartInvocationResponse{}
		err := c.admin(ctx, "RestartInvocation", &adminv1.RestartInvocationRequest{InvocationId: id, From: restart.from}, response)
		return response.GetStatus(), response.GetInvocationId(), err
	}
	purge := &operation{
		verb: "purge", done: "purged", batch: adminv1.InvocationOperation_INVOCATION_OPERATION_PURGE,
		short: "Forget invocations that have ended",
		long: `Forget invocations that have ended before their retention does.

The journal and the result go, and so does the idempotency key: a call that comes with it
again runs again. Of a workflow's run the state and the promises go too, and it can run again.`,
		one: func(ctx context.Context, id string) (adminv1.InvocationStatus, string, error) {
			return 0, "", c.admin(ctx, "PurgeInvocation", &adminv1.PurgeInvocationRequest{InvocationId: id}, &adminv1.PurgeInvocationResponse{})
		},
	}
	var commands []*cobra.Command
	for _, op := range []*operation{cancel, kill, pause, resume, restart, purge} {
		commands = append(commands, c.operationCommand(op))
	}
	commands[3].Flags().StringVar(&resume.on, "on", "", "go on with this `deployment` only, on a node that runs it; latest is that of the node that is asked")
	must(commands[3].RegisterFlagCompletionFunc("on", c.completeDeploymentFlag))
	commands[4].Flags().Uint32Var(&restart.from, "from", 0, "keep the journal up to this `entry`; with IDs only")
	must(commands[4].RegisterFlagCompletionFunc("from", cobra.NoFileCompletions))
	return commands
}

func (c *cli) operationCommand(op *operation) *cobra.Command {
	command := &cobra.Command{
		Use:   op.verb + " ID... | --service SERVICE ...",
		Short: op.short,
		Long: op.long + `

Without IDs it is done to all that match the flags, page by page, with what it has come to on
stderr. --dry-run only counts. Interrupted, it says how to go on. What is created after it
began is left alone.`,
		Example: "  perdure invocations " + op.verb + " inv_…\n" +
			"  perdure invocations " + op.verb + " --service bank.v1.TransferService --older-than 1h --dry-run\n" +
			"  perdure invocations " + op.verb + " --service bank.v1.TransferService --older-than 1h --yes",
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	b := c.batchFlags(command, op)
	command.Args = func(cmd *cobra.Command, ids []string) error {
		filtered := b.given(cmd)
		if on := b.filter.request.GetDeployment(); filtered == "deployment" && len(ids) > 0 && op.batch == adminv1.InvocationOperation_INVOCATION_OPERATION_RESUME {
			if op.on != "" && op.on != on {
				return usagef("--on is %s and --deployment is %s: with IDs they are the same; give one", op.on, on)
			}
			op.on, filtered = on, ""
		}
		switch {
		case len(ids) == 0 && filtered == "":
			return usagef("ID is missing, or a filter such as --service")
		case len(ids) > 0 && filtered != "":
			return usagef("--%s is for all that match, and there are IDs: give one or the other", filtered)
		case len(ids) == 0 && op.from > 0:
			return usagef("--from is an entry of one journal: give the ID")
		}
		return nil
	}
	command.RunE = func(cmd *cobra.Command, ids []string) error {
		if len(ids) == 0 {
			return b.run(cmd)
		}
		return c.operate(cmd.Context(), op, ids)
	}
	return command
}

// operate does it to each of the invocations.
func (c *cli) operate(ctx context.Context, op *operation, ids []string) error {
	// One that refuses must not keep the others from it.
	var last error
	done := []operatedView{}
	for _, id := range ids {
		status, about, err := op.one(ctx, id)
		if failure, ok := errors.AsType[*nodeError](err); err != nil && (!ok || failure.Code == "unavailable") {
			return err
		}
		if err != nil {
			c.report(err)
			last = silentError{}
			continue
		}
		view := operatedView{ID: id, Restarted: about}
		if op.batch != adminv1.InvocationOperation_INVOCATION_OPERATION_PURGE {
			view.Status = statusName(status)
		}
		done = append(done, view)
		if c.output != "json" {
			c.printf("%s %s\n", id, op.text(status, about))
		}
	}
	if c.output == "json" {
		if err := c.printValue(map[string]any{"invocations": done}); err != nil {
			return err
		}
	}
	return last
}

type operatedView struct {
	ID     string `json:"id"`
	Status string `json:"status,omitempty"`
	// Restarted is the new invocation.
	Restarted string `json:"restartedAs,omitempty"`
}

// text says what became of the invocation, which may have ended before it was asked.
func (op *operation) text(status adminv1.InvocationStatus, about string) string {
	switch {
	case op.batch == adminv1.InvocationOperation_INVOCATION_OPERATION_PURGE:
		return "is purged"
	case about != "":
		return fmt.Sprintf("is restarted as %s, which is %s", about, statusName(status))
	}
	switch status {
	case adminv1.InvocationStatus_INVOCATION_STATUS_CANCELLED, adminv1.InvocationStatus_INVOCATION_STATUS_KILLED, adminv1.InvocationStatus_INVOCATION_STATUS_PAUSED:
		return "is " + statusName(status)
	case adminv1.InvocationStatus_INVOCATION_STATUS_SUCCEEDED, adminv1.InvocationStatus_INVOCATION_STATUS_FAILED:
		return "had ended already: " + statusName(status)
	case adminv1.InvocationStatus_INVOCATION_STATUS_UNSPECIFIED:
		return op.done + "; it is not kept"
	}
	return op.done + "; it is " + statusName(status)
}
