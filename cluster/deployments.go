package cluster

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/perdure/perdure/actor"
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

// admitLocked refuses a build whose services can't read what earlier ones have left, before
// anything of it runs, and has the engine note one that can.
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
	accepted, err := n.compareLocked(ctx, config, catalog, own)
	if err != nil {
		return nil, err
	}
	// Not now: a start that fails changes nothing. Nor later: what runs says which deployment it is of.
	n.mu.layout.opened = func() error {
		config.Logger.Info("deployment", telemetry.KeyDeployment, own.ID())
		return catalog.Started(own, accepted, time.Now())
	}
	n.mu.layout.lastWith = catalog.LastWith
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
	// What this build does not host, another node may: it is kept either way, and waits.
	found, err := catalog.Changes(own, config.Peers != nil)
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
			return nil, fmt.Errorf("%s, and what is kept can't be read to see whether they do harm: %w", list("there are breaking changes", breaking), err)
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
			list(fmt.Sprintf("deployment %s does not fit what is kept in %s", own.ID(), n.mu.layout.dir), misfits), acceptIt)
	}
	accepted := make([]string, len(misfits))
	for i, misfit := range misfits {
		accepted[i] = misfit.String()
		config.Logger.Warn("breaking change accepted", telemetry.KeyDeployment, own.ID(), telemetry.KeyReason, accepted[i])
	}
	return accepted, nil
}

// list has a line for each difference.
func list(title string, found []deployment.Difference) string {
	var text strings.Builder
	text.WriteString(title + ":")
	for _, d := range found {
		text.WriteString("\n  " + d.String() + "; it was so in deployment " + d.From)
	}
	return text.String()
}
