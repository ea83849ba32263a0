package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

const (
	// maxResponseBytes bounds what a broken node can make us hold.
	maxResponseBytes = 64 << 20
	// adminTimeout is more than the node gives itself.
	adminTimeout = 30 * time.Second
)

// nodeError is what a node answered instead of a result.
type nodeError struct {
	// Code is a Connect code such as "not_found".
	Code    string          `json:"code,omitempty"`
	Message string          `json:"message"`
	Details json.RawMessage `json:"details,omitempty"`
}

func (e *nodeError) Error() string {
	if e.Message == "" {
		return e.Code
	}
	return e.Code + ": " + e.Message
}

// post sends one unary call of the Connect protocol. timeout 0 is none; else the node is told,
// so that its answer can say what became of the call.
func (c *cli) post(ctx context.Context, procedure string, body []byte, timeout time.Duration, header map[string]string) ([]byte, http.Header, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.addr+"/"+procedure, bytes.NewReader(body))
	if err != nil {
		return nil, nil, usagef("%v", err)
	}
	if request.Header, err = c.header(); err != nil {
		return nil, nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Connect-Protocol-Version", "1")
	for name, value := range header {
		request.Header.Set(name, value)
	}
	if timeout > 0 {
		request.Header.Set("Connect-Timeout-Ms", fmt.Sprint(max(timeout.Milliseconds(), 1)))
		bounded, cancel := context.WithTimeout(ctx, timeout+time.Second)
		defer cancel()
		request = request.WithContext(bounded)
	}
	secured, err := c.tls.config()
	if err != nil {
		return nil, nil, err
	}
	transport := &http.Transport{
		TLSClientConfig:     secured,
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second,
		DisableKeepAlives:   true,
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return nil, nil, c.unreachable(ctx, request, timeout, err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxResponseBytes+1))
	if err != nil {
		return nil, nil, c.unreachable(ctx, request, timeout, err)
	}
	if len(answer) > maxResponseBytes {
		return nil, nil, fmt.Errorf("the answer is larger than %d bytes, the most this command reads", maxResponseBytes)
	}
	if response.StatusCode == http.StatusOK && strings.HasPrefix(response.Header.Get("Content-Type"), "application/json") {
		return answer, response.Header, nil
	}
	failure := &nodeError{}
	if json.Unmarshal(answer, failure) == nil && failure.Code != "" {
		return nil, response.Header, failure
	}
	return nil, nil, fmt.Errorf("what answers at %s is no perdure node (%s: %s); check --addr", c.addr, response.Status, clip(firstLine(string(answer)), 80))
}

// unreachable says why there is no answer.
func (c *cli) unreachable(ctx context.Context, request *http.Request, timeout time.Duration, err error) error {
	var dial *net.OpError
	if reason := untrusted(err); reason != "" && ctx.Err() == nil {
		return &nodeError{Code: "unavailable", Message: fmt.Sprintf("no secure connection to %s: %s", c.addr, reason)}
	}
	switch {
	case ctx.Err() != nil:
		return errors.New("interrupted; what the node has accepted goes on")
	case request.Context().Err() != nil:
		return &nodeError{Code: "deadline_exceeded", Message: fmt.Sprintf("no answer from %s within %s", c.addr, timeout)}
	case errors.Is(err, syscall.ECONNREFUSED):
		return &nodeError{Code: "unavailable", Message: fmt.Sprintf("no node answers at %s: start one (go run ./examples/bank) or give --addr", c.addr)}
	case errors.As(err, &dial) && dial.Op == "dial":
		return &nodeError{Code: "unavailable", Message: fmt.Sprintf("no node answers at %s (%v): give another --addr", c.addr, dial.Err)}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return &nodeError{Code: "unavailable", Message: fmt.Sprintf("the node at %s closed the connection before it answered; whether it did what was asked is not known", c.addr)}
	}
	return &nodeError{Code: "unavailable", Message: fmt.Sprintf("cannot talk to %s: %v; check --addr", c.addr, err)}
}

// admin calls an rpc of AdminService.
func (c *cli) admin(ctx context.Context, rpc string, request, response proto.Message) error {
	return c.builtIn(ctx, "perdure.admin.v1.AdminService", rpc, request, response)
}

// builtIn calls a service that every node has.
func (c *cli) builtIn(ctx context.Context, service, rpc string, request, response proto.Message) error {
	body, err := protojson.Marshal(request)
	if err != nil {
		return usagef("%v", err) // an argument that is not valid utf-8
	}
	answer, _, err := c.post(ctx, service+"/"+rpc, body, adminTimeout, nil)
	if failure, ok := errors.AsType[*nodeError](err); ok && failure.Code == "unimplemented" {
		return &nodeError{Code: failure.Code, Message: fmt.Sprintf("the node at %s does not know %s/%s: update its perdure module", c.addr, service[strings.LastIndexByte(service, '.')+1:], rpc)}
	}
	if err != nil {
		return err
	}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(answer, response); err != nil {
		return fmt.Errorf("the node at %s answered what this command does not understand: %w", c.addr, err)
	}
	return nil
}
