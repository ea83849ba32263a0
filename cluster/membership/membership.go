package membership

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/perdure/perdure/internal/telemetry"
)

// Membership is this node's view of its cluster. Make it with New, then Run. Its methods are safe
// for concurrent use.
type Membership struct {
	config     Config
	name       string // of this process
	generation uint64
	keyring    *keyring // nil: nothing is encrypted
	queue      *memberlist.TransmitLimitedQueue
	alive      atomic.Int64 // members that are alive
	ready      chan struct{}
	// changes and work have room for one: something is to be told; this node has something to say.
	changes, work chan struct{}
	// mu is taken while the library holds its own locks, so that nothing calls the library under mu,
	// but for queue, which calls nobody.
	mu struct {
		sync.Mutex
		meta    Meta
		encoded []byte // meta as it is gossiped
		table   table
		changed chan struct{} // closed and replaced at a change
		facts   facts
		address string // where this node gossips
		dirty   bool   // meta is to be gossiped
		stale   bool   // the file of known members is out of date
	}
	known known // used by the goroutine that rejoins
	ran   atomic.Bool
	twin  bool // logged
}

// New makes a Membership of a valid configuration, and reads the keyring and the known members.
func New(config Config) (*Membership, error) {
	config = config.withDefaults()
	if err := config.Validate(); err != nil {
		return nil, err
	}
	// Two processes never have the same, not even copies that are started at once.
	generation := uint64(time.Now().UnixNano())&^0xffff | rand.Uint64N(1<<16)
	m := &Membership{
		config: config, generation: generation, name: fmt.Sprintf("%s-%x", nodeName(config.NodeID), generation),
		ready: make(chan struct{}), changes: make(chan struct{}, 1), work: make(chan struct{}, 1),
	}
	m.queue = &memberlist.TransmitLimitedQueue{NumNodes: func() int { return int(m.alive.Load()) }, RetransmitMult: 4}
	m.mu.table, m.mu.changed, m.mu.facts = table{}, make(chan struct{}), newFacts()
	m.mu.meta = config.Meta
	var err error
	if m.mu.encoded, err = encodeMeta(config.Meta, config.NodeID, generation); err != nil {
		return nil, err
	}
	if config.KeyringFile != "" {
		if m.keyring, err = loadKeyring(config.KeyringFile); err != nil {
			return nil, err
		}
	}
	if m.known, err = loadKnown(config.KnownFile); err != nil {
		return nil, err
	}
	return m, nil
}

// nodeName is a node id as it is written everywhere.
func nodeName(id uint64) string { return fmt.Sprintf("%016x", id) }

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Ready is closed once Run gossips.
func (m *Membership) Ready() <-chan struct{} { return m.ready }

// Addr is where other nodes reach this one's gossip, host:port; empty before Ready.
func (m *Membership) Addr() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.address
}

// ClusterID is that of Meta, or of the cluster that a node without one has found; empty before.
func (m *Membership) ClusterID() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.meta.ClusterID
}

// Members are the nodes that are known, this one too, by id.
func (m *Membership) Members() []Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.table.members()
}

// Changed returns a channel that is closed when Members has changed since. Changes are gathered
// for Timing.Coalesce.
func (m *Membership) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.changed
}

// SetMeta changes what the node says of itself. change must not keep its argument. After an error
// nothing has changed.
func (m *Membership) SetMeta(change func(meta *Meta)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	meta := m.mu.meta
	change(&meta)
	return m.setMetaLocked(meta)
}

func (m *Membership) setMetaLocked(meta Meta) error {
	encoded, err := encodeMeta(meta, m.config.NodeID, m.generation)
	if err != nil {
		return err
	}
	if meta != m.mu.meta {
		m.mu.meta, m.mu.encoded, m.mu.dirty = meta, encoded, true
		signal(m.work)
	}
	return nil
}

// Run gossips until ctx ends, then tells the others that this node leaves. It runs once.
func (m *Membership) Run(ctx context.Context) error {
	if !m.ran.CompareAndSwap(false, true) {
		return errors.New("membership: run: it was run before; make a new one")
	}
	settings, err := m.settings(ctx)
	if err != nil {
		return err
	}
	list, err := memberlist.Create(settings)
	if err != nil {
		hint := ""
		if m.config.Advertise == "" {
			hint = " (if others reach this node by another address, set Advertise)"
		}
		return fmt.Errorf("membership: gossip on %s%s: %w", m.config.Bind, hint, err)
	}
	own := list.LocalNode()
	m.mu.Lock()
	m.mu.address = own.Address()
	m.mu.Unlock()
	if m.keyring == nil && !own.Addr.IsLoopback() && m.config.Network == nil {
		m.config.Logger.Warn("whoever can reach the gossip port can claim to be a node: keep others away from it, or set a keyring", telemetry.KeyAddress, own.Address())
	}
	close(m.ready)
	running, stop := context.WithCancel(ctx)
	defer stop()
	var goroutines sync.WaitGroup
	goroutines.Go(func() { m.tell(running) })
	goroutines.Go(func() { m.rejoin(running, list) })
	goroutines.Go(func() { m.attend(running, list) })
	<-ctx.Done()
	goroutines.Wait()
	if err := m.share(leavingKey, binary.BigEndian.AppendUint64(nil, m.generation)); err != nil {
		m.config.Logger.Info("others may take this node for dead instead of left", telemetry.KeyError, err)
	}
	if err := list.Leave(m.config.Timing.Leave); err != nil {
		m.config.Logger.Info("others may take this node for dead instead of left", telemetry.KeyError, err)
	}
	m.saveKnown()
	if err := list.Shutdown(); err != nil {
		return fmt.Errorf("membership: stop gossip: %w", err)
	}
	return nil
}

// settings are the library's.
func (m *Membership) settings(ctx context.Context) (*memberlist.Config, error) {
	settings := memberlist.DefaultLANConfig()
	timing := m.config.Timing
	settings.Name = m.name
	settings.ProbeInterval, settings.ProbeTimeout = timing.Probe, timing.ProbeTimeout
	settings.GossipInterval, settings.PushPullInterval, settings.TCPTimeout = timing.Gossip, timing.Exchange, timing.Timeout
	settings.SuspicionMult = 3
	settings.Logger = libraryLogger(m.config.Logger)
	if m.keyring != nil {
		settings.Keyring = m.keyring.ring
	}
	d := delegate{m}
	settings.Delegate, settings.Events, settings.Alive, settings.Merge = d, d, d, d
	bind, err := m.resolve(ctx, m.config.Bind)
	if err != nil {
		return nil, err
	}
	settings.BindAddr, settings.BindPort = bind.Addr().String(), int(bind.Port())
	settings.AdvertisePort = settings.BindPort
	if m.config.Advertise != "" {
		advertise, err := m.resolve(ctx, m.config.Advertise)
		if err != nil {
			return nil, err
		}
		settings.AdvertiseAddr, settings.AdvertisePort = advertise.Addr().String(), int(advertise.Port())
	}
	if m.config.Network != nil {
		if settings.Transport, err = m.config.Network.open(bind); err != nil {
			return nil, fmt.Errorf("membership: gossip on %s: %w", m.config.Bind, err)
		}
	}
	return settings, nil
}

// resolve finds one address for an own host:port. No host is all addresses.
func (m *Membership) resolve(ctx context.Context, address string) (netip.AddrPort, error) {
	host, port, err := hostPort(address)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("membership: %q: %w", address, err)
	}
	if host == "" {
		return netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(port)), nil
	}
	addresses, err := m.lookUp(ctx, host)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("membership: resolve %s of this node's own address %s: %w", host, address, err)
	}
	return netip.AddrPortFrom(addresses[0], uint16(port)), nil
}

// lookUp finds at least one address, or fails.
func (m *Membership) lookUp(ctx context.Context, host string) ([]netip.Addr, error) {
	if address, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{address.Unmap()}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, m.config.Timing.Timeout)
	defer cancel()
	found, err := m.config.LookUp(ctx, host)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, &net.DNSError{Err: "it has no address", Name: host, IsNotFound: true}
	}
	for i := range found {
		found[i] = found[i].Unmap()
	}
	return found, nil
}

// tell tells changes.
func (m *Membership) tell(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.changes:
		}
		timer := time.NewTimer(m.config.Timing.Coalesce)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		m.mu.Lock()
		close(m.mu.changed)
		m.mu.changed = make(chan struct{})
		type news struct {
			from  uint64
			key   string
			value []byte
		}
		var all []news
		for key := range m.mu.facts.news {
			if fact := m.mu.facts.kept[key]; fact != nil {
				all = append(all, news{key.origin, key.key, fact.Value})
			}
		}
		clear(m.mu.facts.news)
		m.mu.Unlock()
		for _, one := range all {
			if m.config.OnShared != nil {
				m.config.OnShared(one.from, one.key, one.value)
			}
		}
	}
}

// twinAfter is how long a process with this node's id may seem alive before it is no mistake of
// the failure detector.
const twinAfter = 30 * time.Second

// attend gossips what this node says of itself and looks after files.
func (m *Membership) attend(ctx context.Context, list *memberlist.Memberlist) {
	ticker := time.NewTicker(m.config.Timing.Files)
	defer ticker.Stop()
	for ticks := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-m.work:
			m.mu.Lock()
			dirty := m.mu.dirty
			m.mu.dirty = false
			m.mu.Unlock()
			if dirty {
				// It returns when the news has left, which does not concern us.
				_ = list.UpdateNode(m.config.Timing.Gossip)
			}
			m.sendLarge(list)
		case <-ticker.C:
			if m.keyring != nil {
				m.reloadKeyring()
			}
			if ticks++; ticks%10 == 0 {
				m.forget()
				m.saveKnown()
			}
		}
	}
}

func (m *Membership) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if m.mu.table.forget(now.Add(-m.config.Timing.Forget)) {
		m.mu.stale = true
		signal(m.changes)
	}
	m.forgetFactsLocked(now)
	for name, i := range m.mu.table {
		if i.NodeID == m.config.NodeID && name != m.name && i.State == Alive && now.Sub(i.Since) > twinAfter && !m.twin {
			m.twin = true
			m.config.Logger.Error("another process has this node's id: was its data directory copied? Stop one of them", telemetry.KeyNode, nodeName(i.NodeID), telemetry.KeyAddress, i.Gossip)
		}
	}
}
