package memstore

import (
	"bytes"
	"hash/crc32"
)

// node is an immutable treap node: a search tree by key, a heap by priority. A write copies the
// path to the root, so an old root remains a valid snapshot. Priorities are hashes of the keys,
// so the shape depends on the content only and not on the history or on chance.
type node struct {
	key, value  []byte
	sum         uint32 // of key and value, taken when they were committed
	priority    uint64
	left, right *node
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
}

// priorityOf is FNV-1a, mixed so that keys that differ in the last byte only spread as well.
func priorityOf(key []byte) uint64 {
	hash := uint64(14695981039346656037)
	for _, b := range key {
		hash = (hash ^ uint64(b)) * 1099511628211
	}
	hash = (hash ^ hash>>30) * 0xbf58476d1ce4e5b9
	hash = (hash ^ hash>>27) * 0x94d049bb133111eb
	return hash ^ hash>>31
}

func (n *node) get(key []byte) *node {
	for n != nil {
		switch order := bytes.Compare(key, n.key); {
		case order < 0:
			n = n.left
		case order > 0:
			n = n.right
		default:
			return n
		}
	}
	return nil
}

// put returns the tree with entry's key, value and sum.
func (n *node) put(entry *node) *node {
	if n == nil {
		return entry
	}
	order := bytes.Compare(entry.key, n.key)
	copied := *n
	switch {
	case order == 0:
		copied.key, copied.value, copied.sum = entry.key, entry.value, entry.sum
	case order < 0:
		copied.left = n.left.put(entry)
		if left := copied.left; left.priority > n.priority {
			// left is new, since an unchanged subtree cannot outrank its parent.
			copied.left = left.right
			left.right = &copied
			return left
		}
	default:
		copied.right = n.right.put(entry)
		if right := copied.right; right.priority > n.priority {
			copied.right = right.left
			right.left = &copied
			return right
		}
	}
	return &copied
}

// remove returns the tree without key.
func (n *node) remove(key []byte) *node {
	if n.get(key) == nil {
		return n // no copies for a key that is not there
	}
	return n.removePresent(key)
}

func (n *node) removePresent(key []byte) *node {
	order := bytes.Compare(key, n.key)
	if order == 0 {
		return merge(n.left, n.right)
	}
	copied := *n
	if order < 0 {
		copied.left = n.left.removePresent(key)
	} else {
		copied.right = n.right.removePresent(key)
	}
	return &copied
}

// merge joins two trees, all keys of left being below those of right.
func merge(left, right *node) *node {
	if left == nil {
		return right
	}
	if right == nil {
		return left
	}
	if left.priority > right.priority {
		copied := *left
		copied.right = merge(left.right, right)
		return &copied
	}
	copied := *right
	copied.left = merge(left, right.left)
	return &copied
}

// ascend calls fn with the nodes of lower ≤ key < upper, in order, until it returns false.
func (n *node) ascend(lower, upper []byte, fn func(*node) bool) bool {
	if n == nil {
		return true
	}
	aboveLower := bytes.Compare(n.key, lower) >= 0
	belowUpper := upper == nil || bytes.Compare(n.key, upper) < 0
	if aboveLower && !n.left.ascend(lower, upper, fn) {
		return false
	}
	if aboveLower && belowUpper && !fn(n) {
		return false
	}
	return !belowUpper || n.right.ascend(lower, upper, fn)
}
