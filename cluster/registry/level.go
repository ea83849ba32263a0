//go:build !perdure_next

package registry

// FeatureLevel is the level of records that this version of perdure reads, all lower ones
// included.
//
//	1  all records up to the first version with several nodes
const FeatureLevel = 1
