package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

func (c *cli) nodeCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "node",
		Short:             "Show what the node says about itself",
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			found := &adminv1.GetNodeResponse{}
			if err := c.admin(cmd.Context(), "GetNode", &adminv1.GetNodeRequest{}, found); err != nil {
				return err
			}
			if c.output == "json" {
				return c.printMessage(found)
			}
			c.printNode(found)
			return nil
		},
	}
}

func (c *cli) printNode(node *adminv1.GetNodeResponse) {
	ready := "yes"
	if !node.GetReady() {
		ready = "no: " + node.GetNotReadyReason()
	}
	led := 0
	var failed [][]string
	for _, partition := range node.GetPartitions() {
		if partition.GetLeader() {
			led++
		}
		if partition.GetFailure() != "" {
			failed = append(failed, []string{strconv.Itoa(int(partition.GetId())), partition.GetFailure()})
		}
	}
	partitions := ""
	if len(node.GetPartitions()) > 0 {
		partitions = fmt.Sprintf("%d, leads %d", len(node.GetPartitions()), led)
	}
	storage := node.GetStorage()
	log, store, free := "", "", ""
	if storage.GetDirectory() != "" {
		log, store, free = known(storage.GetLogBytes()), known(storage.GetStoreBytes()), known(storage.GetFreeBytes())
	}
	up := ""
	if node.GetStartedAt() != nil {
		up = fmt.Sprintf("%s, since %s", trimUnits(node.GetUptime().AsDuration().Round(time.Second)), instant(node.GetStartedAt()))
	}
	c.fields("",
		"address", c.addr,
		"node", node.GetNodeId(),
		"ready", ready,
		"version", node.GetVersion(),
		"built with", node.GetGoVersion(),
		"up", up,
		"partitions", partitions,
		"data directory", storage.GetDirectory(),
		"log", log,
		"store", store,
		"free on disk", free,
	)
	if len(failed) > 0 {
		c.printf("\n")
		c.table("", []string{"PARTITION", "REFUSES TO SERVE BECAUSE"}, failed)
	}
}

// known is empty for a size the node did not say.
func known(bytes uint64) string {
	if bytes == 0 {
		return ""
	}
	return bytesText(bytes)
}
