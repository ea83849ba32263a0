package renew

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"github.com/perdure/perdure/internal/draft"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/table"
)

// Copying is how far those are that are being given the entries which they were restarted with.
type Copying map[invocation.ID]table.Copy

// Of is one that is being given entries of source; false if there is none.
func (c Copying) Of(source invocation.ID) (to invocation.ID, copied bool) {
	for _, to := range c.IDs() {
		if c[to].Source == source {
			return to, true
		}
	}
	return to, false
}

// IDs are those of all, in order.
func (c Copying) IDs() []invocation.ID {
	return slices.SortedFunc(maps.Keys(c), func(a, b invocation.ID) int { return bytes.Compare(a[:], b[:]) })
}

// Copies reads all of a partition. damaged is told of each row that can't be read.
func Copies(rows draft.View, damaged func(error)) (Copying, error) {
	all := Copying{}
	lower, upper := table.CopyAll()
	err := rows.Scan(lower, upper, func(key, value []byte) bool {
		id, err := table.ParseID(key)
		var at table.Copy
		if err == nil {
			at, err = table.ParseCopy(value)
		}
		if err != nil {
			damaged(fmt.Errorf("row %s: %w", table.Describe(key), err))
			return true
		}
		all[id] = at
		return true
	})
	return all, err
}
