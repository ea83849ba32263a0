package admin

import (
	"bytes"
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/perdure/perdure/actor"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

// What one value may take in an answer, as JSON.
const (
	maxPayloadBytes = 64 << 10
	maxEntryBytes   = 4 << 10
	maxStateBytes   = 4 << 20
)

// render is data, a message of the type that empty makes, as JSON; or a note why not.
func render(data []byte, empty func() proto.Message, limit int) (text, note string) {
	if len(data) > limit {
		return "", tooLarge(len(data), limit)
	}
	if empty == nil {
		return "", fmt.Sprintf("%s of a type that is not registered here", size(len(data)))
	}
	message := empty()
	if err := proto.Unmarshal(data, message); err != nil {
		return "", fmt.Sprintf("%s that are not a %s", size(len(data)), message.ProtoReflect().Descriptor().FullName())
	}
	encoded, err := protojson.Marshal(message)
	if err != nil {
		return "", fmt.Sprintf("%s that have no JSON form: %v", size(len(data)), err)
	}
	return compact(encoded, limit)
}

// compact also takes out the blanks that protojson adds at random.
func compact(encoded []byte, limit int) (text, note string) {
	var out bytes.Buffer
	if err := json.Compact(&out, encoded); err != nil {
		return "", fmt.Sprintf("%s that are not JSON", size(len(encoded)))
	}
	if out.Len() > limit {
		return "", tooLarge(out.Len(), limit)
	}
	return out.String(), ""
}

func tooLarge(bytes, limit int) string {
	return fmt.Sprintf("%s, left out: at most %s are shown", size(bytes), size(limit))
}

func size(bytes int) string {
	switch {
	case bytes >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20))
	case bytes >= 10<<10:
		return fmt.Sprintf("%.1f KiB", float64(bytes)/(1<<10))
	}
	return fmt.Sprintf("%d bytes", bytes)
}

// payload is a message of the type that empty makes.
func payload(data []byte, empty func() proto.Message, limit int) *adminv1.Payload {
	text, note := render(data, empty, limit)
	return &adminv1.Payload{Json: text, Note: note, SizeBytes: uint64(len(data))}
}

// goPayload is a value that a handler recorded with Run or an awakeable: JSON, or a message
// in an Any (see actor's value.go), which starts with a newline.
func goPayload(data []byte, limit int) *adminv1.Payload {
	p := &adminv1.Payload{SizeBytes: uint64(len(data))}
	switch {
	case len(data) == 0:
		p.Json = "null"
	case len(data) > limit:
		p.Note = tooLarge(len(data), limit)
	case data[0] != '\n':
		p.Json, p.Note = compact(data, limit)
	default:
		var packed anypb.Any
		if err := proto.Unmarshal(data, &packed); err != nil {
			p.Note = fmt.Sprintf("%s that are neither JSON nor a message", size(len(data)))
			break
		}
		message, err := packed.UnmarshalNew()
		if err != nil {
			p.Note = fmt.Sprintf("a %s, which this node does not know", packed.MessageName())
			break
		}
		encoded, err := protojson.Marshal(message)
		if err != nil {
			p.Note = fmt.Sprintf("a %s that has no JSON form: %v", packed.MessageName(), err)
			break
		}
		p.Json, p.Note = compact(encoded, limit)
	}
	return p
}

func requestOf(method *actor.MethodDesc) func() proto.Message {
	if method == nil {
		return nil
	}
	return method.NewRequest
}

func responseOf(method *actor.MethodDesc) func() proto.Message {
	if method == nil {
		return nil
	}
	return method.NewResponse
}

func failure(err *recordv1.Error) *adminv1.Error {
	if err == nil {
		return nil
	}
	return &adminv1.Error{Code: perdurev1.Code(err.GetCode()), Message: err.GetMessage(), Details: err.GetDetails()}
}
