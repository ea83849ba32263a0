package main

import (
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

// filterFlags pick invocations, for a list and for what is done to many.
type filterFlags struct {
	request              adminv1.ListInvocationsRequest
	status               []string
	olderThan, newerThan time.Duration
}

func (c *cli) filterFlags(command *cobra.Command) *filterFlags {
	f := &filterFlags{}
	flags := command.Flags()
	flags.StringVar(&f.request.Service, "service", "", "only those of this `service`, such as bank.v1.AccountService")
	flags.StringVar(&f.request.Key, "key", "", "only those of the object with this `key`; needs --service")
	flags.StringVar(&f.request.KeyPrefix, "key-prefix", "", "only those of objects whose key starts with this `text`; needs --service")
	flags.StringVar(&f.request.Handler, "handler", "", "only those of this `handler`, such as Deposit; needs --service")
	flags.StringVar(&f.request.Deployment, "deployment", "", "only those whose newest attempt ran on this `deployment`")
	flags.StringSliceVar(&f.status, "status", nil, "only those in one of these `statuses`, with commas")
	flags.DurationVar(&f.olderThan, "older-than", 0, "only those created longer ago than this `duration`, such as 36h")
	flags.DurationVar(&f.newerThan, "newer-than", 0, "only those created within this `duration`")
	must(command.RegisterFlagCompletionFunc("service", c.completeServiceFlag))
	must(command.RegisterFlagCompletionFunc("handler", c.completeHandlerFlag))
	must(command.RegisterFlagCompletionFunc("status", completeStatuses))
	must(command.RegisterFlagCompletionFunc("deployment", c.completeDeploymentFlag))
	for _, name := range []string{"key", "key-prefix", "older-than", "newer-than"} {
		must(command.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions))
	}
	return f
}

// filterNames are the flags of a filter.
var filterNames = []string{"service", "key", "key-prefix", "handler", "deployment", "status", "older-than", "newer-than"}

// read checks the flags and returns the request they make, as of now.
func (f *filterFlags) read(now time.Time) (*adminv1.ListInvocationsRequest, error) {
	var err error
	if f.request.Status, err = parseStatuses(f.status); err != nil {
		return nil, err
	}
	switch {
	case f.request.GetService() == "" && (f.request.GetKey() != "" || f.request.GetHandler() != "" || f.request.GetKeyPrefix() != ""):
		return nil, usagef("--key, --key-prefix and --handler need --service")
	case f.request.GetKey() != "" && !strings.HasPrefix(f.request.GetKey(), f.request.GetKeyPrefix()):
		return nil, usagef("--key %s does not start with --key-prefix %s: nothing matches both", f.request.GetKey(), f.request.GetKeyPrefix())
	case f.olderThan < 0, f.newerThan < 0:
		return nil, usagef("--older-than and --newer-than must not be negative")
	}
	if f.olderThan > 0 {
		f.request.CreatedBefore = timestamppb.New(now.Add(-f.olderThan))
	}
	if f.newerThan > 0 {
		f.request.CreatedAfter = timestamppb.New(now.Add(-f.newerThan))
	}
	return &f.request, nil
}
