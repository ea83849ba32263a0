// Package hosting knows which nodes of a cluster have which handlers, and describes the services that
// only others have, so that any node takes calls of them.
//
// # Model
//
// A node gossips one fact: the hash of what its build is (deployment, services, descriptors) and the
// deployment's id. Whoever hears a hash that it doesn't know fetches the build from that node, once:
// nodes of one build cost one fetch, and a restart with the same build none. What is fetched is bounded
// and checked as generated code is.
//
//	Heard, SetMembers ──► builds by hash (fetched by Run) ──► view, replaced as a whole
//
// Here, Hosts and Elsewhere read the view, which never blocks.
//
// # What it does not promise
//
// A view is what this node has heard, which may be late in both directions: a node that is asked to run
// what it does not have says so, and is passed over.
package hosting

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/deployment"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/telemetry"
)

const (
	// MaxBuildBytes bounds what a build is described with. Larger ones are neither told nor taken.
	MaxBuildBytes = 16 << 20
	fetchTimeout  = 10 * time.Second
	// firstPause and longestPause are between tries to fetch a build.
	firstPause   = 200 * time.Millisecond
	longestPause = 30 * time.Second
	tellAfter    = 8 * firstPause

	factFormat = 1
)

// Config of a Directory. All but Logger must be set.
type Config struct {
	// Node is this one.
	Node uint64
	// Share has everybody hear a value, in place of the one before.
	Share func(value []byte) error
	// Fetch asks another node for what its Directory's Serve returns.
	Fetch func(ctx context.Context, from uint64) ([]byte, error)
	// Logger defaults to slog.Default().
	Logger *slog.Logger
}

// Member is a live node.
type Member struct {
	Node uint64
	// Leaving: it is about to stop or is drained, and is asked to run something only if no other node can.
	Leaving bool
}

// sum is the hash of an encoded build.
type sum [32]byte

// fact is what a node says of itself.
type fact struct {
	sum        sum
	deployment string
}

// Directory is what one node knows. Its methods are safe for concurrent use.
type Directory struct {
	config Config
	view   atomic.Pointer[view]
	wake   chan struct{} // has room for one: there may be something to fetch

	mu struct {
		sync.Mutex
		own     *build
		encoded []byte // own's
		facts   map[uint64]fact
		members []Member
		builds  map[sum]*build // of facts
		tries   map[uint64]*try
		// known are descriptions of services that no live node hosts any more, too.
		known   map[string]*actor.ServiceDesc
		changed chan struct{} // closed and replaced with view
	}
}

// try is how fetching from a node went.
type try struct {
	of    sum
	at    time.Time // of the next one
	pause time.Duration
}

// New makes a Directory that knows of nothing.
func New(config Config) *Directory {
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	d := &Directory{config: config, wake: make(chan struct{}, 1)}
	d.mu.facts, d.mu.builds, d.mu.tries = map[uint64]fact{}, map[sum]*build{}, map[uint64]*try{}
	d.mu.known, d.mu.changed = map[string]*actor.ServiceDesc{}, make(chan struct{})
	d.view.Store(&view{})
	return d
}

// Announce tells everybody what this node is. It is called once, before the node runs anything.
func (d *Directory) Announce(own *deployment.Build, services []*actor.ServiceDesc) error {
	encoded, err := own.Encode()
	if err != nil {
		return fmt.Errorf("hosting: %w", err)
	}
	if len(encoded) > MaxBuildBytes {
		return fmt.Errorf("hosting: the descriptors of this node's services have %d bytes; other nodes take %d", len(encoded), MaxBuildBytes)
	}
	d.mu.Lock()
	d.mu.own, d.mu.encoded = ownBuild(own.ID(), services), encoded
	d.refreshLocked()
	d.mu.Unlock()
	hash := deployment.Sum(encoded)
	return d.config.Share(append(append([]byte{factFormat}, hash[:]...), own.ID()...))
}

// Serve answers Fetch of another node.
func (d *Directory) Serve() ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.own == nil {
		return nil, errors.New("the node is starting")
	}
	return d.mu.encoded, nil
}

// Heard takes what another node shares. What can't be read says nothing.
func (d *Directory) Heard(from uint64, value []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if from == d.config.Node {
		return
	}
	if len(value) < 1+len(sum{}) || value[0] != factFormat {
		delete(d.mu.facts, from)
	} else {
		d.mu.facts[from] = fact{sum(value[1 : 1+len(sum{})]), string(value[1+len(sum{}):])}
	}
	d.refreshLocked()
	d.nudge()
}

// SetMembers says which nodes are alive.
func (d *Directory) SetMembers(members []Member) {
	d.mu.Lock()
	defer d.mu.Unlock()
	members = slices.Clone(members)
	slices.SortFunc(members, func(a, b Member) int { return cmp.Compare(a.Node, b.Node) })
	if slices.Equal(members, d.mu.members) {
		return
	}
	d.mu.members = members
	d.refreshLocked()
	d.nudge()
}

func (d *Directory) nudge() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Changed returns a channel that is closed when anything is known anew.
func (d *Directory) Changed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mu.changed
}

// Unknown is nil if it is known what all live nodes host, and nodes beside them, and else says of whom
// it is not.
func (d *Directory) Unknown(nodes []uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.unknownLocked(slices.Clone(nodes))
}

func (d *Directory) unknownLocked(nodes []uint64) error {
	var missing []string
	for _, member := range d.mu.members {
		if !slices.Contains(nodes, member.Node) {
			nodes = append(nodes, member.Node)
		}
	}
	for _, node := range nodes {
		if said, ok := d.mu.facts[node]; node != d.config.Node && (!ok || d.mu.builds[said.sum] == nil) {
			missing = append(missing, fmt.Sprintf("%016x", node))
		}
	}
	if missing == nil {
		return nil
	}
	return fmt.Errorf("what node %s hosts is not known yet", strings.Join(missing, " or "))
}

// Settled waits until it is known what nodes host, and all live ones beside them, or ctx ends.
func (d *Directory) Settled(ctx context.Context, nodes []uint64) error {
	for {
		d.mu.Lock()
		changed, unknown := d.mu.changed, d.unknownLocked(slices.Clone(nodes))
		d.mu.Unlock()
		if unknown == nil {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", unknown, context.Cause(ctx))
		}
	}
}

// Run fetches what is not known, until ctx ends. It returns nil.
func (d *Directory) Run(ctx context.Context) error {
	for ctx.Err() == nil { // there may always be something to fetch: what ctx has cut off, for one
		next, at := d.wanted(time.Now())
		if next != 0 {
			d.fetch(ctx, next)
			continue
		}
		if at.IsZero() {
			at = time.Now().Add(time.Hour)
		}
		timer := time.NewTimer(time.Until(at))
		select {
		case <-d.wake:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	return nil
}

// wanted is a node to fetch from now, or when there may be one.
func (d *Directory) wanted(now time.Time) (node uint64, at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, member := range d.mu.members {
		said, ok := d.mu.facts[member.Node]
		if !ok || member.Node == d.config.Node || d.mu.builds[said.sum] != nil {
			continue
		}
		tried := d.mu.tries[member.Node]
		if tried == nil || tried.of != said.sum || !now.Before(tried.at) {
			return member.Node, time.Time{}
		}
		if at.IsZero() || tried.at.Before(at) {
			at = tried.at
		}
	}
	return 0, at
}

func (d *Directory) fetch(ctx context.Context, from uint64) {
	d.mu.Lock()
	said := d.mu.facts[from]
	d.mu.Unlock()
	got, err := d.fetched(ctx, from, said)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		if ctx.Err() != nil {
			return
		}
		tried := d.mu.tries[from]
		if tried == nil || tried.of != said.sum {
			tried = &try{of: said.sum, pause: firstPause}
			d.mu.tries[from] = tried
		}
		if tried.pause == tellAfter { // a node that has just come may have to be admitted first
			d.config.Logger.Warn("what another node hosts can't be fetched; it is tried again", telemetry.KeyTo, fmt.Sprintf("%016x", from), telemetry.KeyError, err)
		}
		tried.at = time.Now().Add(tried.pause)
		tried.pause = min(2*tried.pause, longestPause)
		return
	}
	delete(d.mu.tries, from)
	d.mu.builds[said.sum] = got
	d.refreshLocked()
}

func (d *Directory) fetched(ctx context.Context, from uint64, said fact) (*build, error) {
	d.mu.Lock()
	if d.mu.encoded != nil && sum(deployment.Sum(d.mu.encoded)) == said.sum {
		defer d.mu.Unlock()
		return d.mu.own, nil // the other node runs the same
	}
	d.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	encoded, err := d.config.Fetch(ctx, from)
	if err != nil {
		return nil, err
	}
	if len(encoded) > MaxBuildBytes {
		return nil, fmt.Errorf("it has %d bytes, more than %d", len(encoded), MaxBuildBytes)
	}
	if sum(deployment.Sum(encoded)) != said.sum {
		return nil, errors.New("it is not what the node said before: it has been restarted with another build")
	}
	told, err := deployment.Decode(encoded)
	if err != nil {
		return nil, err
	}
	got, problems := foreignBuild(told)
	for _, problem := range problems {
		d.config.Logger.Warn("a service of another node can't be called by way of this one", telemetry.KeyTo, fmt.Sprintf("%016x", from), telemetry.KeyError, problem)
	}
	return got, nil
}

// Here implements remote.Directory.
func (d *Directory) Here(target invocation.Target) bool { return d.view.Load().here(target) }

// Hosts implements remote.Directory.
func (d *Directory) Hosts(target invocation.Target, deployment string) []uint64 {
	return d.view.Load().hosts(target, deployment)
}

// Exactly implements remote.Directory.
func (d *Directory) Exactly(target invocation.Target, deployment string) []uint64 {
	return d.view.Load().exactly(target, deployment)
}

// Runs reports whether a node that is not about to stop is a deployment, this one included.
func (d *Directory) Runs(deployment string) bool { return d.view.Load().runs(deployment) }

// Deployment is the id of the build that runs a service's handlers: this node's, or that of most of the
// others that host it; "" if none is known.
func (d *Directory) Deployment(service string) string { return d.view.Load().deployment(service) }

// Elsewhere describes the services that other nodes host, or have hosted since this one was started, and
// this one does not, by name. Nobody may change it.
func (d *Directory) Elsewhere() []*actor.ServiceDesc { return d.view.Load().elsewhere }

// Of says what a node hosts: its deployment, and the names of its services. Both are empty if that is
// not known.
func (d *Directory) Of(node uint64) (deployment string, services []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if node == d.config.Node && d.mu.own != nil {
		return d.mu.own.deployment, d.mu.own.names
	}
	said, ok := d.mu.facts[node]
	if !ok || d.mu.builds[said.sum] == nil {
		return "", nil
	}
	return said.deployment, d.mu.builds[said.sum].names
}

// refreshLocked makes the view anew.
func (d *Directory) refreshLocked() {
	needed := map[sum]bool{}
	for _, said := range d.mu.facts {
		needed[said.sum] = true
	}
	for hash := range d.mu.builds {
		if !needed[hash] {
			delete(d.mu.builds, hash)
		}
	}
	var hosts []host
	for _, member := range d.mu.members {
		said, ok := d.mu.facts[member.Node]
		if !ok || member.Node == d.config.Node || d.mu.builds[said.sum] == nil {
			continue
		}
		hosts = append(hosts, host{node: member.Node, leaving: member.Leaving, deployment: said.deployment, sum: said.sum, build: d.mu.builds[said.sum]})
	}
	d.view.Store(newView(d.mu.own, hosts, d.mu.known))
	close(d.mu.changed)
	d.mu.changed = make(chan struct{})
}

func (s sum) compare(other sum) int { return bytes.Compare(s[:], other[:]) }
