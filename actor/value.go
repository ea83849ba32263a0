package actor

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// What Run and awakeables record is a Go value of any type: a message as a google.protobuf.Any,
// so that its type is checked and shown by tools, anything else as JSON. The two are told apart
// by the first byte: an Any starts with the tag of its type_url, a newline, which
// encoding/json never puts first.
const anyTag = '\n'

func encodeValue(value any) ([]byte, error) {
	message, ok := value.(proto.Message)
	if !ok || !message.ProtoReflect().IsValid() {
		data, err := json.Marshal(value)
		if err == nil && len(data) > 0 && data[0] == anyTag { // a json.RawMessage may be indented
			data = bytes.TrimLeft(data, "\n")
		}
		return data, err
	}
	return marshalAny(message)
}

// marshalAny is marshal of an Any with the message, which is in memory once instead of twice: it may be
// a gigabyte.
func marshalAny(message proto.Message) ([]byte, error) {
	url := "type.googleapis.com/" + string(message.ProtoReflect().Descriptor().FullName())
	size := proto.Size(message)
	data := make([]byte, 0, len(url)+size+2*(1+binary.MaxVarintLen64))
	data = protowire.AppendString(protowire.AppendTag(data, 1, protowire.BytesType), url)
	if size == 0 {
		return data, nil
	}
	data = protowire.AppendVarint(protowire.AppendTag(data, 2, protowire.BytesType), uint64(size))
	before := len(data)
	data, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(data, message)
	if err == nil && len(data)-before != size {
		err = fmt.Errorf("the message changed while it was encoded: it had %d bytes, and then %d", size, len(data)-before)
	}
	return data, err
}

// unmarshalAny is proto.Unmarshal of an Any whose value is in data, not a copy.
func unmarshalAny(data []byte) (*anypb.Any, error) {
	packed := new(anypb.Any)
	for len(data) > 0 {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		data = data[n:]
		if n = protowire.ConsumeFieldValue(number, kind, data); n < 0 {
			return nil, protowire.ParseError(n)
		}
		if field := data[:n]; kind == protowire.BytesType {
			switch value, _ := protowire.ConsumeBytes(field); number {
			case 1:
				packed.TypeUrl = string(value)
			case 2:
				packed.Value = value
			}
		}
		data = data[n:]
	}
	return packed, nil
}

func decodeValue[T any](data []byte) (value T, err error) {
	if len(data) == 0 { // an awakeable resolved with nothing
		return value, nil
	}
	if data[0] != anyTag {
		if empty, ok := any(value).(proto.Message); ok && !bytes.Equal(data, []byte("null")) {
			message := empty.ProtoReflect().New().Interface()
			if err := protojson.Unmarshal(data, message); err != nil {
				return value, fmt.Errorf("not a %s: %w", message.ProtoReflect().Descriptor().FullName(), err)
			}
			return message.(T), nil
		}
		if err := json.Unmarshal(data, &value); err != nil {
			return value, fmt.Errorf("not a %T: %w", value, err)
		}
		return value, nil
	}
	packed, err := unmarshalAny(data)
	if err != nil {
		return value, fmt.Errorf("not a message: %w", err)
	}
	var message proto.Message
	if empty, ok := any(value).(proto.Message); ok {
		message = empty.ProtoReflect().New().Interface()
		err = packed.UnmarshalTo(message)
	} else { // T is an interface
		message, err = packed.UnmarshalNew()
	}
	if err != nil {
		return value, fmt.Errorf("a recorded %s cannot be read: %w", packed.MessageName(), err)
	}
	value, ok := message.(T)
	if !ok {
		return value, fmt.Errorf("a recorded %s is not a %T", packed.MessageName(), value)
	}
	return value, nil
}
