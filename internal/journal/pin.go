package journal

import (
	"slices"

	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// maxEarlier is how many deployments before the current one a row names.
const maxEarlier = 8

// Pin notes the deployment that an attempt runs on, and which have fed its journal of that many
// entries before; it reports whether the row has changed. A node is one process of one build, so
// its own build, or that of a node that hosts the service, is where an attempt runs, and what an
// earlier one began moves on by replay.
// What it runs on may not be known; then nothing is noted.
func Pin(row *recordv1.Invocation, own string, entries uint32) (moved bool) {
	if own == "" {
		return false
	}
	moved = row.Deployment != own
	if entries == row.JournalStart { // nothing is recorded that another build could diverge from
		row.EarlierDeployments = nil
	} else if row.Deployment != "" && moved && !slices.Contains(row.EarlierDeployments, row.Deployment) {
		row.EarlierDeployments = append(row.EarlierDeployments, row.Deployment)
		if len(row.EarlierDeployments) > maxEarlier {
			row.EarlierDeployments = slices.Delete(row.EarlierDeployments, 1, 2)
		}
	}
	row.Deployment = own
	return moved
}
