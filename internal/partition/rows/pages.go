package rows

import (
	"fmt"
	"math"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/invocation"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing"
	"github.com/perdure/perdure/internal/table"
)

// PageBytes bounds the journal entries, and the rows of tables, that one query reads; a page
// ends early rather than hold more, but has at least one.
const PageBytes = 4 << 20

// Journal adds up to limit entries after detail.After, fewer if they are large, and their
// completions.
func Journal(data Reader, detail *routing.InvocationDetail, limit int) error {
	if detail.After == ^uint32(0) {
		return nil
	}
	budget, last := PageBytes, detail.After
	var entryErr error
	// What is not in the store yet is collected for all of the range: not for more than a page.
	end := uint32(min(uint64(last)+uint64(limit)+2, math.MaxUint32))
	err := data.Scan(table.Journal(detail.ID, last+1), table.Journal(detail.ID, end), func(key, value []byte) bool {
		if len(detail.Journal) == limit || (budget <= 0 && len(detail.Journal) > 0) {
			detail.More = true
			return false
		}
		index, err := table.ParseEntry(key)
		if err == nil && index != last+1 {
			err = fmt.Errorf("entry %d is missing from its journal", last+1)
		}
		entry := &recordv1.Entry{}
		if err == nil {
			err = proto.Unmarshal(value, entry)
		}
		if err != nil {
			entryErr = fmt.Errorf("journal entry after %d: %w", last, err)
			return false
		}
		detail.Journal = append(detail.Journal, entry)
		last = index
		budget -= len(value)
		return true
	})
	if err == nil {
		err = entryErr
	}
	if err != nil || len(detail.Journal) == 0 {
		return err
	}
	// Completions have their own budget; an entry whose completion is beyond it goes to the
	// next page, for without it the entry would look pending.
	budget = PageBytes
	lower, upper := table.Completion(detail.ID, detail.After+1), append(table.Completion(detail.ID, last), 0)
	err = data.Scan(lower, upper, func(key, value []byte) bool {
		index, err := table.ParseEntry(key)
		completion := &recordv1.Completion{}
		if err == nil {
			err = proto.Unmarshal(value, completion)
		}
		if err != nil {
			entryErr = fmt.Errorf("completion of an entry after %d: %w", detail.After, err)
			return false
		}
		if budget <= 0 && index > detail.After+1 {
			detail.Journal, detail.More = detail.Journal[:index-detail.After-1], true
			return false
		}
		budget -= len(value)
		detail.Completions[index] = completion
		return true
	})
	if err == nil {
		err = entryErr
	}
	if err != nil {
		return err
	}
	for i, entry := range detail.Journal {
		index := detail.After + uint32(i) + 1
		if entry.GetRun() == nil || detail.Completions[index] != nil {
			continue
		}
		tries := &recordv1.RunTries{}
		if _, err := Message(data, table.Tries(detail.ID, index), tries); err != nil {
			return fmt.Errorf("tries of entry %d: %w", index, err)
		}
		if tries.Failed == 0 {
			continue
		}
		if detail.Tries == nil {
			detail.Tries = map[uint32]*recordv1.RunTries{}
		}
		detail.Tries[index] = tries
	}
	return nil
}

// Pages reads pages of one object's tables.
type Pages struct {
	Data   Reader
	Object invocation.Object
	// Limit of rows of each page, and Budget of bytes over all of them.
	Limit, Budget int
}

// Next is the table of the first row at or after a key.
func (t *Pages) Next(from []byte) (name string, ok bool, err error) {
	var parseErr error
	err = t.Data.Scan(from, table.Successor(table.RowsOfObject(t.Object)), func(key, _ []byte) bool {
		name, _, parseErr = table.ParseRow(t.Object, key)
		ok = parseErr == nil
		return false
	})
	if err == nil {
		err = parseErr
	}
	return name, ok, err
}

// Page is one of a table, from a row on. It has at least one row, if there is one.
func (t *Pages) Page(name, from string) (*routing.Table, error) {
	page := &routing.Table{}
	count, _, err := t.Data.Get(table.RowCount(t.Object, name))
	if err == nil {
		page.Size, err = table.ParseNumber(count)
	}
	if err != nil {
		return nil, fmt.Errorf("number of rows of table %q: %w", name, err)
	}
	prefix := table.Rows(t.Object, name)
	err = t.Data.Scan(table.Row(t.Object, name, from), table.Successor(prefix), func(key, value []byte) bool {
		if len(page.Rows) == t.Limit || (t.Budget <= 0 && len(page.Rows) > 0) {
			page.More = true
			return false
		}
		t.Budget -= len(key) + len(value)
		page.Rows = append(page.Rows, routing.TableRow{Key: string(key[len(prefix):]), Value: append([]byte(nil), value...)})
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("table %q: %w", name, err)
	}
	return page, nil
}
