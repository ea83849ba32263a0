// Package drafttest has rows in memory for tests of what is evaluated over a draft.View.
package drafttest

import "slices"

// Rows are a draft.View by their keys. They are copied by maps.Clone; they are not safe for concurrent use
// while one user changes them.
type Rows map[string][]byte

// Get implements draft.View.
func (r Rows) Get(key []byte) ([]byte, bool, error) {
	value, ok := r[string(key)]
	return value, ok, nil
}

// Scan implements draft.View; nil for upper is no bound.
func (r Rows) Scan(lower, upper []byte, fn func(key, value []byte) bool) error {
	var keys []string
	for key := range r {
		if key >= string(lower) && (upper == nil || key < string(upper)) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	for _, key := range keys {
		if !fn([]byte(key), r[key]) {
			break
		}
	}
	return nil
}
