//go:build !perdure_next

package registry

// FeatureLevel is the level of records that this version of perdure reads, all lower ones
// included.
//
//	1  all records up to the first version with several nodes
//	2  rules for limits: rows of the rule book, and messages that tell partitions of it;
//	   headers of invocations, which nodes of level 1 drop; promises about which a participant
//	   decides (Prepared.decider); deployments in group 0; ids of awakeables with a nonce
const FeatureLevel = 2
