package recall

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/perdure/perdure/cluster/transport"
)

// noteFrames is how much more a living node's log must have to be noted again.
const noteFrames = 1000

// Noteworthy reports whether what a node says is to be noted in its row: of each process once, when the node
// is gone, and again if there is much more.
func Noteworthy(row, said transport.LogClaim, gone, again bool) bool {
	if Newest(row, said) == row {
		return false
	}
	return gone || said.Process != row.Process || again && said.Durable >= row.Durable+noteFrames
}

// Refused is why a data directory must not be used any more, which the file says that a node leaves when it is
// refused, or nil.
func Refused(file string) error {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look whether the data directory was refused: %w", err)
	}
	return fmt.Errorf("this data directory was refused by its cluster before: %s (%s says so; remove that file only if all nodes were restored from copies of one time)", text, file)
}
