// Package draft holds what an event in progress has written, over the data that it began with: what
// is read through a Draft is what the event has left so far.
package draft

import (
	"fmt"

	"google.golang.org/protobuf/proto"
)

// View is the data that events begin with. Values belong to the view and must not be changed.
type View interface {
	// Get returns the value of a key.
	Get(key []byte) (value []byte, ok bool, err error)
	// Scan calls fn for lower ≤ key < upper in ascending order until fn returns false.
	Scan(lower, upper []byte, fn func(key, value []byte) bool) error
}

// Mutation is one row to write or to delete.
type Mutation struct {
	Key    []byte
	Value  []byte
	Delete bool
}

// Draft is the writes of one event after another. It is for one goroutine.
type Draft struct {
	view      View
	mutations []Mutation
	bytes     int
	// index finds mutations by key, once there are many.
	index   map[string]int
	indexed int
}

// New is an empty draft over a view.
func New(view View) Draft { return Draft{view: view, index: map[string]int{}} }

// Reset begins another event. The mutations of the one before are no longer valid.
func (d *Draft) Reset() {
	d.mutations, d.bytes = d.mutations[:0], 0
	if d.indexed > 0 {
		clear(d.index)
		d.indexed = 0
	}
}

// Mutations are all writes since Reset, in order. They are valid until the next one.
func (d *Draft) Mutations() []Mutation { return d.mutations }

// Size is how many writes there are since Reset, and the bytes of their keys and values.
func (d *Draft) Size() (writes, bytes int) { return len(d.mutations), d.bytes }

// Put writes a row. The draft keeps both.
func (d *Draft) Put(key, value []byte) {
	d.mutations = append(d.mutations, Mutation{Key: key, Value: value})
	d.bytes += len(key) + len(value)
}

// Delete deletes a row. The draft keeps the key.
func (d *Draft) Delete(key []byte) {
	d.mutations = append(d.mutations, Mutation{Key: key, Delete: true})
}

// Get returns the value of a key as the event has left it.
func (d *Draft) Get(key []byte) ([]byte, bool, error) {
	if m := d.written(key); m != nil {
		return m.Value, !m.Delete, nil
	}
	value, ok, err := d.view.Get(key)
	if err != nil {
		return nil, false, fmt.Errorf("read row %q: %w", key, err)
	}
	return value, ok, nil
}

// PutMessage writes a row that is a message.
func (d *Draft) PutMessage(key []byte, m proto.Message) error {
	value, err := proto.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode row %q: %w", key, err)
	}
	d.Put(key, value)
	return nil
}

// GetMessage reads a row that is a message, if it is there.
func (d *Draft) GetMessage(key []byte, m proto.Message) (bool, error) {
	value, ok, err := d.Get(key)
	if err != nil || !ok {
		return false, err
	}
	if err := proto.Unmarshal(value, m); err != nil {
		return false, fmt.Errorf("decode row %q: %w", key, err)
	}
	return true, nil
}

// DeleteRange deletes the first rows of a range, at most so many.
func (d *Draft) DeleteRange(lower, upper []byte, most int) (deleted int, err error) {
	var keys [][]byte
	err = d.Scan(lower, upper, func(key, _ []byte) bool {
		keys = append(keys, append([]byte(nil), key...))
		return len(keys) < most
	})
	if err != nil {
		return 0, err
	}
	for _, key := range keys {
		d.Delete(key)
	}
	return len(keys), nil
}

// written is the last mutation of a key, or nil. Most events have a handful, which are compared
// faster than hashed.
func (d *Draft) written(key []byte) *Mutation {
	const few = 16
	if len(d.mutations) <= few {
		for i := len(d.mutations) - 1; i >= 0; i-- {
			if m := &d.mutations[i]; string(m.Key) == string(key) {
				return m
			}
		}
		return nil
	}
	for ; d.indexed < len(d.mutations); d.indexed++ {
		d.index[string(d.mutations[d.indexed].Key)] = d.indexed
	}
	if i, ok := d.index[string(key)]; ok {
		return &d.mutations[i]
	}
	return nil
}

// Scan calls fn for lower ≤ key < upper, in ascending order, as the event has left them, until fn
// returns false. Ranges are short wherever an event both writes and scans them.
func (d *Draft) Scan(lower, upper []byte, fn func(key, value []byte) bool) error {
	var written []Mutation
	for _, m := range d.mutations {
		if string(m.Key) >= string(lower) && (upper == nil || string(m.Key) < string(upper)) {
			written = merge(written, m)
		}
	}
	stopped := false
	emit := func(m Mutation) bool {
		if !m.Delete && !fn(m.Key, m.Value) {
			stopped = true
		}
		return !stopped
	}
	err := d.view.Scan(lower, upper, func(key, value []byte) bool {
		for len(written) > 0 && string(written[0].Key) < string(key) {
			m := written[0]
			written = written[1:]
			if !emit(m) {
				return false
			}
		}
		if len(written) > 0 && string(written[0].Key) == string(key) {
			m := written[0]
			written = written[1:]
			return emit(m)
		}
		stopped = !fn(key, value)
		return !stopped
	})
	if err != nil {
		return fmt.Errorf("scan rows from %q: %w", lower, err)
	}
	for _, m := range written {
		if stopped || !emit(m) {
			break
		}
	}
	return nil
}

// merge inserts m in key order; a later write of the same key wins.
func merge(sorted []Mutation, m Mutation) []Mutation {
	for i := range sorted {
		switch {
		case string(sorted[i].Key) == string(m.Key):
			sorted[i] = m
			return sorted
		case string(sorted[i].Key) > string(m.Key):
			sorted = append(sorted, Mutation{})
			copy(sorted[i+1:], sorted[i:])
			sorted[i] = m
			return sorted
		}
	}
	return append(sorted, m)
}
