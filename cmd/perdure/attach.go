package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func (c *cli) attachCommand() *cobra.Command {
	var timeout time.Duration
	var noWait bool
	var which attached
	command := &cobra.Command{
		Use:   "attach ID | SERVICE/HANDLER | SERVICE",
		Short: "Wait for an invocation and print its response",
		Long: `Wait for an invocation and print its response, or fail as its handler did. With --no-wait, fail
if it has not ended.

ID is what "perdure send" printed, or the response header Perdure-Invocation-Id. Without it,
SERVICE/HANDLER with --idempotency-key is the call that was made with that key, and SERVICE with
--key is the run of a workflow.`,
		Example: `  perdure attach $(perdure send bank.v1.AccountService/Deposit '{"accountId":"alice","amount":"5"}')
  perdure attach bank.v1.AccountService/Deposit --key alice --idempotency-key 2026-11-rent
  perdure attach shop.v1.OrderService --key o-1`,
		Args:              args("ID"),
		ValidArgsFunction: c.completeHandlers,
		RunE: func(cmd *cobra.Command, args []string) error {
			request, err := which.request(args[0])
			if err != nil {
				return err
			}
			body, err := json.Marshal(request)
			if err != nil {
				return err
			}
			method := "Attach"
			if noWait {
				method = "Peek"
			}
			answer, _, err := c.post(cmd.Context(), "perdure.v1.InvocationService/"+method, body, timeout, nil)
			if err != nil {
				return err
			}
			if noWait {
				if err := peeked(args[0], answer); err != nil {
					return err
				}
			}
			response, err := unpack(answer)
			if err != nil {
				return fmt.Errorf("the node at %s answered what this command does not understand: %w", c.addr, err)
			}
			return c.printJSON(response)
		},
	}
	which.flags(command)
	command.Flags().BoolVar(&noWait, "no-wait", false, "print the response if it is there, and do not wait for it")
	command.Flags().DurationVar(&timeout, "timeout", 0, "stop waiting after this `duration`, such as 5s")
	return command
}

// attached says which invocation is meant, beside the argument.
type attached struct{ key, idempotencyKey string }

func (a *attached) flags(command *cobra.Command) {
	command.Flags().StringVar(&a.key, "key", "", "the object's or workflow's `key`")
	command.Flags().StringVar(&a.idempotencyKey, "idempotency-key", "", "the `key` that the call was made with")
	must(command.RegisterFlagCompletionFunc("key", cobra.NoFileCompletions))
	must(command.RegisterFlagCompletionFunc("idempotency-key", cobra.NoFileCompletions))
}

// request is a perdure.v1.AttachRequest.
func (a *attached) request(named string) (map[string]any, error) {
	service, handler, isHandler := strings.Cut(strings.TrimPrefix(named, "/"), "/")
	switch {
	case isHandler && a.idempotencyKey == "":
		return nil, usagef("%s is a handler: say which of its calls with --idempotency-key; the run of a workflow is SERVICE and --key", named)
	case isHandler:
		return map[string]any{"call": map[string]string{"service": service, "key": a.key, "handler": handler, "idempotencyKey": a.idempotencyKey}}, nil
	case a.idempotencyKey != "":
		return nil, usagef("--idempotency-key is of a call of one handler: give SERVICE/HANDLER instead of %s", named)
	case a.key != "":
		return map[string]any{"run": map[string]string{"service": service, "key": a.key}}, nil
	case strings.Contains(named, "."): // an id has none
		return nil, usagef("%s is a service: say which workflow's run with --key", named)
	}
	return map[string]any{"invocationId": named}, nil
}

// peeked is why there is no response in the answer to a Peek, nil if there is one.
func peeked(id string, answer []byte) error {
	var found struct {
		Done  bool `json:"done"`
		Error *struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
	}
	if err := json.Unmarshal(answer, &found); err != nil {
		return fmt.Errorf("the node answered what this command does not understand: %w", err)
	}
	switch {
	case !found.Done:
		return fmt.Errorf("%s has not ended yet", id)
	case found.Error != nil:
		return fmt.Errorf("%s: %s", strings.ToLower(strings.TrimPrefix(found.Error.Code, "CODE_")), found.Error.Message)
	}
	return nil
}

// unpack takes the response out of its google.protobuf.Any, so that it is what call prints.
func unpack(answer []byte) ([]byte, error) {
	var attached struct {
		Response json.RawMessage `json:"response"`
	}
	if err := json.Unmarshal(answer, &attached); err != nil {
		return nil, err
	}
	var packed struct {
		Type  string          `json:"@type"`
		Value json.RawMessage `json:"value"`
	}
	if err := json.Unmarshal(attached.Response, &packed); err != nil {
		return nil, err
	}
	// The well-known types have a JSON form of their own, under "value".
	if strings.Contains(packed.Type, "/google.protobuf.") && packed.Value != nil {
		return packed.Value, nil
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, attached.Response); err != nil {
		return nil, err
	}
	// Cut out rather than decoded, to keep the order of fields. protojson writes @type first.
	rest, ok := bytes.CutPrefix(compact.Bytes(), fmt.Appendf(nil, `{"@type":%q`, packed.Type))
	if !ok {
		return attached.Response, nil
	}
	return append([]byte("{"), bytes.TrimPrefix(rest, []byte(","))...), nil
}
