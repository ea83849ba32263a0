package journal

import (
	"slices"

	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// maxEarlier is how many deployments before the current one a row names.
const maxEarlier = 8

// Pin notes the deployment that an attempt runs on, and which have fed its journal of that many
// entries before; it reports whether the row has changed. A node is one process of one build, so
// this build is where every attempt runs, and what an earlier one began moves on by replay; once
// others can be reached, those that began a journal go on with it.
func Pin(row *recordv1.Invocation, own string, entries uint32) (moved bool) {
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
