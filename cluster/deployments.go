package cluster

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/perdure/perdure/actor"
	catalogs "github.com/perdure/perdure/cluster/catalog"
	"github.com/perdure/perdure/internal/deployment"
	"github.com/perdure/perdure/internal/telemetry"
	"github.com/perdure/perdure/storage/vfs"
)

// deployments is the catalog of the data directory, and which of them this process is.
type deployments struct {
	*deployment.Catalog
	own   string
	build *deployment.Build
}

// draining says why no new invocations are taken.
func (d *deployments) draining() error {
	if d.Draining(d.own) {
		return fmt.Errorf("deployment %s is draining and takes no new invocations; perdure deployments drain --undo %s ends that", d.own, d.own)
	}
	return nil
}

// admitLocked refuses a build whose services can't read what earlier ones have left here, before
// anything of it runs. A node that is alone notes one that can when the engine opens; one with others when
// they have no objection either.
func (n *Node) admitLocked(ctx context.Context, config Config) (*deployments, error) {
	catalog := deployment.InMemory()
	if !config.InMemory {
		var err error
		if catalog, err = deployment.Open(vfs.OS{}, n.mu.layout.deploymentsFile()); err != nil {
			return nil, err
		}
	}
	services := make([]deployment.Service, len(n.mu.registered))
	for i, r := range n.mu.registered {
		services[i] = deployment.Service{Name: r.desc.Name, File: fileOf(r.desc)}
	}
	own, err := deployment.Describe(config.Deployment, build(), Version(), services)
	if err != nil {
		return nil, err
	}
	n.mu.layout.lastWith = catalog.LastWith
	if others := n.mu.network; others != nil {
		others.compareWith(own, catalog, config.AcceptBreakingChanges)
		return &deployments{catalog, own.ID(), own}, nil
	}
	accepted, err := n.compareLocked(ctx, config, catalog, own)
	if err != nil {
		return nil, err
	}
	// Not now: a start that fails changes nothing. Nor later: what runs says which deployment it is of.
	n.mu.layout.opened = func() error {
		config.Logger.Info("deployment", telemetry.KeyDeployment, own.ID())
		return catalog.Started(own, accepted, time.Now())
	}
	return &deployments{catalog, own.ID(), own}, nil
}

// fileOf is nil for a service that no generated code describes.
func fileOf(desc *actor.ServiceDesc) protoreflect.FileDescriptor {
	if desc.File != nil {
		return desc.File
	}
	for _, method := range desc.Methods {
		if method.Schema == nil {
			continue
		}
		if schema := method.Schema(); schema != nil && string(schema.Parent().FullName()) == desc.Name {
			return schema.ParentFile()
		}
	}
	return nil
}

// compareLocked returns the breaking changes that the operator has accepted.
func (n *Node) compareLocked(ctx context.Context, config Config, catalog *deployment.Catalog, own *deployment.Build) ([]string, error) {
	const acceptIt = "or start with --accept-breaking (cluster.WithBreakingChanges) and lose it"
	found, err := catalog.Changes(own, false)
	if err != nil {
		if config.AcceptBreakingChanges {
			config.Logger.Warn("started without a comparison with earlier deployments", telemetry.KeyDeployment, own.ID(), telemetry.KeyError, err)
			return []string{"not compared: " + err.Error()}, nil
		}
		return nil, fmt.Errorf("what earlier deployments left in %s may not fit: %w: use the build that made it, %s", n.mu.layout.dir, err, acceptIt)
	}
	breaking := deployment.Breaking(found)
	if len(breaking) == 0 {
		return nil, nil
	}
	census, err := takeCensus(ctx, config, n.mu.layout)
	if err != nil {
		if !config.AcceptBreakingChanges {
			return nil, fmt.Errorf("%s, and what is kept can't be read to see whether they do harm: %w", catalogs.List("there are breaking changes", breaking), err)
		}
		config.Logger.Warn("what is kept can't be read", telemetry.KeyError, err)
	}
	misfits := breaking
	if err == nil {
		misfits = deployment.Misfits(breaking, census)
	}
	if len(misfits) == 0 {
		return nil, nil
	}
	if !config.AcceptBreakingChanges {
		return nil, fmt.Errorf("%s\nNothing was started. Change the services as it says, or let the deployment that wrote it finish first; %s",
			catalogs.List(fmt.Sprintf("deployment %s does not fit what is kept in %s", own.ID(), n.mu.layout.dir), misfits), acceptIt)
	}
	accepted := make([]string, len(misfits))
	for i, misfit := range misfits {
		accepted[i] = misfit.String()
		config.Logger.Warn("breaking change accepted", telemetry.KeyDeployment, own.ID(), telemetry.KeyReason, accepted[i])
	}
	return accepted, nil
}

// compareWith says what the node is started with, which is not compared with what the cluster has before allow.
// This node's own copies of partitions have no say: they may be of long ago.
func (n *network) compareWith(own *deployment.Build, file *deployment.Catalog, acceptBreaking bool) {
	doubtful := false
	if !file.Restarts(own) {
		found, err := file.Changes(own, true) // what this build does not host, another node may
		doubtful = err != nil || len(deployment.Breaking(found)) > 0
	}
	n.catalog = catalogs.New(catalogs.Config{
		Node: n.nodeID, Own: own, Registry: n.registry, Client: n.client, File: file, Logger: n.logger,
		AcceptBreaking: acceptBreaking, Doubtful: doubtful,
		Census: func(ctx context.Context) (deployment.Census, error) {
			view := n.registry.View()
			return catalogs.Census(ctx, admitted(view), view.Settings.Partitions, func(ctx context.Context, node uint64) ([]byte, error) {
				return n.call(ctx, node, methodCensus, nil)
			})
		},
	})
}

// allow lets this node run its handlers, and tells the others that it does, once the cluster has no objection.
func (n *network) allow(ctx context.Context) error {
	if err := n.catalog.Admit(ctx); err != nil {
		return err
	}
	n.gate.Open()
	n.mu.Lock()
	n.mu.open = true
	hosts := n.mu.hosts
	n.mu.Unlock()
	n.alongside(ctx, func(running context.Context) { n.fail(n.catalog.Run(running)) })
	return n.shareHosts(hosts)
}

// runners are the nodes that are alive and run each deployment, as far as this one has heard.
func (n *network) runners() map[string][]string {
	nodes := map[string][]string{}
	for _, member := range alive(n.gossip.Members(), n.registry.View()) {
		if id, _ := n.hosting.Of(member.Node); id != "" {
			nodes[id] = append(nodes[id], fmt.Sprintf("%016x", member.Node))
		}
	}
	return nodes
}
