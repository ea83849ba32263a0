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
	"reflect"
	"strings"
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
//	--headers, PERDURE_HEADERS      request headers that handlers see, separated by commas
//	--deployment, PERDURE_DEPLOYMENT  name of this build of the handlers
//	--cluster, PERDURE_CLUSTER      host:port where other nodes reach this one: see Peers
//	--join, PERDURE_JOIN            host:port of members, separated by commas
//	--found-after                   found a cluster if no member answered for so long
//	--found-on                      only the machine with this host name heeds --found-after
//	--cluster-advertise             host:port at which others reach --cluster, where that differs
//	--cluster-transport             host:port for replication and calls
//	--cluster-transport-advertise   host:port at which others reach --cluster-transport
//	--cluster-keyring               file of keys that gossip is encrypted with
//	--cluster-cert, --cluster-key, --cluster-ca  files by which nodes know each other
//	--zone, PERDURE_ZONE            where the node is: replicas are spread over zones
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
	kept := flags.String("headers", or(env("PERDURE_HEADERS"), strings.Join(config.Headers, ",")), "`names` of request headers, separated by commas, that are kept with each invocation for its handler: X-Request-Id,X-Acme-*. They are on disk (PERDURE_HEADERS)")
	peers := peerFlags(flags, env, config.Peers)
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
	config.Peers, config.Headers = peers(), commaSeparated(*kept)
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
	context.AfterFunc(ctx, stop) // a second signal ends the process at once, as the default is, also while it starts
	if err := node.Start(ctx); err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", name, err)
		return 1
	}
	if err := node.wait(ctx); err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", name, err)
		return 1
	}
	return 0
}

// peerFlags adds the flags of Peers. What it returns yields them once flags are parsed, or nil if
// none was given.
func peerFlags(flags *flag.FlagSet, env func(string) string, given *Peers) func() *Peers {
	var peers Peers
	if given != nil {
		peers = *given
	}
	var files PeerTLS
	if peers.TLS != nil {
		files = *peers.TLS
	}
	flags.StringVar(&peers.Listen, "cluster", or(env("PERDURE_CLUSTER"), peers.Listen), "`host:port` where other nodes reach this one by gossip; the port after it is the transport's (PERDURE_CLUSTER)")
	join := flags.String("join", or(env("PERDURE_JOIN"), strings.Join(peers.Join, ",")), "`host:port,...` of the --cluster of members, or names that resolve to several (PERDURE_JOIN)")
	flags.DurationVar(&peers.FoundAfter, "found-after", peers.FoundAfter, "found a cluster if none of --join answered for so `long`; for one node of a cluster at most. 0: wait for ever")
	flags.StringVar(&peers.FoundOn, "found-on", peers.FoundOn, "only the machine with this `host name` heeds --found-after, so that all can be given it")
	flags.StringVar(&peers.Advertise, "cluster-advertise", or(env("PERDURE_CLUSTER_ADVERTISE"), peers.Advertise), "`host:port` at which other nodes reach --cluster, where that differs (PERDURE_CLUSTER_ADVERTISE)")
	flags.StringVar(&peers.TransportListen, "cluster-transport", peers.TransportListen, "`host:port` for replication and calls between nodes, if not the port after --cluster")
	flags.StringVar(&peers.TransportAdvertise, "cluster-transport-advertise", peers.TransportAdvertise, "`host:port` at which other nodes reach --cluster-transport, where that differs")
	flags.StringVar(&peers.KeyringFile, "cluster-keyring", or(env("PERDURE_CLUSTER_KEYRING"), peers.KeyringFile), "`file` of keys that gossip is encrypted with, one a line in base64 (PERDURE_CLUSTER_KEYRING)")
	flags.StringVar(&files.CertFile, "cluster-cert", or(env("PERDURE_CLUSTER_CERT"), files.CertFile), "`file` of this node's certificate for other nodes (PERDURE_CLUSTER_CERT)")
	flags.StringVar(&files.KeyFile, "cluster-key", or(env("PERDURE_CLUSTER_KEY"), files.KeyFile), "`file` of the certificate's key (PERDURE_CLUSTER_KEY)")
	flags.StringVar(&files.CAFile, "cluster-ca", or(env("PERDURE_CLUSTER_CA"), files.CAFile), "`file` of the authorities that sign nodes' certificates (PERDURE_CLUSTER_CA)")
	flags.StringVar(&peers.Zone, "zone", or(env("PERDURE_ZONE"), peers.Zone), "`name` of the rack or data centre the node is in (PERDURE_ZONE)")
	return func() *Peers {
		peers.Join = commaSeparated(*join)
		if files != (PeerTLS{}) {
			peers.TLS = &files
		}
		if given == nil && reflect.DeepEqual(peers, Peers{}) {
			return nil
		}
		return &peers
	}
}

// commaSeparated are the parts of a text between commas.
func commaSeparated(text string) []string {
	var parts []string
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			parts = append(parts, part)
		}
	}
	return parts
}

func or(texts ...string) string {
	for _, text := range texts {
		if text != "" {
			return text
		}
	}
	return ""
}
