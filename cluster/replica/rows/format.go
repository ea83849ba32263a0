//go:build !perdure_next

package rows

// formatLevels are the feature levels that the formats of records came with, the first one first.
var formatLevels = [...]uint32{1}
