package membership

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"time"
)

// Config is what a Membership needs. The zero value of most fields is their default.
type Config struct {
	// NodeID is this node; not 0.
	NodeID uint64
	// Bind is the host:port to gossip on, UDP and TCP; port 0 takes a free one.
	Bind string
	// Advertise is where others reach it, host:port. Defaults to Bind, and if that names no host,
	// to a private address of this machine.
	Advertise string
	// Seeds are host:port of some members, or of anything that leads to them: every address of a
	// name is asked, and names are resolved again each time.
	Seeds []string
	// KeyringFile holds keys, in base64, of 16, 24 or 32 bytes, one a line; empty lines and those
	// that begin with # don't count. The first one encrypts, all of them decrypt. It is read again
	// when it changes. Empty: nothing is encrypted, and whoever reaches the port takes part.
	KeyringFile string
	// KnownFile, if set, is where the addresses of known members are kept for the next process.
	KnownFile string
	// Meta is what the node says of itself at first; SetMeta changes it.
	Meta Meta
	// OnShared is told of each newest value of a fact of another node, one call at a time. A value
	// that was replaced before it was told is left out. An empty value holds no more.
	OnShared func(from uint64, key string, value []byte)
	// Timing has defaults of its own.
	Timing Timing
	// Network, if not nil, is used instead of a real one.
	Network *Network
	// LookUp resolves a seed's name. Defaults to net.DefaultResolver.LookupNetIP.
	LookUp func(ctx context.Context, host string) ([]netip.Addr, error)
	// Logger defaults to slog.Default.
	Logger *slog.Logger
}

// Timing has the times of gossip. Defaults are for a network within a region: a dead node is
// noticed in about 3 to 6 s.
type Timing struct {
	// Probe is how often one other node is probed, ProbeTimeout what its answer may take. Default
	// to 1 s and 500 ms.
	Probe, ProbeTimeout time.Duration
	// Gossip is how often news are sent to a few nodes. Defaults to 200 ms.
	Gossip time.Duration
	// Exchange is how often all is exchanged with one other node. Defaults to 10 s.
	Exchange time.Duration
	// Rejoin is how often nodes that are not among the members are asked, and Alone how often if
	// there are none. They vary by half. Default to 10 s and 1 s.
	Rejoin, Alone time.Duration
	// Timeout bounds a connection. Defaults to 3 s.
	Timeout time.Duration
	// Files is how often the keyring is looked at. Defaults to 1 s.
	Files time.Duration
	// Coalesce is how long changes are gathered before they are told. Defaults to 50 ms.
	Coalesce time.Duration
	// Forget is when a dead member is forgotten. Defaults to 24 h.
	Forget time.Duration
	// Leave is how long Run tells others, when it ends, that this node leaves. Defaults to 2 s.
	Leave time.Duration
}

func (c Config) withDefaults() Config {
	t := &c.Timing
	for _, field := range []struct {
		value    *time.Duration
		standard time.Duration
	}{
		{&t.Probe, time.Second}, {&t.ProbeTimeout, 500 * time.Millisecond}, {&t.Gossip, 200 * time.Millisecond}, {&t.Exchange, 10 * time.Second},
		{&t.Rejoin, 10 * time.Second}, {&t.Alone, time.Second}, {&t.Timeout, 3 * time.Second}, {&t.Files, time.Second},
		{&t.Coalesce, 50 * time.Millisecond}, {&t.Forget, 24 * time.Hour}, {&t.Leave, 2 * time.Second},
	} {
		*field.value = cmp.Or(*field.value, field.standard)
	}
	if c.LookUp == nil {
		c.LookUp = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// Validate reports all that is wrong, without touching files or network.
func (c Config) Validate() error {
	var problems []error
	reject := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf("membership: "+format, args...))
	}
	if c.NodeID == 0 {
		reject("the node id is 0; every node needs an id of its own")
	}
	if _, _, err := hostPort(c.Bind); err != nil {
		reject("Bind is %q; it must be host:port, such as 127.0.0.1:7375: %w", c.Bind, err)
	}
	if c.Advertise != "" {
		if host, port, err := hostPort(c.Advertise); err != nil || host == "" || port == 0 {
			reject("Advertise is %q; it must be the host:port that other nodes reach", c.Advertise)
		}
	}
	for _, seed := range c.Seeds {
		if host, port, err := hostPort(seed); err != nil || host == "" || port == 0 {
			reject("seed %q must be host:port, such as perdure-gossip.example:7375", seed)
		}
	}
	if _, err := encodeMeta(c.Meta, c.NodeID, 1<<62); err != nil {
		problems = append(problems, err)
	}
	if t := c.withDefaults().Timing; t.ProbeTimeout >= t.Probe {
		reject("Timing.ProbeTimeout is %v; it must be less than Timing.Probe, %v", t.ProbeTimeout, t.Probe)
	}
	return errors.Join(problems...)
}

func hostPort(address string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	number, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("port %q is not a number from 0 to 65535", text)
	}
	return host, int(number), nil
}
