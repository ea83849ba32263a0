// Command restate serves the benchmark's handlers on the Restate Go SDK: the same work as the handlers of
// bench/proto/bench/v1/bench.proto, so that both systems can be measured in one run.
//
// It lives in a module of its own, so that nobody who uses Perdure downloads Restate's SDK.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	restate "github.com/restatedev/sdk-go"
	"github.com/restatedev/sdk-go/server"
)

// valueState is the only state entry of a counter.
const valueState = "value"

type addRequest struct {
	Amount int64 `json:"amount"`
}

type counterValue struct {
	Value int64 `json:"value"`
}

type run10Request struct {
	// Steps is how many durable steps to take. 0 is ten.
	Steps uint32 `json:"steps"`
}

type run10Response struct {
	Steps uint32 `json:"steps"`
}

func add(ctx restate.ObjectContext, req addRequest) (counterValue, error) {
	value, err := restate.Get[int64](ctx, valueState)
	if err != nil {
		return counterValue{}, err
	}
	value += req.Amount
	restate.Set(ctx, valueState, value)
	return counterValue{Value: value}, nil
}

func get(ctx restate.ObjectSharedContext, _ struct{}) (counterValue, error) {
	value, err := restate.Get[int64](ctx, valueState)
	return counterValue{Value: value}, err
}

func run10(ctx restate.Context, req run10Request) (run10Response, error) {
	steps := req.Steps
	if steps == 0 {
		steps = 10
	}
	for i := range steps {
		_, err := restate.Run(ctx, func(restate.RunContext) (uint32, error) { return i, nil })
		if err != nil {
			return run10Response{}, err
		}
	}
	return run10Response{Steps: steps}, nil
}

func main() {
	listen := flag.String("listen", "127.0.0.1:9080", "address to serve the SDK's protocol on")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	// The SDK logs every invocation at info, which would cost Restate time that Perdure does not spend.
	quiet := slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelError})
	endpoint := server.NewRestate().WithLogger(quiet, true).
		Bind(restate.NewObject("CounterService").
			Handler("Add", restate.NewObjectHandler(add)).
			Handler("Get", restate.NewObjectSharedHandler(get))).
		Bind(restate.NewService("StepsService").
			Handler("Run10", restate.NewServiceHandler(run10)))
	if err := endpoint.Start(ctx, *listen); err != nil {
		fmt.Fprintln(os.Stderr, "restate service:", err)
		os.Exit(1)
	}
}
