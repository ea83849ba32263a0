package inprocess

import (
	"context"
	"fmt"

	"github.com/perdure/perdure/actor"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// version is what is known of a change.
type version struct {
	number int
	site   string // where it was recorded, if it was
}

// Version takes what is recorded at this place, if anything is. A change is asked for once: later
// calls get what the first one got.
func (d *durable) Version(_ context.Context, change string, lowest, highest int) int {
	d.mustEnter("Version ", change)
	known, asked := d.versions[change]
	if !asked {
		known = d.version(change, highest)
		d.keepVersion(change, known)
	}
	if known.number < lowest || known.number > highest {
		d.Fail(errVersion(change, known, lowest, highest, d.attempt.ID.String()))
	}
	return known.number
}

func (d *durable) version(change string, highest int) version {
	if ahead := d.cursor.VersionAhead(change); ahead > 0 {
		for ; ahead > 1; ahead-- { // of changes that the code no longer asks for here
			d.passVersion()
		}
		recorded := d.cursor.Next()
		d.pass(recorded)
		return version{int(recorded.GetVersion().GetVersion()), recorded.GetSite()}
	}
	if d.cursor.Replaying() {
		return version{number: actor.Unversioned}
	}
	_, entry := d.record(&recordv1.Entry{Entry: &recordv1.Entry_Version{Version: &recordv1.Version{Change: change, Version: int32(highest)}}}, nil)
	return version{highest, entry.GetSite()}
}

// next is the recorded entry that the step in progress must match, nil at the end of the journal.
// It passes over what was recorded for a Version that the code no longer asks for.
func (d *durable) next() *recordv1.Entry {
	for d.cursor.Next().GetVersion() != nil {
		d.passVersion()
	}
	return d.cursor.Next()
}

func (d *durable) passVersion() {
	recorded := d.cursor.Next()
	d.keepVersion(recorded.GetVersion().GetChange(), version{int(recorded.GetVersion().GetVersion()), recorded.GetSite()})
	d.pass(recorded)
}

func (d *durable) keepVersion(change string, known version) {
	if _, asked := d.versions[change]; asked {
		return
	}
	if d.versions == nil {
		d.versions = make(map[string]version)
	}
	d.versions[change] = known
}

func errVersion(change string, known version, lowest, highest int, id string) error {
	has := fmt.Sprintf("version %d, recorded at %s", known.number, known.site)
	if known.number == actor.Unversioned {
		has = "the code from before the change (actor.Unversioned)"
	}
	supports := fmt.Sprintf("versions %d to %d", lowest, highest)
	switch {
	case lowest == highest:
		supports = fmt.Sprintf("version %d alone", lowest)
	case lowest == actor.Unversioned:
		supports = fmt.Sprintf("the code before it and versions up to %d", highest)
	}
	do := "it was removed too early"
	if known.number > highest {
		do = "the code deployed is older than the one that started it"
	}
	return actor.Errorf(actor.FailedPrecondition, "Version %q: this invocation runs with %s, and the code has %s: %s. Deploy code that has it until the invocations that need it have ended, or cancel %s", change, has, supports, do, id)
}

func (r *read) Version(_ context.Context, _ string, _, highest int) int { return highest }

func (t *transaction) Version(_ context.Context, _ string, _, highest int) int { return highest }
