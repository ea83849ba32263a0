package replica

import (
	"bytes"
	"errors"
	"testing"

	"github.com/perdure/perdure/cluster/replica/rows"
	"github.com/perdure/perdure/storage"
)

// FuzzDecodeRecord reads arbitrary bytes as a log entry's data. What decodes must encode to
// something that decodes to the same, and must be refused or fit the limits.
func FuzzDecodeRecord(f *testing.F) {
	batch := new(storage.Batch)
	batch.Put([]byte("key"), []byte("value"))
	batch.Delete([]byte("other"))
	f.Add(rows.EncodeRecord(1, 3, 4, batch.AppendEncoded(nil)))
	f.Add(rows.EncodeRecord(1, 1<<63, ^uint64(0), nil))
	f.Add([]byte{rows.RecordFormat, 0x80})
	f.Add([]byte{rows.RecordFormat + 1, 1, 1})
	bounds := rows.Limits{Bytes: 1 << 10, Writes: 8}
	f.Fuzz(func(t *testing.T, data []byte) {
		rec, err := rows.DecodeRecord(data)
		if err != nil {
			if !errors.Is(err, errMalformed) && !errors.Is(err, ErrNewerFormat) {
				t.Errorf("decodeRecord: %v", err)
			}
			return
		}
		again, err := rows.DecodeRecord(rows.EncodeRecord(1, rec.Epoch, rec.Sequence, rec.Payload))
		if err != nil || again.Epoch != rec.Epoch || again.Sequence != rec.Sequence || !bytes.Equal(again.Payload, rec.Payload) {
			t.Errorf("encoded again: %+v, %v; want %+v", again, err, rec)
		}
		writes := 0
		if err := bounds.Check(rec.Payload); err != nil {
			return
		}
		if err := storage.DecodeBatch(rec.Payload, func(storage.Op) { writes++ }); err != nil || writes > bounds.Writes {
			t.Errorf("a payload passed with %d writes, %v", writes, err)
		}
	})
}

// FuzzDecodeApplied reads arbitrary bytes as a partition's applied index, and as a key of one.
func FuzzDecodeApplied(f *testing.F) {
	whole := applied{index: 9, term: 3, epoch: 3, sequence: 5, generation: 1, conf: []byte{0x0a, 1, 1}}
	f.Add(whole.appendEncoded(nil))
	f.Add([]byte{appliedFormat, 0, 0x80})
	f.Add(rows.Applied.Key(7))
	f.Fuzz(func(t *testing.T, data []byte) {
		if group, ok := rows.Applied.Group(data); ok && len(data) != len(rows.Applied.Key(group)) {
			t.Errorf("a key of %d bytes names group %d", len(data), group)
		}
		a, err := decodeApplied(data)
		if err != nil {
			if !errors.Is(err, errMalformed) && !errors.Is(err, ErrNewerFormat) {
				t.Errorf("decodeApplied: %v", err)
			}
			return
		}
		if conf, err := a.confState(); (conf == nil) != (err != nil) {
			t.Errorf("the configuration is %v, %v", conf, err)
		}
		again, err := decodeApplied(a.appendEncoded(nil))
		if err != nil || again.index != a.index || again.term != a.term || again.epoch != a.epoch ||
			again.sequence != a.sequence || again.generation != a.generation || !bytes.Equal(again.conf, a.conf) {
			t.Errorf("encoded again: %+v, %v; want %+v", again, err, a)
		}
	})
}
