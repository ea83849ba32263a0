package main

import (
	"github.com/spf13/cobra"

	perdureproto "github.com/perdure/perdure/proto"
)

func (c *cli) protoCommand() *cobra.Command {
	command := &cobra.Command{
		Use:     "proto",
		Short:   "The .proto files that services import",
		Example: `  perdure proto export third_party`,
	}
	command.AddCommand(c.exportCommand())
	return command
}

func (c *cli) exportCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "export DIR",
		Short: "Write perdure/v1/options.proto and its like below DIR",
		Long: `Write perdure/v1/options.proto and its like below DIR, for clients in languages that cannot
take them from the Go module. Give DIR to the compiler as an import path. Files that are there
already are replaced.`,
		Example: `  perdure proto export third_party
  protoc -I . -I third_party --python_out=. bank/v1/bank.proto perdure/v1/options.proto`,
		Args: args("DIR"),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
		RunE: func(_ *cobra.Command, args []string) error {
			written, err := perdureproto.Export(args[0])
			if err != nil {
				return err
			}
			if c.output == "json" {
				return c.printValue(map[string][]string{"files": written})
			}
			for _, name := range written {
				c.printf("%s\n", name)
			}
			return nil
		},
	}
}
