package vfs

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// TestContentIsAsIfItWereWhole does the same to a content and to all of its bytes.
func TestContentIsAsIfItWereWhole(t *testing.T) {
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 0))
		var c content
		var whole []byte
		for step := range 60 {
			before, wholeBefore := c.clone(), bytes.Clone(whole)
			switch at := random.IntN(300); random.IntN(4) {
			case 0:
				c = c.resized(int64(at))
				whole = append(whole, make([]byte, max(at-len(whole), 0))...)[:at]
			case 1:
				if at < len(whole) {
					c = c.flip(int64(at), 3)
					whole[at] ^= 8
				}
			default:
				p := bytes.Repeat([]byte{byte(1 + step)}, random.IntN(50))
				c = c.written(p, int64(at))
				if len(p) > 0 {
					whole = append(whole, make([]byte, max(at+len(p)-len(whole), 0))...)
					copy(whole[at:], p)
				}
			}
			if len(whole) > 0 {
				from := random.IntN(len(whole))
				part := bytes.Repeat([]byte{0xff}, random.IntN(100))
				if n := c.readAt(part, int64(from)); !bytes.Equal(part[:n], whole[from:min(from+len(part), len(whole))]) {
					t.Fatalf("seed %d, step %d: from %d it reads %x of %x", seed, step, from, part[:n], whole)
				}
			}
			if c.size != int64(len(whole)) || int64(len(c.data)) > c.size || !bytes.Equal(c.all(), whole) {
				t.Fatalf("seed %d, step %d: it has %x, not %x", seed, step, c.all(), whole)
			}
			if !bytes.Equal(before.all(), wholeBefore) {
				t.Fatalf("seed %d, step %d: a copy was changed too", seed, step)
			}
		}
	}
}

// TestPreallocatedIsSmall: what a file was only given takes no memory.
func TestPreallocatedIsSmall(t *testing.T) {
	mem := NewMem()
	file := mustCreate(t, mem, "d/log")
	if err := file.Preallocate(1 << 30); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, file, []byte("record"), 100)
	if err := file.Sync(); err != nil {
		t.Fatal(err)
	}
	node := mem.mu.dir["d/log"]
	if size, err := file.Size(); size != 1<<30 || err != nil || cap(node.live.data)+cap(node.durable.data) > 10_000 {
		t.Errorf("%d bytes (%v) take %d and %d", size, err, cap(node.live.data), cap(node.durable.data))
	}
}
