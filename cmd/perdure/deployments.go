package main

import (
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

func (c *cli) deploymentsCommand() *cobra.Command {
	command := &cobra.Command{
		Use:     "deployments",
		Aliases: []string{"deployment"},
		Short:   "Show and drain the builds of the handlers that have run",
		Long: `Show and drain the builds of the handlers that have run on a node's data, or on that of any node of
its cluster.

Each build is a deployment, with the descriptors of its services. A DURABLE or RUN handler's
journal is tied to the deployment that its last attempt ran on; when it next runs, on a node of
another deployment, it moves on to that one by replay.`,
		Example: `  perdure deployments list
  perdure deployments describe dep_1f6a2b3c4d5e6f70
  perdure deployments drain v1.4.1`,
	}
	command.AddCommand(c.listDeploymentsCommand(), c.describeDeploymentCommand(), c.drainDeploymentCommand(), c.removeDeploymentCommand())
	return command
}

func (c *cli) listDeploymentsCommand() *cobra.Command {
	request := &adminv1.ListDeploymentsRequest{}
	command := &cobra.Command{
		Use:   "list",
		Short: "List deployments, the one that was started last first",
		Long: `List deployments, the one that was started last first, with the invocations in flight on each:
those that have not ended and whose journal it has fed last, and, of the one that runs, also those
that have not begun or keep no journal. The one that runs on the node that is asked is marked with *;
NODES is how many of its cluster run each. One that is not known any more, and that something in
flight is tied to, is "unknown".`,
		Example:           `  perdure deployments list`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			found := &adminv1.ListDeploymentsResponse{}
			if err := c.admin(cmd.Context(), "ListDeployments", request, found); err != nil {
				return err
			}
			if c.output == "json" {
				return c.printMessage(found)
			}
			if len(found.GetDeployments()) == 0 {
				c.note("the node at %s has no deployments", c.addr)
				return nil
			}
			var rows [][]string
			for _, d := range found.GetDeployments() {
				id := d.GetId()
				if d.GetCurrent() {
					id += " *"
				}
				rows = append(rows, []string{
					id, deploymentStatus(d), strconv.Itoa(len(d.GetNodes())), inFlight(d, found.GetMoreInFlight()), strconv.Itoa(len(d.GetServices())),
					clip(d.GetFingerprint(), 12), precise(d.GetFirstSeenAt()), precise(d.GetLastSeenAt()),
				})
			}
			c.table("", []string{"DEPLOYMENT", "STATUS", "NODES", "IN FLIGHT", "SERVICES", "FINGERPRINT", "FIRST STARTED", "SINCE"}, rows)
			return nil
		},
	}
	command.Flags().BoolVar(&request.Removed, "removed", false, "those too that were removed")
	return command
}

func deploymentStatus(d *adminv1.Deployment) string {
	if d.GetStatus() == adminv1.DeploymentStatus_DEPLOYMENT_STATUS_UNSPECIFIED {
		return "unknown"
	}
	return strings.ToLower(strings.TrimPrefix(d.GetStatus().String(), "DEPLOYMENT_STATUS_"))
}

// inFlight is "12", or "12+" if that is not all.
func inFlight(d *adminv1.Deployment, more bool) string {
	text := strconv.FormatUint(d.GetInFlight(), 10)
	if more {
		text += "+"
	}
	return text
}

func (c *cli) describeDeploymentCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "describe ID",
		Short: "Show the services of a deployment and how it differs from the one before",
		Long: `Show the services of a deployment and how it differs from the one that was started before it for
the first time, as "perdure check" would say. What was only added is not listed.`,
		Example:           `  perdure deployments describe v1.4.2`,
		Args:              args("ID"),
		ValidArgsFunction: c.completeDeployments,
		RunE: func(cmd *cobra.Command, args []string) error {
			found := &adminv1.DescribeDeploymentResponse{}
			if err := c.admin(cmd.Context(), "DescribeDeployment", &adminv1.DescribeDeploymentRequest{Id: args[0]}, found); err != nil {
				return err
			}
			if c.output == "json" {
				return c.printMessage(found)
			}
			c.printDeployment(found)
			return nil
		},
	}
}

func (c *cli) printDeployment(found *adminv1.DescribeDeploymentResponse) {
	d := found.GetDeployment()
	c.printf("%s\n", c.strong(d.GetId()))
	status := deploymentStatus(d)
	if d.GetCurrent() {
		status += ", runs on this node"
	}
	c.fields("  ",
		"status", status,
		"nodes", strings.Join(d.GetNodes(), ", "),
		"in flight", inFlight(d, found.GetMoreInFlight()),
		"fingerprint", d.GetFingerprint(),
		"build", d.GetBuild(),
		"perdure", d.GetPerdureVersion(),
		"first started", precise(d.GetFirstSeenAt()),
		"since", precise(d.GetLastSeenAt()),
	)
	known := map[string]bool{}
	for _, service := range found.GetServices() {
		known[service.GetName()] = true
		c.printf("\n")
		c.printService(service)
	}
	for _, name := range d.GetServices() {
		if !known[name] {
			c.printf("\n%s\n  its descriptor is not kept\n", c.strong(name))
		}
	}
	if found.GetPrevious() != "" {
		c.printf("\n%s\n", c.strong("against "+found.GetPrevious()))
		for _, change := range found.GetChanges() {
			c.printf("  %s: %s: %s\n", printable(change.GetSymbol()), change.GetSeverity(), printable(change.GetMessage()))
		}
		if len(found.GetChanges()) == 0 {
			c.printf("  no breaking changes\n")
		}
	}
	if len(d.GetAcceptedChanges()) > 0 {
		c.printf("\n%s\n", c.strong("started although"))
		for _, change := range d.GetAcceptedChanges() {
			c.printf("  %s\n", printable(change))
		}
	}
}

func (c *cli) drainDeploymentCommand() *cobra.Command {
	request := &adminv1.DrainDeploymentRequest{}
	var noWait bool
	var every time.Duration
	command := &cobra.Command{
		Use:   "drain ID",
		Short: "Take no new invocations on a deployment, and wait until none is left",
		Long: `Take no new invocations on a deployment, and wait until none is left, saying how many there are.

Callers from outside get "unavailable" meanwhile, except for READ handlers and signals; what
has begun goes on, and may call and send. All nodes of a cluster that run it drain, those too that
are started with it meanwhile, until it is undone with --undo or none of them runs it any more.
Interrupting the wait doesn't end it.`,
		Example: `  perdure deployments drain v1.4.1
  perdure deployments drain v1.4.1 --no-wait
  perdure deployments drain v1.4.1 --undo`,
		Args:              args("ID"),
		ValidArgsFunction: c.completeDeployments,
		RunE: func(cmd *cobra.Command, args []string) error {
			if every <= 0 {
				return usagef("--every is %s; it must be more than 0", every)
			}
			request.Id = args[0]
			found := &adminv1.DrainDeploymentResponse{}
			if err := c.admin(cmd.Context(), "DrainDeployment", request, found); err != nil {
				return err
			}
			d, more := found.GetDeployment(), found.GetMoreInFlight()
			if !request.GetUndo() && !noWait {
				var err error
				if d, err = c.awaitDrained(cmd, d, more, every); err != nil {
					return err
				}
				more = false
			}
			if c.output == "json" {
				return c.printMessage(&adminv1.DrainDeploymentResponse{Deployment: d, MoreInFlight: more})
			}
			c.printf("%s is %s, %s in flight\n", d.GetId(), deploymentStatus(d), inFlight(d, more))
			return nil
		},
	}
	flags := command.Flags()
	flags.BoolVar(&request.Undo, "undo", false, "take new invocations again")
	flags.BoolVar(&noWait, "no-wait", false, "don't wait until none is left")
	flags.DurationVar(&every, "every", time.Second, "`how often` to look how many are left")
	must(command.RegisterFlagCompletionFunc("every", cobra.NoFileCompletions))
	return command
}

// awaitDrained says how many are left whenever that has changed.
func (c *cli) awaitDrained(cmd *cobra.Command, d *adminv1.Deployment, more bool, every time.Duration) (*adminv1.Deployment, error) {
	said := ""
	tick := time.NewTicker(every)
	defer tick.Stop()
	for d.GetInFlight() > 0 || more {
		if left := inFlight(d, more); left != said {
			c.note("%s in flight on %s", left, d.GetId())
			said = left
		}
		select {
		case <-cmd.Context().Done():
			return nil, cmd.Context().Err()
		case <-tick.C:
		}
		found := &adminv1.DescribeDeploymentResponse{}
		if err := c.admin(cmd.Context(), "DescribeDeployment", &adminv1.DescribeDeploymentRequest{Id: d.GetId()}, found); err != nil {
			return nil, err
		}
		d, more = found.GetDeployment(), found.GetMoreInFlight()
	}
	return d, nil
}

func (c *cli) removeDeploymentCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "remove ID",
		Short: "Forget a deployment that nothing needs any more",
		Long: `Forget a deployment that nothing needs any more. It is refused while a node runs it, and while
invocations are tied to it. Starting it again brings it back.`,
		Example:           `  perdure deployments remove v1.4.1`,
		Args:              args("ID"),
		ValidArgsFunction: c.completeDeployments,
		RunE: func(cmd *cobra.Command, args []string) error {
			response := &adminv1.RemoveDeploymentResponse{}
			if err := c.admin(cmd.Context(), "RemoveDeployment", &adminv1.RemoveDeploymentRequest{Id: args[0]}, response); err != nil {
				return err
			}
			if c.output == "json" {
				return c.printMessage(response)
			}
			c.printf("%s is removed\n", args[0])
			return nil
		},
	}
}
