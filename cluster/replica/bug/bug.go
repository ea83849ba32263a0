// Package bug says which bugs are planted in package replica: none, but in builds with a tag, which tests must
// notice. See TestPlantedBugsAreNoticed in package sim.
package bug
