//go:build perdure_next

package registry

// FeatureLevel is one more in the build that stands for the version to come: see package chaos.
const FeatureLevel = 3
