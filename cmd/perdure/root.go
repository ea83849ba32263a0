package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/cmd/perdure/internal/clustercmd"
	"github.com/perdure/perdure/cmd/perdure/internal/limitscmd"
	"github.com/perdure/perdure/cmd/perdure/internal/local"
)

const defaultAddr = "http://127.0.0.1:7373"

// The exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// cli is one run of the command.
type cli struct {
	in       io.Reader
	out, err io.Writer
	// bold: headers are emphasised.
	bold bool

	addr    string
	output  string
	headers []string
	tls     tlsFlags
}

// usageError is a command line that makes no sense; nothing was done.
type usageError struct{ reason string }

func (e *usageError) Error() string { return e.reason }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// failedError marks what went wrong after the command line was understood. What cobra itself
// returns has no mark, and is a usage error.
type failedError struct{ cause error }

func (e *failedError) Error() string { return e.cause.Error() }
func (e *failedError) Unwrap() error { return e.cause }

// silentError ends the command with exitFailed; all has been said.
type silentError struct{}

func (silentError) Error() string { return "failed" }

func (c *cli) run(ctx context.Context, args []string) int {
	root := c.root()
	root.SetArgs(args)
	root.SetIn(c.in)
	root.SetOut(c.out)
	root.SetErr(c.err)
	command, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	failed, ok := errors.AsType[*failedError](err)
	if !ok {
		fmt.Fprintf(c.err, "perdure: %s; see: %s --help\n", firstLine(err.Error()), command.CommandPath())
		return exitUsage
	}
	c.report(failed.cause)
	return exitFailed
}

// report prints a failure on one line.
func (c *cli) report(err error) {
	if errors.As(err, &silentError{}) {
		return
	}
	coded, ok := errors.AsType[*nodeError](err)
	if c.output == "json" {
		if !ok {
			coded = &nodeError{Message: err.Error()}
		}
		if text, encodeErr := json.Marshal(coded); encodeErr == nil {
			fmt.Fprintf(c.err, "%s\n", text)
			return
		}
	}
	fmt.Fprintf(c.err, "perdure: %s\n", err)
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "perdure",
		Short: "Call durable objects, and look into the node that runs them",
		Long: `Call durable objects, and look into the node that runs them.

The node is a program that registers handlers and starts; to try one:
  go run ./examples/bank

Exit codes: 0 done, 1 it failed, 2 the command line makes no sense.`,
		Example: `  perdure services list
  perdure call bank.v1.AccountService/Deposit '{"accountId":"alice","amount":"5"}'
  perdure invocations list --status running,suspended
  perdure transactions list --in-doubt
  perdure state get bank.v1.AccountService alice
  perdure node --addr https://perdure.example.com --ca ca.pem -H "Authorization: Bearer $TOKEN"`,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			return c.checkGlobals()
		},
	}
	addr := os.Getenv("PERDURE_ADDR")
	if addr == "" {
		addr = defaultAddr
	}
	flags := root.PersistentFlags()
	flags.StringVar(&c.addr, "addr", addr, "`URL` of a node; also by the environment variable PERDURE_ADDR")
	flags.StringVarP(&c.output, "output", "o", "table", "`format` of what is printed: table or json")
	flags.StringArrayVarP(&c.headers, "header", "H", nil, "`'Name: value'` sent with every request, such as a credential; repeat it for more")
	c.tls.flags(root)
	must(root.RegisterFlagCompletionFunc("header", cobra.NoFileCompletions))
	must(root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp)))
	must(root.RegisterFlagCompletionFunc("addr", cobra.NoFileCompletions))
	dev := &cobra.Command{Use: "dev", Short: "Try things out on this machine"}
	dev.AddCommand(local.Command(c.in, c.out, clusterStatus))
	root.AddCommand(
		c.callCommand(), c.sendCommand(), c.attachCommand(), c.invocationsCommand(), c.journalCommand(), c.transactionsCommand(),
		c.schedulesCommand(), c.stateCommand(), c.servicesCommand(), c.deploymentsCommand(), c.nodeCommand(), c.protoCommand(), c.checkCommand(), dev, c.versionCommand(),
		limitscmd.Command(limitscmd.Console{
			Call: c.admin, Complete: c.completeBy, CompleteService: c.completeServiceFlag, Args: args, Usage: usagef,
			JSON: func() bool { return c.output == "json" }, Print: c.printMessage, Table: c.tableWith, Fields: c.fields, Printf: c.printf, Strong: c.strong,
			Note: c.note, Lasting: lasting, Between: between, Ago: ago,
		}),
		clustercmd.Command(clustercmd.Console{
			Call: c.builtIn, JSON: func() bool { return c.output == "json" }, Terminal: c.bold,
			Print: c.printMessage, Printf: c.printf, Note: c.note, Table: c.table, Fields: c.fields, Usage: usagef,
		}),
	)
	root.InitDefaultCompletionCmd()
	markFailures(root)
	return root
}

// clusterStatus is what perdure cluster status prints of a node's cluster.
func clusterStatus(ctx context.Context, url string) (string, error) {
	var out strings.Builder
	c := &cli{in: strings.NewReader(""), out: &out, err: &out}
	if code := c.run(ctx, []string{"cluster", "status", "--addr", url}); code != exitOK {
		return "", errors.New(strings.TrimSpace(out.String()))
	}
	return out.String(), nil
}

// must is for what only a mistake in this program can break; a test builds the whole tree.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// markFailures makes every command tell its failures from usage errors, and refuse unknown
// sub-commands, for which cobra prints the help and reports success.
func markFailures(command *cobra.Command) {
	for _, sub := range command.Commands() {
		markFailures(sub)
	}
	if command.RunE == nil && command.Run == nil && command.HasSubCommands() && command.HasParent() {
		command.Args = cobra.ArbitraryArgs
		command.RunE = func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q for %q", args[0], cmd.CommandPath())
			}
			return cmd.Help()
		}
	}
	if run := command.RunE; run != nil {
		command.RunE = func(cmd *cobra.Command, args []string) error {
			err := run(cmd, args)
			if errors.As(err, &silentOK{}) {
				return nil
			}
			if usage, ok := errors.AsType[*usageError](err); ok || err == nil {
				if ok {
					return usage
				}
				return nil
			}
			return &failedError{err}
		}
	}
}

func (c *cli) checkGlobals() error {
	if c.output != "table" && c.output != "json" {
		return usagef("--output is %q; it must be table or json", c.output)
	}
	addr := c.addr
	if !strings.Contains(addr, "://") {
		addr = "http://" + addr
	}
	parsed, err := url.Parse(addr)
	if err != nil || (parsed.Scheme != "http" && parsed.Scheme != "https") || parsed.Host == "" {
		return usagef("--addr is %q; it must be a URL such as %s", c.addr, defaultAddr)
	}
	c.addr = strings.TrimRight(addr, "/")
	if err := c.tls.check(parsed.Scheme); err != nil {
		return err
	}
	_, err = c.header()
	return err
}

// args names what is missing or too much.
func args(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, given []string) error {
		switch {
		case len(given) < len(names):
			return usagef("%s is missing", strings.Join(names[len(given):], " and "))
		case len(given) > len(names):
			return usagef("%q is too much: it takes %s", given[len(names)], cmp.Or(strings.Join(names, " "), "no arguments"))
		}
		return nil
	}
}

// noArgs is args for commands that take none.
func noArgs(_ *cobra.Command, given []string) error {
	if len(given) > 0 {
		return usagef("%q is too much: it takes no arguments", given[0])
	}
	return nil
}
