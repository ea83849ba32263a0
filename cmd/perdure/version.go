package main

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// build is what the linker knows of this program.
type build struct {
	Version  string `json:"version"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	Revision string `json:"revision,omitempty"`
	// At is when the revision was committed, in RFC 3339.
	At string `json:"at,omitempty"`
	// Modified: the tree had changes that are not in the revision.
	Modified bool `json:"modified,omitempty"`
}

func readBuild() build {
	b := build{Version: "devel", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if info.Main.Version != "" && info.Main.Version != "(devel)" {
		b.Version = info.Main.Version
	}
	for _, setting := range info.Settings {
		switch setting.Key {
		case "vcs.revision":
			b.Revision = setting.Value
		case "vcs.time":
			b.At = setting.Value
		case "vcs.modified":
			b.Modified = setting.Value == "true"
		}
	}
	return b
}

func (c *cli) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "version",
		Short:             "Print the version of this command",
		Long:              `Print the version of this command. That of a node: perdure node.`,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			b := readBuild()
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
