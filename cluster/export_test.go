package cluster

// PeerAddress is where the node gossips.
func (n *Node) PeerAddress() string { return n.mu.network.gossip.Addr() }
