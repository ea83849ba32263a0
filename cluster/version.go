package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"runtime/debug"
	"sync"
)

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

// build says what this program was made of: a revision, a version, or else a hash of the program,
// which tells builds of sources apart that are in no revision.
var build = sync.OnceValue(func() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		settings := map[string]string{}
		for _, setting := range info.Settings {
			settings[setting.Key] = setting.Value
		}
		switch revision := settings["vcs.revision"]; {
		case revision != "" && settings["vcs.modified"] == "false":
			return settings["vcs"] + " " + revision
		case info.Main.Sum != "":
			return info.Main.Path + " " + info.Main.Version + " " + info.Main.Sum
		}
	}
	if hash, err := hashProgram(); err == nil {
		return "program " + hash
	}
	return "unknown"
})

func hashProgram() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", err
	}
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}
