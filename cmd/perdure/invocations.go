package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

func (c *cli) invocationsCommand() *cobra.Command {
	command := &cobra.Command{
		Use:     "invocations",
		Aliases: []string{"invocation", "inv"},
		Short:   "List, look into and steer invocations",
		Example: `  perdure invocations list --service bank.v1.AccountService --key alice
  perdure invocations get inv_…
  perdure invocations cancel inv_…
  perdure invocations resume --service shop.v1.OrderService --status paused`,
	}
	command.AddCommand(c.listInvocationsCommand(), c.getInvocationCommand())
	command.AddCommand(c.operationCommands()...)
	return command
}

const statusPrefix = "INVOCATION_STATUS_"

// statusName is "backing_off".
func statusName(status adminv1.InvocationStatus) string {
	return strings.ToLower(strings.TrimPrefix(status.String(), statusPrefix))
}

// statuses are the names in the order of an invocation's life.
func statuses() []string {
	var names []string
	for number := int32(1); adminv1.InvocationStatus_name[number] != ""; number++ {
		names = append(names, statusName(adminv1.InvocationStatus(number)))
	}
	return names
}

// parseStatuses reads the names in each of the texts.
func parseStatuses(texts []string) ([]adminv1.InvocationStatus, error) {
	var found []adminv1.InvocationStatus
	for _, name := range texts {
		number, ok := adminv1.InvocationStatus_value[statusPrefix+strings.ToUpper(name)]
		if !ok || number == 0 {
			return nil, usagef("--status is %q; it must be of %s", name, strings.Join(statuses(), ", "))
		}
		found = append(found, adminv1.InvocationStatus(number))
	}
	return found, nil
}

// targetName is "bank.v1.AccountService/alice/Deposit".
func targetName(target *adminv1.Target) string {
	parts := []string{target.GetService(), target.GetKey(), target.GetHandler()}
	return strings.Join(slices.DeleteFunc(parts, func(part string) bool { return part == "" }), "/")
}

// errorName is "not_found: no such account".
func errorName(err *adminv1.Error) string {
	if err == nil {
		return ""
	}
	code := strings.ToLower(strings.TrimPrefix(err.GetCode().String(), "CODE_"))
	if err.GetMessage() == "" {
		return code
	}
	return code + ": " + err.GetMessage()
}
