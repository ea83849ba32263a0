package wire

import (
	"errors"
	"reflect"
	"testing"
)

func TestPosition(t *testing.T) {
	p := Position{Chunks: 1, Rows: 300, Bytes: 1 << 40, Sum: 1<<32 - 1}
	data := AppendPosition(nil, p)
	if got, err := DecodePosition(data); err != nil || got != p {
		t.Errorf("got %+v, %v", got, err)
	}
	for n := range data {
		if _, err := DecodePosition(data[:n]); !errors.Is(err, ErrMalformed) {
			t.Errorf("%d bytes of it: %v", n, err)
		}
	}
	if _, err := DecodePosition(append(data, 0)); !errors.Is(err, ErrMalformed) {
		t.Errorf("with more behind it: %v", err)
	}
}

// TestIdentity: it is that of the snapshot, and not of the stream.
func TestIdentity(t *testing.T) {
	header := Header{Life: 4, Applied: []byte("at"), Message: []byte("message"), Number: 7}
	for _, other := range []Header{
		{Life: 5, Applied: []byte("at"), Message: []byte("message"), Number: 7},
		{Life: 4, Applied: []byte("as"), Message: []byte("message"), Number: 7},
		{Life: 4, Applied: []byte("at"), Message: []byte("massage"), Number: 7},
		{Life: 4, Applied: []byte("at"), Message: []byte("message"), Number: 8},
	} {
		if other.Identity() == header.Identity() {
			t.Errorf("%+v is taken for %+v", other, header)
		}
	}
	asking := header
	asking.Asks, asking.Skip = true, 9
	if asking.Identity() != header.Identity() {
		t.Error("a stream of the same snapshot is taken for one of another")
	}
	if got, err := DecodeHeader(AppendHeader(nil, asking)); err != nil || !reflect.DeepEqual(got, asking) {
		t.Errorf("got %+v, %v", got, err)
	}
}

// TestGoOn: a snapshot that is read on from any chunk is whole, and not if a chunk is missing or read twice.
func TestGoOn(t *testing.T) {
	sent, _ := chunks(7)
	for cut := range sent {
		var before Totals
		for _, chunk := range sent[:cut] {
			if err := before.Read(chunk, func(_, _ []byte) {}); err != nil {
				t.Fatal(err)
			}
		}
		for from := range sent {
			after := Totals{Position: before.Position}
			var err error
			for _, chunk := range sent[from:] {
				if err = after.Read(chunk, func(_, _ []byte) {}); err != nil {
					break
				}
			}
			if whole := err == nil && after.Ended(); whole != (from == cut) {
				t.Errorf("cut before chunk %d and gone on from chunk %d: whole is %v (%v)", cut, from, whole, err)
			}
		}
	}
}

func TestBeat(t *testing.T) {
	beat := Beat{Number: 300, Groups: []BeatGroup{{Group: 1, Term: 2, Index: 1 << 40}, {Group: 1<<32 - 1, Term: 1, Index: 0}}}
	data := AppendBeat(nil, beat)
	if got, err := DecodeBeat(data); err != nil || !reflect.DeepEqual(got, beat) {
		t.Errorf("got %+v, %v", got, err)
	}
	for n := range data {
		if _, err := DecodeBeat(data[:n]); !errors.Is(err, ErrMalformed) {
			t.Errorf("%d bytes of it: %v", n, err)
		}
	}
	echo := Echo{Number: 300, Not: []uint32{7, 1<<32 - 1}}
	data = AppendEcho(nil, echo)
	if got, err := DecodeEcho(data); err != nil || !reflect.DeepEqual(got, echo) {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := DecodeEcho(data[:len(data)-1]); !errors.Is(err, ErrMalformed) {
		t.Errorf("an echo cut short: %v", err)
	}
}
