package sim

import "runtime/debug"

// The heap of a simulation is some megabytes. Collected a quarter as often, a seed takes a tenth less time.
func init() { debug.SetGCPercent(400) }
