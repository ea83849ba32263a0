package inprocess

import (
	"slices"
	"strings"

	"github.com/perdure/perdure/internal/invoker"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/stress"
)

// rows is what a handler wrote to its tables, over what the object's tables say. A DURABLE
// handler that replays has rows in it that it has not written yet: as they were before.
type rows struct {
	base    invoker.Tables
	written map[rowName]*row
	order   []*row
}

type rowName struct{ table, key string }

type row struct {
	rowName
	value   []byte
	deleted bool
	// untouched: it holds what was there before the invocation's first write.
	untouched bool
}

func (r *rows) find(table, key string) *row { return r.written[rowName{table, key}] }

func (r *rows) get(table, key string) ([]byte, bool, error) {
	if found := r.find(table, key); found != nil {
		return found.value, !found.deleted, nil
	}
	if r.base == nil {
		return nil, false, nil
	}
	return r.base.Get(table, key)
}

func (r *rows) put(table, key string, value []byte, remove bool) *row {
	name := rowName{table, key}
	found := r.written[name]
	if found == nil {
		found = &row{rowName: name}
		if r.written == nil {
			r.written = make(map[rowName]*row)
		}
		r.written[name] = found
		r.order = append(r.order, found)
	}
	found.value, found.deleted, found.untouched = value, remove, false
	return found
}

// len is right as long as nothing written here has reached base. In a DURABLE handler it may have:
// durableData.length counts by what was there before.
func (r *rows) len(table string) (int, error) {
	if r.base == nil {
		return 0, nil
	}
	count, err := r.base.Len(table)
	if err != nil {
		return 0, err
	}
	for _, written := range r.order {
		if written.table != table {
			continue
		}
		_, was, err := r.base.Get(table, written.key)
		if err != nil {
			return 0, err
		}
		count += difference(was, !written.deleted)
	}
	return count, nil
}

func difference(before, after bool) int {
	switch {
	case before && !after:
		return -1
	case after && !before:
		return 1
	}
	return 0
}

// pageRows is how many rows a scan takes from base at a time: the loop's body runs in between, so
// that it holds nothing of the store and may use the table itself.
var pageRows = stress.Few(128, 1)

// scan merges what was written before it began with base, both in ascending order of keys.
func (r *rows) scan(table, from string, yield func(key string, value []byte) bool) error {
	var changed []row
	for _, written := range r.order {
		if written.table == table && written.key >= from {
			changed = append(changed, *written)
		}
	}
	slices.SortFunc(changed, func(a, b row) int { return strings.Compare(a.key, b.key) })
	// next yields the changed rows up to key, and reports whether to go on and whether the last
	// of them stands in for base's row of that key.
	next := func(key string, end bool) (more, replaced bool) {
		for len(changed) > 0 && (end || changed[0].key <= key) {
			first := changed[0]
			changed = changed[1:]
			if !first.deleted && !yield(first.key, first.value) {
				return false, false
			}
			replaced = !end && first.key == key
		}
		return true, replaced
	}
	type found struct {
		key   string
		value []byte
	}
	for r.base != nil {
		page := make([]found, 0, 16)
		err := r.base.Scan(table, from, func(key string, value []byte) bool {
			page = append(page, found{key, value})
			return len(page) < pageRows
		})
		if err != nil {
			return err
		}
		for _, at := range page {
			more, replaced := next(at.key, false)
			if !more || !replaced && !yield(at.key, at.value) {
				return nil
			}
		}
		if len(page) < pageRows {
			break
		}
		from = page[len(page)-1].key + "\x00"
	}
	next("", true)
	return nil
}

// layer is rows as the base of others.
type layer struct{ rows rows }

var _ invoker.Tables = (*layer)(nil)

// lay puts written rows over tables; an entry that writes no row counts for nothing.
func lay(written []*recordv1.Entry, tables invoker.Tables) *layer {
	over := &layer{rows{base: tables}}
	for _, entry := range written {
		if put := entry.GetTablePut(); put != nil {
			over.rows.put(put.GetTable(), put.GetKey(), put.GetValue(), put.GetDelete())
		}
	}
	return over
}

func (l *layer) Get(table, key string) ([]byte, bool, error) { return l.rows.get(table, key) }
func (l *layer) Len(table string) (int, error)               { return l.rows.len(table) }
func (l *layer) Scan(table, from string, fn func(key string, value []byte) bool) error {
	return l.rows.scan(table, from, fn)
}
