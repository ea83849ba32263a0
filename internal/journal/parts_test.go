package journal

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

func TestParts(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	for _, size := range []int{1, PartBytes - 1, PartBytes, PartBytes + 1, 3 * PartBytes, 3*PartBytes + 5} {
		value := make([]byte, size)
		for i := range value {
			value[i] = byte(random.Uint32())
		}
		of := PartsOf(value)
		var written [][]byte
		for number, part := range Split(value) {
			if int(number) != len(written) {
				t.Fatalf("part %d comes after %d others", number, len(written))
			}
			written = append(written, bytes.Clone(part))
		}
		if len(written) != int(of.Count) {
			t.Errorf("%d bytes: %d parts, and %d are said", size, len(written), of.Count)
		}
		read := func(first uint32) ([][]byte, error) {
			if written[first] == nil {
				return nil, nil
			}
			return written[first : first+1], nil
		}
		if got, err := Join(of, read); err != nil || !bytes.Equal(got, value) {
			t.Errorf("%d bytes come back as %d, %v", size, len(got), err)
		}
		if got, err := Join(of, func(first uint32) ([][]byte, error) { return append(written[first:], []byte("of another")), nil }); err != nil || !bytes.Equal(got, value) {
			t.Errorf("%d bytes, all parts read at once, come back as %d, %v", size, len(got), err)
		}
		last := len(written) - 1
		written[last][0]++
		if _, err := Join(of, read); err == nil || !strings.Contains(err.Error(), "checksum") {
			t.Errorf("%d bytes with another byte: %v", size, err)
		}
		written[last] = nil
		if _, err := Join(of, read); err == nil || !strings.Contains(err.Error(), "is missing") {
			t.Errorf("%d bytes without the last part: %v", size, err)
		}
		if _, err := Join(of, func(uint32) ([][]byte, error) { return nil, errRead }); !errors.Is(err, errRead) {
			t.Error(err)
		}
	}
	// A size that was never written is not believed before it is read.
	if _, err := Join(&recordv1.Parts{Bytes: 1 << 50, Count: 2}, func(uint32) ([][]byte, error) { return [][]byte{[]byte("x")}, nil }); err == nil {
		t.Error("two parts of a byte are a petabyte")
	}
}

var errRead = errors.New("the disk is gone")

// TestPartsInRows: what is read without decoding a row is what decoding it says.
func TestPartsInRows(t *testing.T) {
	for _, parts := range []*recordv1.Parts{nil, {}, {Count: 3, Bytes: 700_000, Checksum: 77}} {
		row, err := proto.Marshal(&recordv1.Completion{Entry: 9, At: 12345, Parts: parts, Result: &recordv1.Result{Value: bytes.Repeat([]byte{0x22, 2, 16, 5}, 9)}})
		if err != nil {
			t.Fatal(err)
		}
		if count, err := PartsIn(row); count != parts.GetCount() || err != nil {
			t.Errorf("%v: %d parts, %v", parts, count, err)
		}
		if count, err := PartsIn(row[:len(row)-1]); err == nil {
			t.Errorf("a row that was cut has %d parts", count)
		}
	}
	row, err := proto.Marshal(&recordv1.RunTries{Failed: 2, NextAt: 5, LastFailure: &recordv1.Error{Message: "no"}, Parts: 7})
	if err != nil {
		t.Fatal(err)
	}
	if count, err := PartsTried(row); count != 7 || err != nil {
		t.Errorf("%d parts, %v", count, err)
	}
}
