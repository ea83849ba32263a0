package local

import (
	"context"
	"io"

	"github.com/spf13/cobra"
)

// Command is perdure dev cluster. Errors before it runs say what is wrong with its flags. status is
// Config.Status.
func Command(in io.Reader, out io.Writer, status func(ctx context.Context, url string) (string, error)) *cobra.Command {
	config := Config{In: in, Out: out, Status: status}
	nodes := &cobra.Command{
		Use:   "cluster -- PROGRAM [ARGUMENT ...]",
		Short: "Run a cluster of processes of one program on this machine",
		Long: `Run a cluster of processes of one program on this machine.

PROGRAM is what serves your handlers with cluster.Main, or a directory with its
source, which is built. The first node listens on --port; each next one ten
ports higher. What nodes keep and print is in --dir, and still there next time.

While it runs it takes commands, a line each: status, kill N, stop N, pause N,
resume N, start N, quit. Ctrl-C ends all nodes in order.`,
		Example: `  perdure dev cluster --nodes 3 -- ./examples/bank
  perdure dev cluster --nodes 5 --dir /tmp/five -- ./bank --log-level warn`,
		Args: cobra.ArbitraryArgs,
		PreRunE: func(_ *cobra.Command, args []string) error {
			config.Command = args
			return config.Validate()
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveDefault
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := New(config)
			if err != nil {
				return err
			}
			return c.Run(cmd.Context())
		},
	}
	flags := nodes.Flags()
	flags.IntVar(&config.Nodes, "nodes", 3, "how many `nodes`, from 1 to 9")
	flags.IntVar(&config.Port, "port", 7373, "`port` of the first node")
	flags.StringVar(&config.Dir, "dir", "perdure-dev", "`directory` for what the nodes keep and print")
	for _, name := range []string{"nodes", "port"} {
		_ = nodes.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions) // fails for a flag that is not there
	}
	return nodes
}
