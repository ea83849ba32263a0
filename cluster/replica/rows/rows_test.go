package rows

import (
	"errors"
	"testing"
)

// TestFormats: a record has the newest format that whoever reads a feature level reads, and a newer one is refused by name.
func TestFormats(t *testing.T) {
	for level, want := range []byte{1, 1, 1, RecordFormat} {
		data := EncodeRecord(uint32(level), 7, 9, []byte("x"))
		if data[0] != want {
			t.Errorf("at feature level %d the format is %d, want %d", level, data[0], want)
		}
		r, err := DecodeRecord(data)
		if err != nil || r.Epoch != 7 || r.Sequence != 9 || string(r.Payload) != "x" {
			t.Errorf("format %d: %+v %v", data[0], r, err)
		}
		data[0] = RecordFormat + 1
		if _, err := DecodeRecord(data); !errors.Is(err, ErrNewerFormat) {
			t.Errorf("a format that is not known yet: %v", err)
		}
	}
}
