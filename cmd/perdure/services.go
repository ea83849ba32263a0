package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/cmd/perdure/internal/limitscmd"
	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

func (c *cli) servicesCommand() *cobra.Command {
	command := &cobra.Command{
		Use:     "services",
		Aliases: []string{"service"},
		Short:   "Show what services the node serves",
		Example: `  perdure services list
  perdure services describe bank.v1.AccountService`,
	}
	command.AddCommand(c.listServicesCommand(), c.describeServiceCommand())
	return command
}

func (c *cli) listServicesCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "list",
		Short:             "List the services that the node serves",
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			found := &adminv1.ListServicesResponse{}
			if err := c.admin(cmd.Context(), "ListServices", &adminv1.ListServicesRequest{}, found); err != nil {
				return err
			}
			if c.output == "json" {
				return c.printMessage(found)
			}
			if len(found.GetServices()) == 0 {
				c.note("the node at %s serves no services: register handlers before it starts", c.addr)
				return nil
			}
			var rows [][]string
			for _, service := range found.GetServices() {
				rows = append(rows, []string{
					service.GetName(), service.GetKind().String(), strconv.Itoa(len(service.GetMethods())), orDash(service.GetStateType()),
				})
			}
			c.table("", []string{"SERVICE", "KIND", "HANDLERS", "STATE"}, rows)
			return nil
		},
	}
}

func (c *cli) describeServiceCommand() *cobra.Command {
	var schema string
	command := &cobra.Command{
		Use:   "describe SERVICE",
		Short: "Show the handlers, state and options of one service",
		Example: `  perdure services describe bank.v1.AccountService
  perdure services describe bank.v1.AccountService --schema running.binpb  # for: perdure check`,
		Args:              args("SERVICE"),
		ValidArgsFunction: c.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			found := &adminv1.DescribeServiceResponse{}
			if err := c.admin(cmd.Context(), "DescribeService", &adminv1.DescribeServiceRequest{Name: args[0]}, found); err != nil {
				return err
			}
			if schema != "" {
				encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(found.GetSchema())
				if err != nil {
					return err
				}
				if err := os.WriteFile(schema, encoded, 0o644); err != nil {
					return fmt.Errorf("--schema: %w", err)
				}
			}
			if c.output == "json" {
				return c.printMessage(found.GetService())
			}
			c.printService(found.GetService())
			return nil
		},
	}
	command.Flags().StringVar(&schema, "schema", "", "also write the service's descriptor set to this `file`")
	return command
}

func (c *cli) printService(service *adminv1.Service) {
	c.printf("%s\n", c.strong(service.GetName()))
	var tables, promises []string
	for _, table := range service.GetTables() {
		tables = append(tables, table.GetName()+" of "+table.GetValue())
	}
	for _, promise := range service.GetPromises() {
		promises = append(promises, promise.GetName()+" of "+promise.GetType())
	}
	c.fields("  ",
		"kind", service.GetKind().String(),
		"state", service.GetStateType(),
		"tables", strings.Join(tables, ", "),
		"promises", strings.Join(promises, ", "),
	)
	c.printf("\n")
	var rows [][]string
	for _, method := range service.GetMethods() {
		rows = append(rows, []string{
			method.GetName(), method.GetMode().String(), orDash(method.GetKeyField()),
			method.GetRequestType(), method.GetResponseType(), orDash(optionsText(method)),
		})
	}
	c.table("  ", []string{"HANDLER", "MODE", "KEY", "REQUEST", "RESPONSE", "OPTIONS"}, rows)
}

func optionsText(method *adminv1.Method) string {
	var parts []string
	add := func(name, value string) {
		if value != "" {
			parts = append(parts, name+" "+value)
		}
	}
	if method.GetNoSideEffects() {
		parts = append(parts, "HTTP GET")
	}
	options := method.GetOptions()
	add("idempotency key", method.GetIdempotencyKeyField())
	add("timeout", lasting(options.GetTimeout()))
	add("step timeout", lasting(options.GetStepTimeout()))
	add("inactivity timeout", lasting(options.GetInactivityTimeout()))
	add("retention", lasting(options.GetRetention()))
	add("journal retention", lasting(options.GetJournalRetention()))
	if retry := options.GetRetry(); retry != nil {
		if retry.GetMaxAttempts() > 0 {
			add("at most", count(int(retry.GetMaxAttempts()), "attempt"))
		}
		add("first retry after", lasting(retry.GetInitialInterval()))
		add("retries at most every", lasting(retry.GetMaxInterval()))
		if retry.GetFactor() > 0 {
			add("factor", strconv.FormatFloat(retry.GetFactor(), 'g', -1, 64))
		}
		if retry.GetOnExhausted() == perdurev1.OnExhausted_PAUSE {
			parts = append(parts, "then pauses")
		}
	}
	if options.GetMaxInbox() > 0 {
		add("at most", strconv.Itoa(int(options.GetMaxInbox()))+" waiting for a key")
	}
	for _, limit := range options.GetLimits() {
		add("limit", limit.GetName()+" ("+limitscmd.Text(limit, lasting)+")")
	}
	return strings.Join(parts, ", ")
}
