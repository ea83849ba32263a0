package table

import (
	"bytes"
	"testing"
)

func TestStateVersion(t *testing.T) {
	for _, message := range [][]byte{nil, {8, 1}} {
		for _, version := range []uint32{1, 2, 300, 1<<32 - 1} {
			got, back, err := ParseState(AppendState(nil, version, message))
			if err != nil || got != version || !bytes.Equal(back, message) {
				t.Errorf("version %d of %x: %d %x %v", version, message, got, back, err)
			}
		}
	}
	if plain := AppendState(nil, 1, []byte{8, 1}); !bytes.Equal(plain, []byte{8, 1}) {
		t.Errorf("version 1 is not as it was: %x", plain)
	}
	for _, damaged := range [][]byte{{0}, {0, 0}, {0, 1, 8, 1}, {0, 0x80}, {0, 0xff, 0xff, 0xff, 0xff, 0x7f}} {
		if version, _, err := ParseState(damaged); err == nil {
			t.Errorf("%x is a state of version %d", damaged, version)
		}
	}
}
