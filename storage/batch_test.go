package storage_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/perdure/perdure/storage"
)

func drawBatch(t *rapid.T) *storage.Batch {
	batch := new(storage.Batch)
	for range rapid.IntRange(0, 10).Draw(t, "writes") {
		key := rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "key")
		if rapid.Bool().Draw(t, "delete") {
			batch.Delete(key)
		} else {
			batch.Put(key, rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "value"))
		}
	}
	return batch
}

func decode(data []byte) (ops []storage.Op, err error) {
	err = storage.DecodeBatch(data, func(op storage.Op) { ops = append(ops, op) })
	return ops, err
}

func equalOp(a, b storage.Op) bool {
	return a.Delete == b.Delete && bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value)
}

func TestBatchEncoding(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		batch := drawBatch(t)
		data := batch.AppendEncoded([]byte("before"))
		if !bytes.HasPrefix(data, []byte("before")) {
			t.Fatalf("appending changed the start: %q", data)
		}
		data = data[len("before"):]
		ops, err := decode(data)
		if err != nil || !slices.EqualFunc(ops, batch.Ops(), equalOp) {
			t.Fatalf("decoded %v, %v, want %v", ops, err, batch.Ops())
		}
		// Encodings are concatenated when batches are merged.
		if ops, err := decode(append(slices.Clone(data), data...)); err != nil || len(ops) != 2*batch.Len() {
			t.Fatalf("decoding it twice over: %d writes, %v, want %d", len(ops), err, 2*batch.Len())
		}
		size := 0
		for _, op := range ops {
			size += len(op.Key) + len(op.Value)
		}
		if batch.Bytes() != size || batch.Len() != len(ops) {
			t.Fatalf("batch of %d writes, %d bytes, want %d, %d", batch.Len(), batch.Bytes(), len(ops), size)
		}
	})
}

// TestBatchEncodingCut cuts an encoding at every byte: the result is a shorter list of the same
// writes, where it ends between two, or ErrMalformed.
func TestBatchEncodingCut(t *testing.T) {
	batch := new(storage.Batch)
	batch.Put([]byte("key"), []byte("value"))
	batch.Delete([]byte("other"))
	batch.Put(nil, bytes.Repeat([]byte("v"), 200))
	data := batch.AppendEncoded(nil)
	whole := 0
	for end := range data {
		ops, err := decode(data[:end])
		if err == nil {
			whole++
		} else if !errors.Is(err, storage.ErrMalformed) || !strings.Contains(err.Error(), "offset") {
			t.Errorf("cut at %d: %v", end, err)
		}
		if len(ops) > 2 || !slices.EqualFunc(ops, batch.Ops()[:len(ops)], equalOp) {
			t.Errorf("cut at %d: decoded %v", end, ops)
		}
	}
	if whole != 3 { // after 0, 1 and 2 writes
		t.Errorf("%d cuts decode without error, want 3", whole)
	}
}

func FuzzDecodeBatch(f *testing.F) {
	batch := new(storage.Batch)
	batch.Put([]byte("key"), []byte("value"))
	batch.Delete([]byte("other"))
	f.Add(batch.AppendEncoded(nil))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}) // the largest length
	f.Add([]byte{0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02})
	f.Fuzz(func(t *testing.T, data []byte) {
		ops, err := decode(data)
		if err != nil {
			if !errors.Is(err, storage.ErrMalformed) {
				t.Errorf("%v, want %v", err, storage.ErrMalformed)
			}
			return
		}
		again := new(storage.Batch)
		for _, op := range ops {
			if op.Delete {
				again.Delete(op.Key)
			} else {
				again.Put(op.Key, op.Value)
			}
		}
		if ops2, err := decode(again.AppendEncoded(nil)); err != nil || !slices.EqualFunc(ops, ops2, equalOp) {
			t.Errorf("encoded again: %v, %v, want %v", ops2, err, ops)
		}
	})
}

func TestBatchReset(t *testing.T) {
	batch := new(storage.Batch)
	batch.Put([]byte("key"), []byte("value"))
	batch.Reset()
	if batch.Len() != 0 || batch.Bytes() != 0 || len(batch.AppendEncoded(nil)) != 0 {
		t.Errorf("after Reset: %d writes, %d bytes", batch.Len(), batch.Bytes())
	}
	batch.Delete([]byte("k"))
	if batch.Len() != 1 || batch.Bytes() != 1 || !equalOp(batch.Ops()[0], storage.Op{Key: []byte("k"), Delete: true}) {
		t.Errorf("after a write: %v", batch.Ops())
	}
}

func TestBatchCheckSizes(t *testing.T) {
	for _, test := range []struct {
		key, value int
		ok         bool
	}{
		{0, 0, true},
		{storage.MaxKeyBytes, storage.MaxValueBytes, true},
		{storage.MaxKeyBytes + 1, 0, false},
		{1, storage.MaxValueBytes + 1, false},
	} {
		batch := new(storage.Batch)
		batch.Put([]byte("first"), nil)
		batch.Put(make([]byte, test.key), make([]byte, test.value))
		if err := batch.CheckSizes(); errors.Is(err, storage.ErrTooLarge) == test.ok || test.ok != (err == nil) {
			t.Errorf("key of %d, value of %d bytes: %v", test.key, test.value, err)
		}
	}
}
