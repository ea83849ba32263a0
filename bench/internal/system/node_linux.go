package system

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/perdure/perdure/bench/internal/procfs"
)

// Node is one node of a cluster. Its methods are not safe for concurrent use.
type Node struct {
	// Addr is where it takes calls, host:port.
	Addr string

	dir       string
	arguments []string
	process   *process
}

// Nodes are count nodes that are not started, with directories in dir. The first one founds the cluster, with so many
// partitions; the others join it.
func (p Perdure) Nodes(dir string, count, partitions int) ([]*Node, error) {
	ports, err := freePorts(3 * count)
	if err != nil {
		return nil, err
	}
	var nodes []*Node
	var members []string
	for i := range count {
		listen, gossip, transport := ports[3*i].String(), ports[3*i+1].String(), ports[3*i+2].String()
		n := &Node{Addr: listen, dir: filepath.Join(dir, fmt.Sprint("node-", i+1))}
		if err := makeDirs(filepath.Join(n.dir, "data")); err != nil {
			return nil, err
		}
		n.arguments = []string{p.Binary, "--data", filepath.Join(n.dir, "data"), "--listen", listen,
			"--cluster", gossip, "--cluster-transport", transport}
		if i > 0 {
			n.arguments = append(n.arguments, "--join", strings.Join(members, ","))
		}
		// The node reads it from its environment, which it inherits from env(1): Main has no flag for it.
		n.arguments = append([]string{"/usr/bin/env", fmt.Sprint(PartitionsVariable, "=", partitions)}, n.arguments...)
		members = append(members, gossip)
		nodes = append(nodes, n)
	}
	return nodes, nil
}

// PartitionsVariable is the environment variable by which benchnode is told how many partitions to found a cluster with.
const PartitionsVariable = "PERDURE_BENCH_PARTITIONS"

// Start runs the node and waits until it is ready.
func (n *Node) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	var err error
	if n.process, err = launch(n.dir, filepath.Join(n.dir, "log"), n.arguments...); err != nil {
		return err
	}
	client := http.Client{Timeout: time.Second}
	for {
		response, err := client.Get("http://" + n.Addr + "/readyz")
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-n.process.exited:
			return n.process.died()
		case <-time.After(pollEvery):
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w", n.Addr, context.Cause(ctx))
		}
	}
}

// Running is whether it was started and not killed.
func (n *Node) Running() bool { return n.process != nil }

// Kill ends the node with SIGKILL. One that does not run stays so.
func (n *Node) Kill() {
	n.process.kill()
	n.process = nil
}

// Pause stops the node by SIGSTOP, as a machine that hangs: its connections stand, and nothing is answered. Resume lets it go on.
func (n *Node) Pause() error { return n.process.signal(syscall.SIGSTOP) }

// Resume undoes Pause.
func (n *Node) Resume() error { return n.process.signal(syscall.SIGCONT) }

// Usage is what the process has used since its start.
func (n *Node) Usage() (procfs.Process, error) {
	if n.process == nil {
		return procfs.Process{}, nil
	}
	return n.process.usage()
}
