package main

import (
	"time"

	"github.com/spf13/cobra"
)

func (c *cli) sendCommand() *cobra.Command {
	var wanted request
	var delay, timeout time.Duration
	command := &cobra.Command{
		Use:   "send SERVICE/METHOD [JSON]",
		Short: "Start a handler without waiting for it, and print the invocation's id",
		Long: `Start a handler without waiting for it, and print the invocation's id.

The id is printed once the invocation is on disk: it will run even if the node dies now.
"perdure attach ID" waits for its response, "perdure invocations cancel ID" calls it off.`,
		Example: `  perdure send bank.v1.AccountService/Deposit '{"accountId":"alice","amount":"5"}'
  perdure send bank.v1.AccountService/Deposit --delay 24h --key alice '{"amount":"5"}'`,
		ValidArgsFunction: c.completeHandlers,
		Args:              wanted.args,
		RunE: func(cmd *cobra.Command, args []string) error {
			if delay < 0 {
				return usagef("--delay is %s; it must not be negative", delay)
			}
			target, body, err := c.request(cmd.Context(), args, wanted)
			if err != nil {
				return err
			}
			header := wanted.header()
			header["Perdure-Send"] = "1"
			if delay > 0 {
				header["Perdure-Delay"] = delay.String()
			}
			_, answered, err := c.post(cmd.Context(), target, body, timeout, header)
			if err != nil {
				return err
			}
			id := answered.Get("Perdure-Invocation-Id")
			if c.output == "json" {
				return c.printValue(map[string]string{"invocationId": id})
			}
			c.printf("%s\n", id)
			return nil
		},
	}
	wanted.flags(command)
	command.Flags().DurationVar(&delay, "delay", 0, "start after this `duration`, such as 90s or 36h")
	command.Flags().DurationVar(&timeout, "timeout", adminTimeout, "stop waiting for the node after this `duration`")
	return command
}
