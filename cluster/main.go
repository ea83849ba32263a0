package cluster

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

// Main is the main function of a program that is a node and nothing else: it reads flags and
// environment, has register add the handlers, and serves until SIGINT or SIGTERM. It does not
// return. opts come before what flags and environment say.
//
//	--listen, PERDURE_LISTEN        host:port
//	--data, PERDURE_DATA            data directory
//	--log-level, PERDURE_LOG_LEVEL  debug, info, warn or error
//	--prometheus                    serve /metrics
//	--remote-admin                  serve the admin service to everyone, not only this machine
//	--otlp, PERDURE_OTLP            collector for traces and metrics, http://host:4318
//	--deployment, PERDURE_DEPLOYMENT  name of this build of the handlers
//	--accept-breaking               start although the data does not fit the services
func Main(register func(*Node), opts ...Option) {
	os.Exit(run(os.Args[0], os.Args[1:], os.Getenv, os.Stdout, os.Stderr, register, opts))
}

func run(name string, arguments []string, env func(string) string, stdout, stderr io.Writer, register func(*Node), opts []Option) int {
	var config Config
	for _, opt := range opts {
		opt(&config)
	}
	level := slog.LevelInfo
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&config.Listen, "listen", or(env("PERDURE_LISTEN"), config.Listen, DefaultListen), "`host:port` to serve on (PERDURE_LISTEN)")
	flags.StringVar(&config.DataDir, "data", or(env("PERDURE_DATA"), config.DataDir, DefaultDataDir), "`directory` that holds everything the node keeps (PERDURE_DATA)")
	flags.BoolVar(&config.Telemetry.Prometheus, "prometheus", config.Telemetry.Prometheus, "serve metrics at /metrics")
	flags.BoolVar(&config.RemoteAdmin, "remote-admin", config.RemoteAdmin, "serve the admin service to everyone who can reach the node, not only to callers on this machine; without client certificates nothing authenticates them")
	flags.StringVar(&config.Deployment, "deployment", or(env("PERDURE_DEPLOYMENT"), config.Deployment), "`name` of this build of the handlers, a new one for each; without one it gets one (PERDURE_DEPLOYMENT)")
	flags.BoolVar(&config.AcceptBreakingChanges, "accept-breaking", config.AcceptBreakingChanges, "start although the services don't fit the data that earlier builds left: what a start without it lists may be lost")
	otlp := flags.String("otlp", env("PERDURE_OTLP"), "OTLP/HTTP `URL` that traces and metrics are sent to (PERDURE_OTLP)")
	flags.TextVar(&level, "log-level", level, "debug, info, warn or error (PERDURE_LOG_LEVEL)")
	if text := env("PERDURE_LOG_LEVEL"); text != "" {
		if err := level.UnmarshalText([]byte(text)); err != nil {
			fmt.Fprintf(stderr, "%s: PERDURE_LOG_LEVEL is %q; it must be debug, info, warn or error\n", name, text)
			return 2
		}
	}
	if err := flags.Parse(arguments); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "%s: %q is not a flag\n", name, flags.Arg(0))
		return 2
	}
	if *otlp != "" {
		config.Telemetry.TracesURL, config.Telemetry.MetricsURL = *otlp, *otlp
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	also := config.OnServing
	config.OnServing = func(url string) {
		fmt.Fprintf(stdout, "serving on %s, data in %s\n", url, config.DataDir)
		if also != nil {
			also(url)
		}
	}
	node := NewNode(WithConfig(config))
	register(node)
	if err := node.Start(ctx); err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", name, err)
		return 1
	}
	context.AfterFunc(ctx, stop) // a second signal ends the process at once, as the default is
	if err := node.wait(ctx); err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", name, err)
		return 1
	}
	return 0
}

func or(texts ...string) string {
	for _, text := range texts {
		if text != "" {
			return text
		}
	}
	return ""
}
