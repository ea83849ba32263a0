package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/codegen/compat"
)

func (c *cli) checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check OLD NEW",
		Short: "Refuse schema changes that would break what a running system keeps",
		Long: `Refuse schema changes that would break what a running system keeps: changes of perdure's
options, keys, state and tables, which "buf breaking" cannot see. Run both.

OLD and NEW are descriptor sets. It fails if a change is breaking; warnings are printed only.`,
		Example: `  git stash; buf build -o old.binpb; git stash pop; buf build -o new.binpb
  perdure check old.binpb new.binpb

  # against what is running:
  perdure services describe bank.v1.AccountService --schema old.binpb
  perdure check old.binpb new.binpb`,
		Args: args("OLD", "NEW"),
		RunE: func(_ *cobra.Command, args []string) error {
			before, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			after, err := os.ReadFile(args[1])
			if err != nil {
				return err
			}
			changes, err := compat.Compare(before, after)
			if err != nil {
				return err
			}
			return c.printChanges(changes)
		},
	}
}

type changeView struct {
	Severity string `json:"severity"`
	File     string `json:"file"`
	Line     int    `json:"line,omitempty"`
	Column   int    `json:"column,omitempty"`
	Symbol   string `json:"symbol"`
	Message  string `json:"message"`
}

func (c *cli) printChanges(changes []compat.Change) error {
	breaking := 0
	views := []changeView{}
	for _, change := range changes {
		if change.Severity == compat.Breaking {
			breaking++
		}
		views = append(views, changeView{
			change.Severity.String(), change.File, change.Line, change.Column, string(change.Symbol), change.Message,
		})
		if c.output != "json" {
			c.printf("%s\n", change)
		}
	}
	if c.output == "json" {
		if err := c.printValue(map[string]any{"changes": views}); err != nil {
			return err
		}
	}
	if breaking > 0 {
		return fmt.Errorf("%s: do not deploy this over data of the old schema", count(breaking, "breaking change"))
	}
	if c.output != "json" {
		c.printf("no breaking changes\n")
	}
	return nil
}
