package partition

import (
	"testing"

	"github.com/perdure/perdure/storage/nodelog"
	"github.com/perdure/perdure/storage/vfs"
)

// openMemLog is a node log in memory.
func openMemLog(t *testing.T) *nodelog.Log {
	t.Helper()
	log, err := nodelog.Open(nodelog.Options{Dir: "log", FS: vfs.NewMem(), SegmentBytes: 256 << 10, MinFreeBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
	return log
}
