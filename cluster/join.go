package cluster

import (
	"context"
	"fmt"
	"net"
)

// openLayoutLocked opens the data directory. One without data becomes that of a member of the
// cluster that is found, or of a cluster of its own.
func (n *Node) openLayoutLocked(ctx context.Context, config Config) (*layout, error) {
	if config.Peers == nil || len(config.Peers.Join) == 0 {
		return openLayout(config.DataDir, config.Partitions, nil)
	}
	return openLayout(config.DataDir, config.Partitions, func(own identity, dir string) (*existing, error) {
		var err error
		if n.mu.network, err = newNetwork(ctx, config, own.raftID, "", 0, dir); err != nil {
			return nil, err
		}
		return n.mu.network.find(ctx)
	})
}

// joinLocked says to other nodes who this one is, if there are to be any.
func (n *Node) joinLocked(ctx context.Context, config Config) error {
	if config.Peers == nil {
		return nil
	}
	at := n.mu.layout.identity
	if n.mu.network == nil {
		var err error
		if n.mu.network, err = newNetwork(ctx, config, at.raftID, at.ClusterID, at.Partitions, n.mu.layout.dir); err != nil {
			return err
		}
	}
	ingress := ""
	if _, port, err := splitAddress(config.Listen); err == nil && port != 0 && !config.NoListener {
		if ingress, err = reachable(config.Listen, n.mu.network.gossip.Addr()); err != nil {
			return err
		}
	}
	return n.mu.network.join(at, ingress)
}

// reachable is where others reach an address that this node listens on: as it is, or, if it names
// no host, at the host of an address that they know.
func reachable(listening, known string) (string, error) {
	host, port, err := net.SplitHostPort(listening)
	if err != nil {
		return "", err
	}
	if ip := net.ParseIP(host); host != "" && (ip == nil || !ip.IsUnspecified()) {
		return listening, nil
	}
	other, _, err := net.SplitHostPort(known)
	if err != nil {
		return "", fmt.Errorf("listens on %s, which says nothing of where other nodes reach it: set the advertised address", listening)
	}
	return net.JoinHostPort(other, port), nil
}
