package actor

import (
	"bytes"
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
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
	data, err := marshal(message)
	if err != nil {
		return nil, err
	}
	return marshal(&anypb.Any{TypeUrl: "type.googleapis.com/" + string(message.ProtoReflect().Descriptor().FullName()), Value: data})
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
	packed := new(anypb.Any)
	if err := proto.Unmarshal(data, packed); err != nil {
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
