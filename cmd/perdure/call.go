package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

func (c *cli) callCommand() *cobra.Command {
	var wanted request
	var timeout time.Duration
	command := &cobra.Command{
		Use:   "call SERVICE/METHOD [JSON]",
		Short: "Call a handler and print its response",
		Long: `Call a handler and print its response.

JSON is the request, or - to read it from the standard input; left out it is {}. As always
in protobuf's JSON, 64-bit integers are strings.`,
		Example: `  perdure call bank.v1.AccountService/Deposit '{"accountId":"alice","amount":"5"}'
  perdure call bank.v1.AccountService/Deposit --key alice '{"amount":"5"}' --idempotency-key 2026-11-rent
  echo '{"name":"hits"}' | perdure call counter.v1.CounterService/Get -`,
		ValidArgsFunction: c.completeHandlers,
		Args:              wanted.args,
		RunE: func(cmd *cobra.Command, args []string) error {
			target, body, err := c.request(cmd.Context(), args, wanted)
			if err != nil {
				return err
			}
			answer, _, err := c.post(cmd.Context(), target, body, timeout, wanted.header())
			if err != nil {
				return err
			}
			return c.printJSON(answer)
		},
	}
	wanted.flags(command)
	command.Flags().DurationVar(&timeout, "timeout", 0, "stop waiting after this `duration`, such as 5s; what the node accepted goes on")
	return command
}

// request is what call and send have in common.
type request struct {
	key            string
	idempotencyKey string
}

func (r *request) flags(command *cobra.Command) {
	flags := command.Flags()
	flags.StringVar(&r.key, "key", "", "the object's `key`, put in the request's key field")
	flags.StringVar(&r.idempotencyKey, "idempotency-key", "", "calls with the same `key` and request take effect once")
	must(command.RegisterFlagCompletionFunc("key", cobra.NoFileCompletions))
	must(command.RegisterFlagCompletionFunc("idempotency-key", cobra.NoFileCompletions))
}

func (*request) args(_ *cobra.Command, given []string) error {
	switch {
	case len(given) == 0:
		return usagef("SERVICE/METHOD is missing")
	case len(given) > 2:
		return usagef("%q is too much: it takes SERVICE/METHOD and JSON; quote the JSON for the shell: '{\"a\":1}'", given[2])
	}
	return nil
}

func (r *request) header() map[string]string {
	header := map[string]string{}
	if r.idempotencyKey != "" {
		header["Idempotency-Key"] = r.idempotencyKey
	}
	return header
}

// request reads the arguments.
func (c *cli) request(ctx context.Context, args []string, wanted request) (target string, body []byte, err error) {
	target = strings.TrimPrefix(args[0], "/")
	service, method, ok := strings.Cut(target, "/")
	if !ok || service == "" || method == "" || strings.Contains(method, "/") {
		return "", nil, usagef("%q is not SERVICE/METHOD, such as bank.v1.AccountService/Deposit", args[0])
	}
	body = []byte("{}")
	if len(args) == 2 {
		body = []byte(args[1])
		if args[1] == "-" {
			if body, err = io.ReadAll(io.LimitReader(c.in, maxResponseBytes)); err != nil {
				return "", nil, fmt.Errorf("read the request: %w", err)
			}
		}
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(body, &object); err != nil || object == nil {
		return "", nil, usagef("the request %s is not a JSON object (%s)", clip(printable(string(body)), 60), reason(err))
	}
	if wanted.key == "" {
		return target, body, nil
	}
	body, err = c.withKey(ctx, service, method, object, wanted.key)
	return target, body, err
}

func reason(err error) string {
	if err == nil {
		return "it is null"
	}
	return err.Error()
}

// withKey puts key into the request's key field, which the node names.
func (c *cli) withKey(ctx context.Context, service, method string, object map[string]json.RawMessage, key string) ([]byte, error) {
	described := &adminv1.DescribeServiceResponse{}
	if err := c.admin(ctx, "DescribeService", &adminv1.DescribeServiceRequest{Name: service}, described); err != nil {
		return nil, err
	}
	for _, m := range described.GetService().GetMethods() {
		if m.GetName() != method {
			continue
		}
		field := m.GetKeyField()
		if field == "" {
			return nil, usagef("%s is a %s and has no keys: leave out --key", service, described.GetService().GetKind())
		}
		for _, name := range []string{field, jsonName(field)} {
			if _, there := object[name]; there {
				return nil, usagef("the request has its key in %q already: leave out --key", name)
			}
		}
		// A string will do for an integer key too.
		text, err := json.Marshal(key)
		if err != nil {
			return nil, err
		}
		object[field] = text
		return json.Marshal(object)
	}
	return nil, &nodeError{Code: "unimplemented", Message: fmt.Sprintf("service %s has no handler %q", service, method)}
}

// jsonName is how protobuf's JSON spells the name of a field: account_id is accountId.
func jsonName(field string) string {
	var out strings.Builder
	upper := false
	for _, r := range field {
		if r == '_' {
			upper = true
			continue
		}
		if upper && r >= 'a' && r <= 'z' {
			r += 'A' - 'a'
		}
		upper = false
		out.WriteRune(r)
	}
	return out.String()
}
