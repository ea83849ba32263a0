package partition

// NonceLevel is the feature level of ids of awakeables with a nonce. A node of a lower one refuses
// them, and would make another id of an entry that has one.
const NonceLevel = 2

// mayWrite: all nodes of the cluster read what came with that feature level.
func (p *Partition) mayWrite(level uint32) bool {
	return p.config.WrittenLevel == nil || p.config.WrittenLevel() >= level
}
