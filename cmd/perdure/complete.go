package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

// completeTimeout: a shell that hangs at a press of a key is worse than no proposals.
const completeTimeout = time.Second

// known asks the node for its services; none if it does not answer.
func (c *cli) known(cmd *cobra.Command) []*adminv1.Service {
	if c.checkGlobals() != nil {
		return nil
	}
	ctx, cancel := completeContext(cmd)
	defer cancel()
	response := &adminv1.ListServicesResponse{}
	if err := c.admin(ctx, "ListServices", &adminv1.ListServicesRequest{}, response); err != nil {
		cobra.CompDebugln(err.Error(), false)
		return nil
	}
	return response.GetServices()
}

func completeContext(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	return context.WithTimeout(ctx, completeTimeout)
}

// completeBy calls an rpc of AdminService for proposals; without an answer there are none.
func (c *cli) completeBy(cmd *cobra.Command, rpc string, request, response proto.Message) {
	if c.checkGlobals() != nil {
		return
	}
	ctx, cancel := completeContext(cmd)
	defer cancel()
	if err := c.admin(ctx, rpc, request, response); err != nil {
		cobra.CompDebugln(err.Error(), false)
	}
}

// completeHandlers proposes SERVICE/METHOD.
func (c *cli) completeHandlers(cmd *cobra.Command, given []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	var found []cobra.Completion
	if len(given) == 0 {
		for _, service := range c.known(cmd) {
			for _, method := range service.GetMethods() {
				found = append(found, cobra.CompletionWithDesc(service.GetName()+"/"+method.GetName(), method.GetMode().String()))
			}
		}
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}

// completeServices proposes SERVICE as the first argument.
func (c *cli) completeServices(cmd *cobra.Command, given []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(given) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.completeServiceFlag(cmd, nil, "")
}

func (c *cli) completeServiceFlag(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	var found []cobra.Completion
	for _, service := range c.known(cmd) {
		found = append(found, cobra.CompletionWithDesc(service.GetName(), service.GetKind().String()))
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}

// completeHandlerFlag proposes the handlers of --service, or of all services.
func (c *cli) completeHandlerFlag(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	wanted, _ := cmd.Flags().GetString("service")
	var found []cobra.Completion
	for _, service := range c.known(cmd) {
		if wanted != "" && wanted != service.GetName() {
			continue
		}
		for _, method := range service.GetMethods() {
			found = append(found, cobra.CompletionWithDesc(method.GetName(), method.GetMode().String()))
		}
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}

// completeTransactions proposes the transactions that are under way.
func (c *cli) completeTransactions(cmd *cobra.Command, given []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	var found []cobra.Completion
	if len(given) > 0 || c.checkGlobals() != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := completeContext(cmd)
	defer cancel()
	response := &adminv1.ListTransactionsResponse{}
	if err := c.admin(ctx, "ListTransactions", &adminv1.ListTransactionsRequest{}, response); err != nil {
		cobra.CompDebugln(err.Error(), false)
	}
	for _, t := range response.GetTransactions() {
		found = append(found, cobra.CompletionWithDesc(t.GetRootInvocationId(), strings.TrimSpace(phaseName(t.GetPhase())+" "+targetName(t.GetTarget()))))
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}

// completeDeployments proposes the deployments that were not removed.
func (c *cli) completeDeployments(cmd *cobra.Command, given []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	var found []cobra.Completion
	if len(given) > 0 || c.checkGlobals() != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := completeContext(cmd)
	defer cancel()
	response := &adminv1.ListDeploymentsResponse{}
	if err := c.admin(ctx, "ListDeployments", &adminv1.ListDeploymentsRequest{}, response); err != nil {
		cobra.CompDebugln(err.Error(), false)
	}
	for _, d := range response.GetDeployments() {
		found = append(found, cobra.CompletionWithDesc(d.GetId(), deploymentStatus(d)))
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}

func (c *cli) completeDeploymentFlag(cmd *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return c.completeDeployments(cmd, nil, typed)
}

// completeStatuses proposes the last of a list with commas.
func completeStatuses(_ *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	before := ""
	if at := strings.LastIndexByte(typed, ','); at >= 0 {
		before = typed[:at+1]
	}
	var found []cobra.Completion
	for _, status := range statuses() {
		found = append(found, before+status)
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}
