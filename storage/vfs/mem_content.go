package vfs

import "bytes"

// content is what a file of a Mem holds.
type content struct {
	// data is the beginning, up to the last byte that was written; what follows up to size is zero. A log takes
	// its segments beforehand, in megabytes: to fill and copy them took much of the time of tests with a node
	// in memory, most of it under the race detector.
	//
	// Invariant: len(data) <= size.
	data []byte
	size int64
}

func (c content) clone() content { return content{bytes.Clone(c.data), c.size} }

// all returns a copy of every byte.
func (c content) all() []byte {
	whole := make([]byte, c.size)
	copy(whole, c.data)
	return whole
}

// readAt copies what is there from offset on, which is below size, and returns how much that is.
func (c content) readAt(p []byte, offset int64) int {
	p = p[:min(int64(len(p)), c.size-offset)]
	n := 0
	if offset < int64(len(c.data)) {
		n = copy(p, c.data[offset:])
	}
	clear(p[n:])
	return len(p)
}

// resized cuts the end off, or adds zeros.
func (c content) resized(size int64) content {
	if size < int64(len(c.data)) {
		c.data = c.data[:size] // what is written behind it later writes zeros over what is cut off
	}
	c.size = size
	return c
}

// written has p at offset. It may change the bytes of c.
func (c content) written(p []byte, offset int64) content {
	if len(p) == 0 {
		return c
	}
	end := offset + int64(len(p))
	if missing := end - int64(len(c.data)); missing > 0 {
		c.data = append(c.data, make([]byte, missing)...)
	}
	copy(c.data[offset:], p)
	c.size = max(c.size, end)
	return c
}

// flip inverts a bit of the byte at offset, which is below size.
func (c content) flip(offset int64, bit uint) content {
	var one [1]byte
	c.readAt(one[:], offset)
	one[0] ^= 1 << bit
	return c.written(one[:], offset)
}
