package main

import (
	"encoding/json"

	"github.com/spf13/cobra"

	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

func (c *cli) stateCommand() *cobra.Command {
	command := &cobra.Command{
		Use:     "state",
		Short:   "Look at what objects remember",
		Example: `  perdure state get bank.v1.AccountService alice`,
	}
	command.AddCommand(c.getStateCommand())
	return command
}

func (c *cli) getStateCommand() *cobra.Command {
	request := &adminv1.GetStateRequest{}
	var limit int
	command := &cobra.Command{
		Use:   "get SERVICE KEY",
		Short: "Print the committed state and tables of one object",
		Example: `  perdure state get bank.v1.AccountService alice
  perdure state get shop.v1.InventoryService berlin --table items --limit 1000`,
		Args:              args("SERVICE", "KEY"),
		ValidArgsFunction: c.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit < 1 {
				return usagef("--limit is %d; it must be at least 1", limit)
			}
			request.Service, request.Key = args[0], args[1]
			request.PageSize = uint32(min(limit, adminPage))
			found := &adminv1.GetStateResponse{}
			if err := c.admin(cmd.Context(), "GetState", request, found); err != nil {
				return err
			}
			for _, table := range found.GetTables() {
				for table.GetNextPageToken() != "" && len(table.GetRows()) < limit {
					more := &adminv1.GetStateRequest{
						Service: request.Service, Key: request.Key, Table: table.GetName(),
						PageSize: uint32(min(limit-len(table.GetRows()), adminPage)), PageToken: table.GetNextPageToken(),
					}
					page := &adminv1.GetStateResponse{}
					if err := c.admin(cmd.Context(), "GetState", more, page); err != nil {
						return err
					}
					table.NextPageToken = ""
					for _, next := range page.GetTables() {
						table.Rows = append(table.Rows, next.GetRows()...)
						table.NextPageToken = next.GetNextPageToken()
					}
				}
			}
			if c.output == "json" {
				return c.printValue(newStateView(found))
			}
			return c.printState(request, found)
		},
	}
	command.Flags().StringVar(&request.Table, "table", "", "only the rows of this `table`")
	command.Flags().IntVar(&limit, "limit", 100, "at most `n` rows of each table")
	must(command.RegisterFlagCompletionFunc("table", cobra.NoFileCompletions))
	must(command.RegisterFlagCompletionFunc("limit", cobra.NoFileCompletions))
	return command
}

func (c *cli) printState(request *adminv1.GetStateRequest, found *adminv1.GetStateResponse) error {
	if request.GetTable() == "" {
		switch {
		case found.GetStateJson() != "":
			if err := c.printJSON([]byte(found.GetStateJson())); err != nil {
				return err
			}
		case found.GetStateType() == "" && !found.GetHasState():
			c.note("%s declares no state", request.GetService())
		case !found.GetHasState():
			c.note("%s/%s has no state yet", request.GetService(), printable(request.GetKey()))
		}
	}
	for i, table := range found.GetTables() {
		if i > 0 || found.GetStateJson() != "" && request.GetTable() == "" {
			c.printf("\n")
		}
		c.printf("table %s: %s of %s\n", table.GetName(), count(int(table.GetSize()), "row"), orDash(table.GetValueType()))
		var rows [][]string
		for _, row := range table.GetRows() {
			value := row.GetValueJson()
			if row.GetNote() != "" {
				value = "(" + row.GetNote() + ")"
			}
			rows = append(rows, []string{row.GetKey(), value})
		}
		if len(rows) > 0 {
			c.table("  ", []string{"KEY", "VALUE"}, rows)
		}
		if table.GetNextPageToken() != "" {
			c.note("… and more rows: raise --limit above %d", len(rows))
		}
	}
	if found.GetNote() != "" {
		c.note("note: %s", found.GetNote())
	}
	return nil
}

// stateView is GetStateResponse with its JSON in place rather than quoted, for jq.
type stateView struct {
	State     json.RawMessage `json:"state"`
	StateType string          `json:"stateType,omitempty"`
	Tables    []tableView     `json:"tables,omitempty"`
	Note      string          `json:"note,omitempty"`
}

type tableView struct {
	Name      string    `json:"name"`
	ValueType string    `json:"valueType,omitempty"`
	Size      uint64    `json:"size"`
	Rows      []rowView `json:"rows"`
	// More: there are rows after these.
	More bool `json:"more,omitempty"`
}

type rowView struct {
	Key   string          `json:"key"`
	Value json.RawMessage `json:"value"`
	Note  string          `json:"note,omitempty"`
}

func newStateView(found *adminv1.GetStateResponse) stateView {
	view := stateView{State: orNull(found.GetStateJson()), StateType: found.GetStateType(), Note: found.GetNote()}
	for _, table := range found.GetTables() {
		shown := tableView{
			Name: table.GetName(), ValueType: table.GetValueType(), Size: table.GetSize(),
			Rows: []rowView{}, More: table.GetNextPageToken() != "",
		}
		for _, row := range table.GetRows() {
			shown.Rows = append(shown.Rows, rowView{row.GetKey(), orNull(row.GetValueJson()), row.GetNote()})
		}
		view.Tables = append(view.Tables, shown)
	}
	return view
}

func orNull(text string) json.RawMessage {
	if text == "" {
		return json.RawMessage("null")
	}
	return json.RawMessage(text)
}
