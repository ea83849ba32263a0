package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/perdure/perdure/cluster/balance"
	"github.com/perdure/perdure/cluster/balance/remote"
	"github.com/perdure/perdure/cluster/catalog"
	"github.com/perdure/perdure/cluster/hosting"
	"github.com/perdure/perdure/cluster/membership"
	"github.com/perdure/perdure/cluster/operator"
	"github.com/perdure/perdure/cluster/placement"
	"github.com/perdure/perdure/cluster/recall"
	"github.com/perdure/perdure/cluster/registry"
	"github.com/perdure/perdure/cluster/replica"
	"github.com/perdure/perdure/cluster/transport"
	"github.com/perdure/perdure/internal/invoker/gate"
	invokerremote "github.com/perdure/perdure/internal/invoker/remote"
	"github.com/perdure/perdure/internal/peer"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/telemetry"
)

// What nodes send each other.
const (
	frameReplica uint8 = 1 // replica.Host.Receive
	framePeer    uint8 = 2 // peer.Server.Frame

	methodRegistry = "registry" // registry.Registry.Serve
	methodOperator = "operator" // operator.Operator.Serve
	methodHosting  = "hosting"  // hosting.Directory.Serve
	methodInvoker  = "invoker"  // remote.Invoker.Serve, of internal/invoker
	methodRecall   = "recall"   // nothing: the hello is what it is about
	methodCensus   = "census"   // catalog.EncodeCensus
	methodSnapshot = "snapshot" // replica.Host.ReceiveSnapshot; the header begins with the group
)

// network is a node's way to the others: who they are, where, and what is sent between them. It
// is made in two steps, for who the node is may have to be learned from others: newNetwork and
// connect.
//
// It owns the goroutines of gossip, of the transport and of group 0, and one that follows what
// gossip and group 0 say. close ends them.
type network struct {
	config  Peers
	logger  *slog.Logger
	nodeID  uint64
	gossip  *membership.Membership
	carrier *transport.Transport
	hosting *hosting.Directory
	claims  claims
	// catalog says when this build may run; what nodes host, and gate before its handlers, wait for that.
	catalog *catalog.Catalog
	gate    *gate.Gate

	// Of connect; what arrives before is refused.
	registry *registry.Registry
	client   *registry.Client
	balancer *balance.Balancer
	operator *operator.Operator
	ready    atomic.Pointer[receivers]

	stopGossip, stop context.CancelFunc
	gossiping        sync.WaitGroup
	running          sync.WaitGroup
	// led has room for one: which partitions this node leads has changed.
	led chan struct{}
	mu  struct {
		sync.Mutex
		leaders map[uint64][]byte // what others have said last that they lead
		hosts   []byte            // what this node hosts; nil before it is known
		open    bool              // and others may hear it
	}
	// part ends when this node can't take part in its cluster any more, with the reason as its cause.
	part context.Context
	quit context.CancelCauseFunc
}

// receivers take what arrives.
type receivers struct {
	host   *replica.Host
	router *peer.Router
	server *peer.Server
	groups remote.Server
	// attempts are those that this node runs for others, and others for it.
	attempts *invokerremote.Invoker
	// leads are the partitions that this node leads, and the terms it does so in.
	leads func() map[uint32]uint64
	// census is what is kept in those.
	census func(ctx context.Context) ([]byte, error)
}

// newNetwork begins to gossip and to listen; it is nil with an error. The cluster's id is "" for a node that joins one.
func newNetwork(ctx context.Context, config Config, node uint64, clusterID string, partitions uint32, dir string) (*network, error) {
	n := &network{config: *config.Peers, logger: config.Logger, nodeID: node, led: make(chan struct{}, 1), claims: newClaims(dir)}
	if err := recall.Refused(n.claims.refused); err != nil {
		return nil, err
	}
	n.part, n.quit = context.WithCancelCause(context.WithoutCancel(ctx))
	n.mu.leaders = map[uint64][]byte{}
	n.hosting = hosting.New(hosting.Config{
		Node: node, Logger: n.logger,
		Share: n.shareHosts,
		Fetch: func(ctx context.Context, from uint64) ([]byte, error) {
			return n.carrier.Call(ctx, from, methodHosting, nil)
		},
	})
	carrying := transport.Config{
		NodeID: node, ClusterID: clusterID, Listen: n.config.TransportListen, Handler: n, Admit: n.admit,
		OpenMethods: []string{methodRegistry}, OnRefused: n.refused, Build: Version(), Logger: n.logger,
		FeatureLevel: registry.FeatureLevel, WrittenLevel: n.writtenLevel, OnTooOld: n.tooOld,
		Log: n.claims.own, CheckLog: n.claims.Check,
		OnPeer: func(node uint64, _ uint32, _ string) { n.ready.Load().router.Connected(node) }, // connect has run
	}
	if tls := n.config.TLS; tls != nil {
		carrying.TLS = &transport.TLS{CertFile: tls.CertFile, KeyFile: tls.KeyFile, CAFile: tls.CAFile}
	}
	var err error
	if n.carrier, err = transport.New(carrying); err != nil {
		return nil, err
	}
	if err := n.carrier.Listen(ctx); err != nil {
		return nil, err
	}
	if err := n.startGossip(ctx, clusterID, partitions, dir); err != nil {
		return nil, err
	}
	return n, nil
}

func (n *network) startGossip(ctx context.Context, clusterID string, partitions uint32, dir string) error {
	var err error
	n.gossip, err = membership.New(membership.Config{
		NodeID: n.nodeID, Bind: n.config.Listen, Advertise: n.config.Advertise, Seeds: n.config.Join,
		KeyringFile: n.config.KeyringFile, KnownFile: filepath.Join(dir, "members"), OnShared: n.heard, Logger: n.logger,
		Meta: membership.Meta{
			ClusterID: clusterID, Joining: clusterID == "", Partitions: partitions, Version: Version(), Zone: n.config.Zone, Starting: true,
			FeatureLevel: registry.FeatureLevel,
		},
	})
	if err != nil {
		return errors.Join(err, n.carrier.Close())
	}
	gossiping, stop := context.WithCancel(context.WithoutCancel(ctx))
	n.stopGossip = stop
	n.gossiping.Go(func() { n.fail(n.gossip.Run(gossiping)) })
	select {
	case <-n.gossip.Ready():
	case <-n.part.Done():
		return errors.Join(context.Cause(n.part), n.close())
	case <-ctx.Done():
		return errors.Join(context.Cause(ctx), n.close())
	}
	// Where gossip listens is known only now, and with it where this machine is reached.
	address := n.config.TransportAdvertise
	if address == "" {
		if address, err = reachable(n.carrier.Addr().String(), n.gossip.Addr()); err != nil {
			return errors.Join(err, n.close())
		}
	}
	err = n.gossip.SetMeta(func(meta *membership.Meta) { meta.Transport = address })
	if err != nil {
		return errors.Join(err, n.close())
	}
	return nil
}

// find waits until a cluster is found, and returns it, or nil if the node is to found one.
func (n *network) find(ctx context.Context) (*existing, error) {
	var late <-chan time.Time
	if n.config.FoundAfter > 0 {
		host, err := os.Hostname()
		if n.config.FoundOn == "" || err == nil && host == n.config.FoundOn {
			timer := time.NewTimer(n.config.FoundAfter)
			defer timer.Stop()
			late = timer.C
		}
	}
	told := time.NewTicker(10 * time.Second)
	defer told.Stop()
	for {
		changed := n.gossip.Changed()
		for _, member := range n.gossip.Members() {
			if !member.Self && member.State == membership.Alive && member.ClusterID != "" && member.Partitions != 0 {
				n.carrier.SetClusterID(member.ClusterID)
				return &existing{clusterID: member.ClusterID, partitions: member.Partitions}, nil
			}
		}
		select {
		case <-changed:
		case <-told.C:
			n.logger.Warn("no member of a cluster answers; if there is no cluster yet, start one node without --join, which founds it", telemetry.KeyAddress, n.config.Join)
		case <-late:
			n.logger.Warn("no member of a cluster answered: this node founds one", telemetry.KeyAddress, n.config.Join, telemetry.KeyDuration, n.config.FoundAfter)
			return nil, nil
		case <-n.part.Done():
			return nil, context.Cause(n.part)
		case <-ctx.Done():
			return nil, fmt.Errorf("no member of a cluster answered at %v: %w; if there is no cluster yet, start one node without --join, which founds it", n.config.Join, context.Cause(ctx))
		}
	}
}

// join says to which cluster the node belongs, and makes group 0's part of it.
func (n *network) join(at identity, ingress string) error {
	n.carrier.SetClusterID(at.ClusterID)
	var self registry.Node
	err := n.gossip.SetMeta(func(meta *membership.Meta) {
		meta.ClusterID, meta.Partitions, meta.Ingress, meta.Joining = at.ClusterID, at.Partitions, ingress, false
		self = registry.Node{ID: n.nodeID, Transport: meta.Transport, Ingress: ingress, Zone: meta.Zone, Version: meta.Version}
	})
	if err != nil {
		return err
	}
	n.registry, err = registry.New(registry.Config{
		Self: self, ClusterID: at.ClusterID, Partitions: at.Partitions, Logger: n.logger,
	})
	if err != nil {
		return err
	}
	n.client = &registry.Client{Registry: n.registry, Call: func(ctx context.Context, to uint64, request []byte) ([]byte, error) {
		return n.carrier.Call(ctx, to, methodRegistry, request)
	}}
	steps := remote.Call(n.call)
	n.balancer, err = balance.New(balance.Config{
		Registry: n.registry, Statuses: steps, Steps: steps, Logger: n.logger, Leaving: n.leaving,
		Confirm: func(ctx context.Context) error { return n.ready.Load().groups.Groups[0].ReadBarrier(ctx) },
	})
	if err != nil {
		return err
	}
	n.operator = operator.New(operator.Config{
		Registry: n.registry, Client: n.client, Balancer: n.balancer, Steps: steps, Hosting: n.hosting.Of,
		DeploymentOf: n.hosting.Deployment, Runners: n.runners,
		SetDeployment: func(ctx context.Context, id string, to recordv1.DeploymentStatus) error {
			return n.catalog.SetStatus(ctx, id, to)
		},
		Call: func(ctx context.Context, to uint64, request []byte) ([]byte, error) {
			return n.call(ctx, to, methodOperator, request)
		},
	})
	return nil
}

// call asks a node, which may be this one.
func (n *network) call(ctx context.Context, to uint64, method string, request []byte) ([]byte, error) {
	if to == n.nodeID {
		return n.Call(ctx, to, method, request)
	}
	return n.carrier.Call(ctx, to, method, request)
}

// connect lets in what arrives for the node, and begins to follow the others.
func (n *network) connect(ctx context.Context, to receivers) {
	n.ready.Store(&to)
	if err := n.gossip.SetMeta(func(meta *membership.Meta) { meta.Starting = false }); err != nil {
		n.logger.Warn("others are not told that this node has started", telemetry.KeyError, err)
	}
	n.believeAgain(&to)
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	n.stop = stop
	n.running.Go(func() { n.fail(n.carrier.Run(running)) })
	n.running.Go(func() { n.fail(n.registry.Run(running)) })
	n.running.Go(func() { n.fail(n.balancer.Run(running)) })
	n.running.Go(func() { n.fail(n.hosting.Run(running)) })
	n.running.Go(func() { n.follow(running) })
}

// leave tells others that this node is about to stop.
func (n *network) leave() {
	if err := n.gossip.SetMeta(func(meta *membership.Meta) { meta.Draining = true }); err != nil {
		n.logger.Warn("others are not told that this node stops", telemetry.KeyError, err)
	}
}

// leaving reports whether a node has said that it is about to stop, and still runs.
func (n *network) leaving(node uint64) bool {
	return slices.ContainsFunc(n.gossip.Members(), func(m membership.Member) bool {
		return m.NodeID == node && m.State == membership.Alive && m.Draining
	})
}

// close ends everything, gossip last: it tells the others that this node leaves.
func (n *network) close() error {
	if n.stop != nil {
		n.stop()
		n.running.Wait()
	}
	n.stopGossip()
	n.gossiping.Wait()
	return n.carrier.Close()
}

func (n *network) fail(err error) {
	if err == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.part.Err() == nil {
		n.logger.Error("the node's connection to others failed", telemetry.KeyError, err)
		n.quit(fmt.Errorf("the node can't take part in its cluster: %w", err))
	}
}

// whileIn ends with ctx, and with another context, whose cause it then has.
func whileIn(ctx, other context.Context) (context.Context, context.CancelFunc) {
	within, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(other, func() { cancel(context.Cause(other)) })
	return within, func() {
		stop()
		cancel(nil)
	}
}

// follow does what has to be done when gossip or group 0 says something new, until ctx ends.
func (n *network) follow(ctx context.Context) {
	tick := time.NewTicker(believeAgainAfter)
	defer tick.Stop()
	for {
		moved := n.gossip.Changed()
		view, changed := n.registry.Changed()
		if err := n.registry.Health(); err != nil {
			n.fail(fmt.Errorf("the cluster's own group is of no use to this node: %w", err))
			return
		}
		if err := n.claims.noteRows(view, n.nodeID); err != nil {
			n.stale(err)
			return
		}
		members := n.gossip.Members()
		n.hosting.SetMembers(alive(members, view))
		addresses := map[uint64]string{}
		for _, node := range view.Nodes {
			if node.State != placement.Removed {
				addresses[node.ID] = node.Transport
			}
		}
		for _, member := range members {
			known, ok := view.Node(member.NodeID)
			if member.State != membership.Alive && ok || ok && known.State == placement.Removed {
				continue // where it was admitted with, if at all
			}
			if member.Transport != "" { // it is about to say
				addresses[member.NodeID] = member.Transport
			}
		}
		delete(addresses, n.nodeID)
		n.carrier.SetAddresses(addresses)
		again := n.welcome(ctx, view, members)
		select {
		case <-moved:
		case <-changed:
		case <-again:
		case <-n.led:
			n.boast(n.ready.Load().leads())
		case <-tick.C:
			n.believeAgain(n.ready.Load())
		case <-ctx.Done():
			return
		}
	}
}

// alive are those that can be asked to run something.
func alive(members []membership.Member, view *registry.View) []hosting.Member {
	var found []hosting.Member
	for _, member := range members {
		known, ok := view.Node(member.NodeID)
		if member.State != membership.Alive || ok && known.State == placement.Removed {
			continue
		}
		found = append(found, hosting.Member{Node: member.NodeID, Leaving: member.Draining || ok && known.State == placement.Draining})
	}
	return found
}

// welcome admits those whom gossip knows and group 0 does not, or not so, if this node leads it, and notes
// what their logs have.
// What it returns says when to try again; nil: no need.
func (n *network) welcome(ctx context.Context, view *registry.View, members []membership.Member) <-chan time.Time {
	if view.Epoch == 0 {
		return nil
	}
	var again <-chan time.Time
	noting := time.Since(n.claims.notedAt) > noteEvery
	if noting {
		n.claims.notedAt = time.Now()
	}
	for _, member := range members {
		err := n.note(ctx, view, member.NodeID, member.State != membership.Alive, noting)
		if errors.Is(err, registry.ErrNotLeader) || errors.Is(err, registry.ErrUnknownOutcome) {
			return time.After(time.Second) // the next leader does it, or this one again
		}
		if err != nil {
			n.logger.Warn("what the log of a node has could not be written down", telemetry.KeyTo, fmt.Sprintf("%016x", member.NodeID), telemetry.KeyError, err)
			again = time.After(time.Second)
		}
		if member.Self || member.State != membership.Alive || member.ClusterID != view.Settings.ClusterID || member.Joining || member.Transport == "" {
			continue
		}
		wanted := registry.Node{ID: member.NodeID, Transport: member.Transport, Ingress: member.Ingress, Zone: member.Zone, Version: member.Version, FeatureLevel: max(member.FeatureLevel, 1)}
		known, ok := view.Node(member.NodeID)
		if ok && known.State == placement.Removed || ok && known.Transport == wanted.Transport && known.Ingress == wanted.Ingress && known.Zone == wanted.Zone && known.Version == wanted.Version && known.FeatureLevel == wanted.FeatureLevel {
			continue
		}
		trying, cancel := context.WithTimeout(ctx, 5*time.Second)
		err = n.registry.Admit(trying, wanted)
		cancel()
		if err != nil {
			n.logger.Warn("a node could not be admitted", telemetry.KeyTo, fmt.Sprintf("%016x", member.NodeID), telemetry.KeyError, err)
			again = time.After(time.Second)
			continue
		}
		n.logger.Info("admitted a node", telemetry.KeyTo, fmt.Sprintf("%016x", member.NodeID), telemetry.KeyAddress, member.Transport)
	}
	return again
}

// Frame implements transport.Handler.
func (n *network) Frame(from uint64, kind uint8, frame []byte) {
	to := n.ready.Load()
	if to == nil {
		return
	}
	var err error
	switch kind {
	case frameReplica:
		err = to.host.Receive(from, frame)
	case framePeer:
		err = to.server.Frame(from, frame)
	}
	if err != nil {
		n.logger.Warn("a frame was not understood", telemetry.KeyTo, fmt.Sprintf("%016x", from), telemetry.KeyError, err)
	}
}

// Call implements transport.Handler.
func (n *network) Call(ctx context.Context, from uint64, method string, request []byte) ([]byte, error) {
	switch method {
	case methodHosting:
		return n.hosting.Serve()
	case methodRecall:
		return nil, nil
	}
	to := n.ready.Load()
	if to == nil {
		return nil, errors.New("the node is starting")
	}
	switch method {
	case methodInvoker:
		return to.attempts.Serve(ctx, from, request)
	case peer.Method:
		return to.server.Call(ctx, from, request)
	case methodCensus:
		return to.census(ctx)
	case methodRegistry:
		return n.registry.Serve(ctx, request)
	case methodOperator:
		return n.operator.Serve(ctx, request)
	case remote.MethodStatuses, remote.MethodStep:
		return to.groups.Answer(ctx, method, request)
	}
	return nil, fmt.Errorf("this node (%s) knows no %q", Version(), method)
}

// Stream implements transport.Handler.
func (n *network) Stream(ctx context.Context, from uint64, method string, header []byte, next func() ([]byte, error)) ([]byte, error) {
	to := n.ready.Load()
	if to == nil {
		return nil, errors.New("the node is starting")
	}
	if method != methodSnapshot || len(header) < 4 {
		return nil, fmt.Errorf("this node (%s) knows no stream %q", Version(), method)
	}
	return to.host.ReceiveSnapshot(ctx, from, binary.BigEndian.Uint32(header), header[4:], next)
}

// replicas is the way of a replica.Host to others.
type replicas struct{ *network }

// Send implements replica.Peers.
func (r replicas) Send(to uint64, frame []byte) { r.carrier.Send(to, frameReplica, frame) }

// SendSnapshot implements replica.Peers.
func (r replicas) SendSnapshot(to uint64, group uint32, header []byte, source replica.SnapshotSource, done func([]byte, error)) {
	go func() { // ends with the transport at the latest, which close waits for
		defer source.Close()
		answer, err := r.carrier.Stream(context.Background(), to, methodSnapshot, append(binary.BigEndian.AppendUint32(nil, group), header...), source.Next)
		if errors.Is(err, transport.ErrUnreachable) || errors.Is(err, transport.ErrUnknown) {
			err = fmt.Errorf("%w: %w", replica.ErrLost, err)
		}
		done(answer, err)
	}()
}

// requests is the way of a peer.Router to others.
type requests struct{ *network }

// Call implements peer.Network.
func (r requests) Call(ctx context.Context, to uint64, method string, request []byte) ([]byte, error) {
	answer, err := r.carrier.Call(ctx, to, method, request)
	if errors.Is(err, transport.ErrUnreachable) {
		err = fmt.Errorf("%w: %w", peer.ErrUnreachable, err)
	}
	return answer, err
}

// Send implements peer.Network.
func (r requests) Send(to uint64, frame []byte) { r.carrier.Send(to, framePeer, frame) }

// factHosting is what hosting.Config.Share was given.
const factHosting = "hosting"

// factLeaders is what a node says of the partitions it leads: pairs of partition and term, as varints.
const factLeaders = "leaders"

// boast tells everybody which partitions this node leads.
func (n *network) boast(led map[uint32]uint64) {
	var value []byte
	for id, term := range led {
		value = binary.AppendUvarint(binary.AppendUvarint(value, uint64(id)), term)
	}
	if err := n.gossip.Share(factLeaders, value); err != nil {
		n.logger.Warn("who leads is not gossiped", telemetry.KeyError, err)
	}
}

// ledChanged says that this node leads more or fewer partitions than before.
func (n *network) ledChanged() {
	select {
	case n.led <- struct{}{}:
	default:
	}
}

// heard takes what another node says.
func (n *network) heard(from uint64, key string, value []byte) {
	switch key {
	case factLeaders:
	case factHosting:
		n.hosting.Heard(from, value)
		return
	default:
		return
	}
	n.mu.Lock()
	n.mu.leaders[from] = value
	n.mu.Unlock()
	if to := n.ready.Load(); to != nil { // else connect will look
		n.believe(to, from, value)
	}
}

// believeAgainAfter is how often what others said last is believed again. A request can be told that a
// node does not lead any more after that node said that it does again, and nobody would repeat that.
const believeAgainAfter = time.Second

func (n *network) believeAgain(to *receivers) {
	n.mu.Lock()
	said := maps.Clone(n.mu.leaders)
	n.mu.Unlock()
	for from, value := range said {
		n.believe(to, from, value)
	}
}

// believe takes a node's word for which partitions it leads.
func (n *network) believe(to *receivers, from uint64, value []byte) {
	for len(value) > 0 {
		id, a := binary.Uvarint(value)
		if a <= 0 {
			return
		}
		term, b := binary.Uvarint(value[a:])
		if b <= 0 {
			return
		}
		value = value[a+b:]
		if id <= math.MaxUint32 {
			to.router.Learned(uint32(id), from, term)
		}
	}
}
