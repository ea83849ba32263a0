// Package build says what this program was made of.
package build

import (
	"runtime"
	"runtime/debug"
)

// Build is what the linker knows of this program.
type Build struct {
	Version  string `json:"version"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	Revision string `json:"revision,omitempty"`
	// At is when the revision was committed, in RFC 3339.
	At string `json:"at,omitempty"`
	// Modified: the tree had changes that are not in the revision.
	Modified bool `json:"modified,omitempty"`
}

// Read reads it.
func Read() Build {
	b := Build{Version: "devel", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if info.Main.Version != "" && info.Main.Version != "(devel)" {
		b.Version = info.Main.Version
	}
	for _, setting := range info.Settings {
		switch setting.Key {
		case "vcs.revision":
			b.Revision = setting.Value
		case "vcs.time":
			b.At = setting.Value
		case "vcs.modified":
			b.Modified = setting.Value == "true"
		}
	}
	return b
}
