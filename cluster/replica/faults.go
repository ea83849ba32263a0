package replica

import "errors"

// Halted returns the groups that were halted, and why; they serve nothing until their data is
// repaired and the process starts anew. The others go on.
func (h *Host) Halted() map[GroupID]error {
	halted := make(map[GroupID]error)
	for id, err := range h.faults.Halts() {
		halted[GroupID(id)] = err
	}
	return halted
}

// DiskHealth is Health without the groups that were halted: nil while the others can be served.
func (h *Host) DiskHealth() error {
	return errors.Join(h.faults.Disk(), h.appender.stalled(), h.applier.stalled())
}

// NoSpace returns why the log or the store takes no more for want of disk space, nil if both
// take more. It is for every call to ask: unlike Health it costs next to nothing.
func (h *Host) NoSpace() error { return h.faults.Space() }
