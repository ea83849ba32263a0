package main

import (
	"github.com/spf13/cobra"

	"github.com/perdure/perdure/cmd/perdure/internal/build"
)

func (c *cli) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "version",
		Short:             "Print the version of this command",
		Long:              `Print the version of this command. That of a node: perdure node.`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			b := build.Read()
			if c.output == "json" {
				return c.printValue(b)
			}
			c.printf("perdure %s (%s, %s)\n", b.Version, b.Go, b.Platform)
			if b.Revision != "" {
				modified := ""
				if b.Modified {
					modified = ", with changes"
				}
				c.printf("revision %s of %s%s\n", b.Revision, b.At, modified)
			}
			return nil
		},
	}
}
