//go:build !linux && !darwin && !freebsd

package badgerstore

import (
	"math"
	"os"
)

// lockDirectory only creates the file: on these systems Badger's own lock has to do.
func lockDirectory(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
}

// freeDiskBytes knows no limit on these systems: the watermark is not checked.
func freeDiskBytes(string) (int64, error) { return math.MaxInt64, nil }
