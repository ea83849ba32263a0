// Package catalog is a node's part in its cluster's catalog of deployments, which group 0 keeps: what the node is
// started with is compared with what the cluster has, registered, and what the cluster knows is copied into the
// node's own file.
//
// # Model
//
//	Admit:  rows of group 0 ──► compare ──► census of the cluster, if something breaks ──► refused
//	                                └──► files, history ──► Register, if nothing has changed since ──► the node runs handlers
//	Run:    rows of group 0 ──► the node's file, whenever they change
//
// What is registered was compared with all that was registered before: the leader of group 0 takes a registration
// only if its catalog is the one that whoever asks has compared with. Of two builds that break each other, started at once,
// one is refused.
//
// A build is compared with the last one that had each of its services, and with all that nodes run. It is not if another
// node runs it, and this one did before or is new: it brings nothing that is not there. So a node that
// crashes amid a rolling restart comes back, and one that slept through it, with a build that nobody has any more, is
// compared like a new one.
//
// # Without a leader
//
// A start never waits for a leader of group 0 if the node has a file to go by, which has what the cluster knew
// when the node last heard of it: else a cluster all of whose nodes start at once would wait for itself. It is compared with
// the cluster as soon as there is a leader, and stops if it does not fit. A node without a file waits: there
// is nothing that it could do anyway.
package catalog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/perdure/perdure/cluster/placement"
	"github.com/perdure/perdure/cluster/registry"
	"github.com/perdure/perdure/internal/deployment"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	"github.com/perdure/perdure/internal/telemetry"
)

const (
	// patience is how long the start of a node that has a file waits for the cluster.
	patience = 5 * time.Second
	// lookAgain is after how long a try that came too early or too late is made again, if no news comes first.
	lookAgain = 200 * time.Millisecond
	// askAgain is the same of what the cluster keeps, which takes all of it to read.
	askAgain  = 2 * time.Second
	tellEvery = 10 * time.Second
)

// Config of a Catalog. All of it must be set but AcceptBreaking and Doubtful.
type Config struct {
	// Node is this one, and Own what it is started with.
	Node uint64
	Own  *deployment.Build
	// Registry is this node's, and Client changes what it keeps.
	Registry *registry.Registry
	Client   *registry.Client
	// File is the node's own.
	File *deployment.Catalog
	// Census finds out what is kept, in the whole cluster.
	Census func(ctx context.Context) (deployment.Census, error)
	// AcceptBreaking starts whatever breaks.
	AcceptBreaking bool
	// Doubtful: it does not fit what the file has, so that the cluster must say whether that does harm.
	Doubtful bool
	Logger   *slog.Logger
}

// Catalog is one node's. Admit and Run are called once, one after the other; SetStatus is safe for concurrent use.
type Catalog struct {
	config Config
	// registered: group 0 has this start.
	registered bool
	// old: the cluster could not keep deployments when the node was started, and nothing is refused once it can.
	old bool
	// doubtful: something breaks, and only the cluster can say whether that does harm.
	doubtful bool
}

// New makes a catalog.
func New(config Config) *Catalog { return &Catalog{config: config, doubtful: config.Doubtful} }

// A try that must be made again, and one that must be because it is not known whether what breaks does harm.
var (
	errEarly  = errors.New("not yet")
	errUnsure = errors.New("it is not known yet what the cluster keeps")
)

// Admit returns once the node may run its handlers, or with the reason why not.
func (c *Catalog) Admit(ctx context.Context) error {
	began, known := time.Now(), len(c.config.File.List()) > 0
	tell := time.NewTicker(tellEvery)
	defer tell.Stop()
	for {
		view, changed := c.config.Registry.Changed()
		if c.old = view.Version > 0 && view.Settings.FeatureLevel < registry.DeploymentsLevel; c.old {
			if c.doubtful && !c.config.AcceptBreaking {
				return fmt.Errorf("deployment %s does not fit what ran on this node before, and whether that does harm can't be told before all nodes of the cluster are of a version that keeps deployments: upgrade them first, or start with --accept-breaking (cluster.WithBreakingChanges)", c.config.Own.ID())
			}
			break // it is registered once all nodes understand that
		}
		trying, cancel := context.WithTimeout(ctx, patience)
		err := c.register(trying, ctx, view)
		cancel()
		if err == nil {
			break
		}
		if !errors.Is(err, errEarly) && !errors.Is(err, errUnsure) {
			return err
		}
		if known && !c.doubtful && c.config.Registry.View().Leader == 0 && time.Since(began) >= patience {
			c.config.Logger.Warn("the node runs its handlers though the cluster's own group has no leader yet to say what they must fit: they fit what the node knew of it last",
				telemetry.KeyDeployment, c.config.Own.ID(), telemetry.KeyError, err)
			return c.started()
		}
		again := time.After(lookAgain)
		if errors.Is(err, errUnsure) {
			changed, again = nil, time.After(askAgain)
		}
		select {
		case <-changed:
		case <-again:
		case <-tell.C:
			c.config.Logger.Warn("the node does not run its handlers yet: its cluster does not say what they must fit", telemetry.KeyError, err)
		case <-ctx.Done():
			return fmt.Errorf("deployment %s could not be compared with those of the cluster: %w: %w", c.config.Own.ID(), context.Cause(ctx), err)
		}
	}
	return c.started()
}

// started notes in the file what the node runs.
func (c *Catalog) started() error {
	if err := c.config.File.Started(c.config.Own, nil, time.Now()); err != nil {
		return err
	}
	c.copyTo(c.config.File, c.config.Registry.View())
	return nil
}

// Run copies what the cluster knows into the node's file, and registers what Admit could not, until ctx ends. An error
// is that the node's deployment does not fit.
func (c *Catalog) Run(ctx context.Context) error {
	copied := false
	seen := uint64(0)
	for {
		view, changed := c.config.Registry.Changed()
		if !copied || view.Catalog != seen {
			copied, seen = c.copyTo(c.config.File, view), view.Catalog
		}
		var again <-chan time.Time
		if !copied {
			again = time.After(lookAgain)
		}
		if !c.registered && view.Settings.FeatureLevel >= registry.DeploymentsLevel {
			switch err := c.register(ctx, ctx, view); {
			case ctx.Err() != nil:
				return nil
			case errors.Is(err, errEarly):
				again = time.After(lookAgain)
			case errors.Is(err, errUnsure):
				changed, again = nil, time.After(askAgain)
			case err != nil && c.old:
				c.config.Logger.Error("the cluster does not know what the node runs; its next start is refused", telemetry.KeyDeployment, c.config.Own.ID(), telemetry.KeyError, err)
				c.registered = true
			case err != nil:
				return err
			default:
				c.config.Logger.Info("the cluster knows what the node runs", telemetry.KeyDeployment, c.config.Own.ID())
				copied = false
				continue
			}
		}
		select {
		case <-changed:
		case <-again:
		case <-ctx.Done():
			return nil
		}
	}
}

// copyTo makes of into what a view has; it reports false if this node's store lags behind the view.
func (c *Catalog) copyTo(into *deployment.Catalog, view *registry.View) bool {
	if view.Version == 0 || view.Settings.FeatureLevel < registry.DeploymentsLevel {
		return true
	}
	self, _ := view.Node(c.config.Node)
	// Until the node has told of what it remembers, that is nowhere else.
	keep := func(id string) bool { return self.Deployment == "" || id == c.config.Own.ID() }
	err := into.Adopt(view.Deployments, keep, func(hash string) ([]byte, error) {
		if data := c.config.Own.File(hash); data != nil {
			return data, nil
		}
		return c.config.Registry.File(hash)
	})
	if err != nil && !errors.Is(err, registry.ErrNotApplied) {
		c.config.Logger.Warn("what the cluster knows of deployments is not in the node's file", telemetry.KeyError, err)
	}
	return err == nil
}

// register makes one try, with what a view says. What is kept may be asked for until asking ends.
func (c *Catalog) register(ctx, asking context.Context, view *registry.View) error {
	self, known := view.Node(c.config.Node)
	switch {
	case !known:
		return fmt.Errorf("%w: the node is not admitted to the cluster", errEarly)
	case self.State == placement.Removed:
		c.registered = true // as much as it can be: who is removed is told so by others
		return nil
	}
	accepted, err := c.compare(asking, view, self)
	if err != nil {
		return err
	}
	if self.Deployment == "" {
		if err := c.remember(ctx, view); err != nil {
			return early(err)
		}
		// What others remember is something to compare with, too.
		if now := c.config.Registry.View(); now.Catalog != view.Catalog {
			return fmt.Errorf("%w: deployments were added meanwhile", errEarly)
		}
	}
	row := c.config.Own.Record()
	if was, err := c.config.File.Get(row.GetId()); err == nil && self.Deployment == "" && was.GetStatus() != recordv1.DeploymentStatus_DEPLOYMENT_STATUS_REMOVED {
		row.Status, row.FirstSeenAt = was.GetStatus(), was.GetFirstSeenAt()
	}
	row.Accepted = accepted
	if err := c.store(ctx, view, row); err != nil {
		return early(err)
	}
	if err := c.config.Client.Change(ctx, registry.Registration(c.config.Node, row, view.Catalog)); err != nil {
		return early(err)
	}
	c.registered = true
	return c.await(ctx)
}

// early is err, as one to try again after if it may go away.
func early(err error) error {
	if errors.Is(err, registry.ErrStale) || errors.Is(err, registry.ErrUnknownOutcome) || errors.Is(err, registry.ErrNotLeader) || errors.Is(err, registry.ErrNoSuchNode) {
		return fmt.Errorf("%w: %w", errEarly, err)
	}
	return fmt.Errorf("deployment is not registered: %w", err)
}

// await returns once this node's view has what is registered: whether the deployment drains, for one.
func (c *Catalog) await(ctx context.Context) error {
	for {
		view, changed := c.config.Registry.Changed()
		if self, _ := view.Node(c.config.Node); self.Deployment == c.config.Own.ID() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%w: it is registered, and this node's copy of the cluster's own group does not say so: %w", errEarly, context.Cause(ctx))
		}
	}
}

// store sends the descriptors of a deployment that the cluster does not have.
func (c *Catalog) store(ctx context.Context, view *registry.View, row *recordv1.Deployment) error {
	for _, hash := range row.GetFiles() {
		at, bytes := view.Stored(hash)
		if at > 0 && at == bytes {
			continue
		}
		data := c.config.Own.File(hash)
		if data == nil {
			data = c.config.File.File(hash)
		}
		for at < uint64(len(data)) {
			part := data[at:min(at+registry.MaxPartBytes, uint64(len(data)))]
			if err := c.config.Client.Change(ctx, registry.StorePart(hash, uint64(len(data)), at, part)); err != nil {
				return err
			}
			at += uint64(len(part))
		}
	}
	return nil
}

// remember tells the cluster of the builds that ran on this node before it kept such things, the newest first: what
// they left is compared with too, and what they began is tied to them.
func (c *Catalog) remember(ctx context.Context, view *registry.View) error {
	for _, row := range c.config.File.List() {
		if row.GetId() == c.config.Own.ID() || slices.ContainsFunc(view.Deployments, func(d *recordv1.Deployment) bool { return d.GetId() == row.GetId() }) {
			continue
		}
		err := c.store(ctx, view, row)
		if err == nil {
			err = c.config.Client.Change(ctx, registry.Registration(0, row, 0))
		}
		if errors.Is(err, registry.ErrInvalid) { // a name that stands for another build there
			c.config.Logger.Warn("the cluster does not take over a deployment that ran on this node", telemetry.KeyDeployment, row.GetId(), telemetry.KeyError, err)
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// SetStatus has the whole cluster see a deployment otherwise, and returns once this node does.
func (c *Catalog) SetStatus(ctx context.Context, id string, to recordv1.DeploymentStatus) error {
	if view := c.config.Registry.View(); view.Settings.FeatureLevel < registry.DeploymentsLevel {
		return c.config.File.SetStatus(id, to) // as in a cluster of the version before
	}
	err := c.config.Client.Change(ctx, registry.DeploymentChange(id, to))
	switch {
	case err == nil:
	case errors.Is(err, registry.ErrNoSuchDeployment):
		return routing.Errorf(routing.CodeNotFound, "the cluster knows no deployment %q", id)
	case errors.Is(err, registry.ErrInvalid):
		return routing.Errorf(routing.CodeFailedPrecondition, "%s", strings.TrimPrefix(err.Error(), registry.ErrInvalid.Error()+": "))
	default:
		return routing.Errorf(routing.CodeUnavailable, "%v", err)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if found, err := c.config.File.Get(id); err == nil && found.GetStatus() == to {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
