package pages

import (
	"sort"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/journal"
	"github.com/perdure/perdure/internal/table"
)

// Keys are the keys of the entries lower ≤ index < upper, of their completions, of the parts of
// those and of the tries of Runs, to be removed: about so many of each kind at most, and as many as have
// about so many bytes. next is the first entry of which a key is left out, 0 if none is.
//
// A value with more parts than that goes from its last part on, over several calls, its row with the
// first. Tries come before completions: what an earlier attempt wrote of a value begins with the same parts.
func Keys(rows Rows, id invocation.ID, lower, upper uint32, most, bytes int) (keys [][]byte, next uint32, err error) {
	collect := func(of func(invocation.ID, uint32) []byte, partsIn func([]byte) (uint32, error)) error {
		found, beyond := 0, 0
		var parseErr error
		err := rows.Scan(of(id, lower), of(id, upper), func(key, value []byte) bool {
			var index, parts uint32
			if index, parseErr = table.ParseEntry(key); parseErr != nil {
				return false
			}
			if partsIn != nil {
				parts, _ = partsIn(value) // Of one that is damaged nothing is known.
			}
			if int(parts) > most && found == 0 {
				beyond = int(parts)
			}
			if found >= most || bytes <= 0 && found > 0 || int(parts) > most {
				next, upper = index, index
				return false
			}
			bytes -= len(value)
			found++
			keys = append(keys, append([]byte(nil), key...))
			for number := range parts { // They are not read: that would take as long as to write them.
				keys = append(keys, table.Part(id, index, number))
			}
			found += int(parts)
			return true
		})
		if err == nil {
			err = parseErr
		}
		if err != nil || beyond == 0 {
			return err
		}
		there := sort.Search(beyond, func(number int) bool {
			_, ok, getErr := rows.Get(table.Part(id, next, uint32(number)))
			if getErr != nil {
				err = getErr
			}
			return !ok
		})
		rest := max(there-most, 0)
		for number := rest; number < there; number++ {
			keys = append(keys, table.Part(id, next, uint32(number)))
		}
		if rest == 0 {
			keys = append(keys, of(id, next))
		}
		return err
	}
	if err := collect(table.Journal, nil); err != nil {
		return keys, 0, err
	}
	if err := collect(table.Tries, journal.PartsTried); err != nil {
		return keys, 0, err
	}
	return keys, next, collect(table.Completion, journal.PartsIn)
}
