// Package cluster runs a node: it puts the log, the store, the partitions, the handlers and the
// edge together, starts them in the right order and stops them in the opposite one. It is the
// only package that knows all the others.
//
// A program registers its handlers and runs the node:
//
//	node := cluster.NewNode(cluster.WithDataDir("data"))
//	bankv1perdure.RegisterAccountHandler(node, Accounts{})
//	err := node.Run(ctx) // serves until ctx ends, then shuts down
//
// Callers in the same program use node.Client, those in others Dial, and those in any language
// the URL with Connect, gRPC, gRPC-Web or plain JSON.
//
// # What a node starts
//
// Start runs, in order: the lock on the data directory, telemetry, the node log and the store
// (see storage), one Raft group per partition (cluster/replica), the partitions
// (internal/partition), the edge (internal/ingress) and the listener. It owns three goroutines,
// which Shutdown waits for: one drives the Raft groups, one the partitions, one accepts
// connections.
//
// # GOMAXPROCS
//
// Start raises GOMAXPROCS to max(8, cores+6), once per process, unless the environment variable
// GOMAXPROCS is set or it is higher already. A thread that waits for fdatasync or for a page of
// the store keeps its place among the running ones for a while; with as many places as cores,
// that stalls handlers and the network while the disk works.
package cluster
