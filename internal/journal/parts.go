package journal

import (
	"fmt"
	"hash/crc32"
	"iter"

	"google.golang.org/protobuf/encoding/protowire"

	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// PartBytes is what each part of a value in parts has, but for the last: two are a full record,
// and one is a row that the store need not split.
const PartBytes = 240 << 10

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// PartsOf describes a value that is to be written in parts.
func PartsOf(value []byte) *recordv1.Parts {
	return &recordv1.Parts{
		Bytes: uint64(len(value)), Count: uint32((len(value) + PartBytes - 1) / PartBytes), Checksum: crc32.Checksum(value, castagnoli),
	}
}

// Split is the parts of a value by their numbers. They share its memory.
func Split(value []byte) iter.Seq2[uint32, []byte] {
	return func(yield func(uint32, []byte) bool) {
		for number := uint32(0); len(value) > 0; number++ {
			part := value[:min(PartBytes, len(value))]
			value = value[len(part):]
			if !yield(number, part) {
				return
			}
		}
	}
}

// Join is the value that was written in parts, which read returns from a number on: one or more,
// none if that one is missing. It fails if one is, or another than was written.
func Join(parts *recordv1.Parts, read func(first uint32) ([][]byte, error)) ([]byte, error) {
	var value []byte
	for number, count := uint32(0), parts.GetCount(); number < count; {
		found, err := read(number)
		if err == nil && len(found) == 0 {
			err = fmt.Errorf("part %d of %d is missing", number, count)
		}
		if err != nil {
			return nil, err
		}
		if value == nil { // The size is believed once there is something of it.
			value = make([]byte, 0, min(parts.GetBytes(), uint64(len(found[0]))*uint64(count)))
		}
		for _, part := range found[:min(len(found), int(count-number))] {
			value = append(value, part...)
			number++
		}
	}
	if uint64(len(value)) != parts.GetBytes() || crc32.Checksum(value, castagnoli) != parts.GetChecksum() {
		return nil, fmt.Errorf("its %d parts have %d bytes with the checksum %08x, and were written with %d and %08x",
			parts.GetCount(), len(value), crc32.Checksum(value, castagnoli), parts.GetBytes(), parts.GetChecksum())
	}
	return value, nil
}

// PartsIn is how many parts the row of a completion says that its value has, 0 if the value is in
// the row. It looks at nothing else of the row.
func PartsIn(completion []byte) (count uint32, err error) {
	parts, err := bytesField(completion, 4)
	if err != nil || parts == nil {
		return 0, err
	}
	return numberField(parts, 2)
}

// PartsTried is how many parts the row of a Run's tries says that there may be.
func PartsTried(tries []byte) (count uint32, err error) { return numberField(tries, 4) }

func bytesField(message []byte, wanted protowire.Number) (found []byte, err error) {
	err = eachField(message, func(number protowire.Number, kind protowire.Type, value []byte) {
		if number == wanted && kind == protowire.BytesType {
			found, _ = protowire.ConsumeBytes(value)
		}
	})
	return found, err
}

func numberField(message []byte, wanted protowire.Number) (found uint32, err error) {
	err = eachField(message, func(number protowire.Number, kind protowire.Type, value []byte) {
		if number == wanted && kind == protowire.VarintType {
			n, _ := protowire.ConsumeVarint(value)
			found = uint32(n)
		}
	})
	return found, err
}

func eachField(message []byte, fn func(number protowire.Number, kind protowire.Type, value []byte)) error {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return protowire.ParseError(n)
		}
		message = message[n:]
		if n = protowire.ConsumeFieldValue(number, kind, message); n < 0 {
			return protowire.ParseError(n)
		}
		fn(number, kind, message[:n])
		message = message[n:]
	}
	return nil
}
