package cluster

import (
	"fmt"
	"math"
	"net"
	"strconv"
	"time"
)

// Peers says how nodes of one cluster find and reach each other. Two addresses belong to it:
// gossip's, over UDP and TCP, by which nodes find each other, and the transport's, over TCP, by
// which they replicate and pass calls on.
//
// A node without data that is given Join becomes a member of the cluster that it finds there;
// one without Join founds a cluster, which others can join later. A node with data knows whose
// member it is, and Join only tells it where to look first.
type Peers struct {
	// Listen is the host:port for gossip. Defaults to 127.0.0.1:7374.
	Listen string
	// Advertise is the host:port at which other nodes reach Listen, where that differs: behind
	// address translation, or if Listen has no host of its own, such as 0.0.0.0. Defaults to
	// Listen, or to the first private address of this machine if Listen is of all of them.
	Advertise string
	// TransportListen is the host:port for replication and calls. Defaults to Listen with the
	// port after it, or with a free one if that port is 0.
	TransportListen string
	// TransportAdvertise is to TransportListen what Advertise is to Listen.
	TransportAdvertise string
	// Join are host:port of gossip of some members, or names that resolve to several, as those of
	// headless services do. They are looked up again for as long as the node runs.
	Join []string
	// FoundAfter makes a node without data found a cluster if none of Join answered for so long.
	// At most one node of a cluster may do so: two that can't reach each other would found
	// two. 0: it waits for a member for ever.
	FoundAfter time.Duration
	// FoundOn limits FoundAfter to the machine with this host name, so that all nodes can be
	// started alike. Defaults to any.
	FoundOn string
	// KeyringFile has the keys that gossip is encrypted with: one a line, in base64, of 16, 24 or
	// 32 bytes; the first one is used, the others are understood. It is read again when it
	// changes. Without it gossip is in the clear, and anyone who reaches the port can join.
	KeyringFile string
	// TLS makes nodes prove to each other who they are. Without it the transport is in the clear.
	TLS *PeerTLS
	// Zone is where the node is, such as a rack or a data centre: the replicas of a partition
	// are spread over zones. Defaults to none.
	Zone string
}

// PeerTLS names the files by which nodes know each other. They are read again when they change.
type PeerTLS struct {
	// CertFile and KeyFile are this node's, in PEM form, for clients and servers both.
	CertFile, KeyFile string
	// CAFile has the authorities that sign nodes' certificates, and nobody else's: whoever has
	// a certificate of theirs is taken for a node.
	CAFile string
}

// DefaultPeersListen is the default of Peers.Listen.
const DefaultPeersListen = "127.0.0.1:7374"

// withDefaults fills in what follows from the rest.
func (p Peers) withDefaults() Peers {
	defaultTo(&p.Listen, DefaultPeersListen)
	if p.TransportListen == "" {
		if host, port, err := splitAddress(p.Listen); err == nil {
			if port > 0 {
				port++
			}
			p.TransportListen = net.JoinHostPort(host, strconv.Itoa(port))
		}
	}
	return p
}

// splitAddress is net.SplitHostPort with a port that is a number.
func splitAddress(address string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	number, err := strconv.ParseUint(text, 10, 16)
	return host, int(number), err
}

// problems are all that is wrong with p.
func (p Peers) problems() []error {
	p = p.withDefaults()
	var problems []error
	reject := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if host, port, err := splitAddress(p.Listen); err == nil && port == math.MaxUint16 && p.TransportListen == net.JoinHostPort(host, strconv.Itoa(port+1)) {
		reject("peers' listen address %q has the last port there is, and the transport would listen on the one after: choose another, or set the transport's address", p.Listen)
		p.TransportListen = p.Listen // it was reported
	}
	for _, given := range []struct{ name, address string }{
		{"peers' listen address", p.Listen}, {"peers' advertised address", p.Advertise},
		{"transport's listen address", p.TransportListen}, {"transport's advertised address", p.TransportAdvertise},
	} {
		if given.address == "" {
			continue // only Advertise and TransportAdvertise may be, and a bad Listen was reported
		}
		if _, _, err := splitAddress(given.address); err != nil {
			reject("%s %q is not host:port, such as %s", given.name, given.address, DefaultPeersListen)
		}
	}
	for _, address := range p.Join {
		if host, port, err := splitAddress(address); err != nil || host == "" || port == 0 {
			reject("%q can't be joined: it is not host:port, such as node-1:7374", address)
		}
	}
	if p.FoundAfter < 0 {
		reject("found after is %s; it must not be negative", p.FoundAfter)
	}
	if p.FoundAfter > 0 && len(p.Join) == 0 {
		reject("found after is %s, and there is nobody to join: a node founds at once then; say whom to look for first, or leave it out", p.FoundAfter)
	}
	if len(p.Zone) > maxZoneBytes {
		reject("zone has %d bytes; it must have at most %d", len(p.Zone), maxZoneBytes)
	}
	if p.TLS != nil {
		if p.TLS.CertFile == "" || p.TLS.KeyFile == "" || p.TLS.CAFile == "" {
			reject("peers' certificate file %q, key file %q and authority file %q must all be set: nodes check each other", p.TLS.CertFile, p.TLS.KeyFile, p.TLS.CAFile)
		}
	}
	return problems
}

const maxZoneBytes = 63

// WithPeers sets Config.Peers.
func WithPeers(peers Peers) Option { return func(c *Config) { c.Peers = &peers } }
