package catalog

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/perdure/perdure/cluster/placement"
	"github.com/perdure/perdure/cluster/registry"
	"github.com/perdure/perdure/internal/deployment"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/telemetry"
)

// censusPatience bounds how long is asked what the cluster keeps. It is only asked if something would break.
const censusPatience = 30 * time.Second

// compare returns the breaking changes that the operator has accepted, or why the node must not run its handlers.
func (c *Catalog) compare(ctx context.Context, view *registry.View, self registry.Node) ([]string, error) {
	var used []string
	for _, node := range view.Nodes {
		if node.ID != c.config.Node && node.State != placement.Removed && node.Deployment != "" {
			used = append(used, node.Deployment)
		}
	}
	own := c.config.Own.ID()
	restarts := self.Deployment == own && len(view.Deployments) > 0 && view.Deployments[0].GetId() == own
	if restarts || slices.Contains(used, own) && (self.Deployment == "" || self.Deployment == own) {
		return nil, nil // a registration says whether the name stands for the same
	}
	known := deployment.InMemory()
	if !c.copyTo(known, view) {
		return nil, fmt.Errorf("%w: %w", errEarly, registry.ErrNotApplied)
	}
	found, err := known.Changes(c.config.Own, true, used...)
	const acceptIt = "or start with --accept-breaking (cluster.WithBreakingChanges) and lose it"
	if err != nil {
		if c.lenient() {
			return c.accept([]string{"not compared: " + err.Error()}), nil
		}
		return nil, fmt.Errorf("what earlier deployments left in the cluster may not fit: %w: use the build that made it, %s", err, acceptIt)
	}
	breaking := slices.DeleteFunc(deployment.Breaking(found), func(d deployment.Difference) bool { return wasAccepted(view, own, d) })
	if len(breaking) == 0 {
		c.doubtful = false // whatever its file says: the cluster knows more
		return nil, nil
	}
	c.doubtful = true
	asking, cancel := context.WithTimeout(ctx, censusPatience)
	defer cancel()
	misfits := breaking
	census, err := c.config.Census(asking)
	switch {
	case err == nil:
		misfits = deployment.Misfits(breaking, census)
	case !c.lenient():
		return nil, fmt.Errorf("%w: %s\nwhether they do harm can't be told: %w", errUnsure, List("there are breaking changes", breaking), err)
	}
	if len(misfits) == 0 {
		return nil, nil
	}
	if !c.lenient() {
		return nil, fmt.Errorf("%s\nNo handler was run here. Change the services as it says, or let the deployment that wrote it finish first%s; %s",
			List(fmt.Sprintf("deployment %s does not fit what is kept in the cluster", own), misfits), sakes(view, misfits), acceptIt)
	}
	texts := make([]string, len(misfits))
	for i, misfit := range misfits {
		texts[i] = misfit.String()
	}
	return c.accept(texts), nil
}

// wasAccepted reports whether a change was accepted when another node was started with the same deployment.
func wasAccepted(view *registry.View, own string, d deployment.Difference) bool {
	d.Found = ""
	for _, row := range view.Deployments {
		if row.GetId() == own && row.GetStatus() != recordv1.DeploymentStatus_DEPLOYMENT_STATUS_REMOVED {
			return slices.ContainsFunc(row.GetAccepted(), func(said string) bool { return said == d.String() || strings.HasPrefix(said, d.String()+" (") })
		}
	}
	return false
}

// sakes names the nodes for whose sake a build is compared with what they were started with last.
func sakes(view *registry.View, misfits []deployment.Difference) string {
	var nodes []string
	for _, node := range view.Nodes {
		if node.State != placement.Removed && slices.ContainsFunc(misfits, func(d deployment.Difference) bool { return d.From == node.Deployment }) {
			nodes = append(nodes, fmt.Sprintf("%016x (%s)", node.ID, node.Deployment))
		}
	}
	if nodes == nil {
		return ""
	}
	return "; started with such a deployment last: " + strings.Join(nodes, ", ") + ", and those that are gone for good are to be removed (perdure cluster remove)"
}

// lenient: what breaks is told and not refused.
func (c *Catalog) lenient() bool { return c.config.AcceptBreaking || c.old }

func (c *Catalog) accept(changes []string) []string {
	for _, change := range changes {
		c.config.Logger.Warn("breaking change accepted", telemetry.KeyDeployment, c.config.Own.ID(), telemetry.KeyReason, change)
	}
	return changes
}

// List has a line for each difference.
func List(title string, found []deployment.Difference) string {
	var text strings.Builder
	text.WriteString(title + ":")
	for _, d := range found {
		text.WriteString("\n  " + d.String() + "; it was so in deployment " + d.From)
	}
	return text.String()
}
