package cluster

import "runtime/debug"

const modulePath = "github.com/perdure/perdure"

// Version is that of the perdure module in this program, such as "v0.1.0", or "devel".
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	version := info.Main.Version
	if info.Main.Path != modulePath {
		version = ""
		for _, dependency := range info.Deps {
			if dependency.Path == modulePath {
				version = dependency.Version
			}
		}
	}
	if version == "" || version == "(devel)" {
		return "devel"
	}
	return version
}
