package pages

import (
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/table"
)

// Keys are the keys of the entries lower ≤ index < upper and of their completions, of so many
// entries at most, and as many as have about so many bytes. next is the first entry of which a key
// is left out, 0 if none is.
func Keys(rows Rows, id invocation.ID, lower, upper uint32, most, bytes int) (keys [][]byte, next uint32, err error) {
	collect := func(of func(invocation.ID, uint32) []byte, to uint32) error {
		found := 0
		var parseErr error
		err := rows.Scan(of(id, lower), of(id, to), func(key, value []byte) bool {
			if found == most || bytes <= 0 && found > 0 {
				next, parseErr = table.ParseEntry(key)
				return false
			}
			bytes -= len(value)
			found++
			keys = append(keys, append([]byte(nil), key...))
			return true
		})
		if err == nil {
			err = parseErr
		}
		return err
	}
	if err := collect(table.Journal, upper); err != nil {
		return keys, 0, err
	}
	if next != 0 {
		upper = next
	}
	return keys, next, collect(table.Completion, upper)
}
