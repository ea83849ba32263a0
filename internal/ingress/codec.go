package ingress

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// reply is a handler's response as the router gave it. The binary codec sends it as it is;
// decoding it just to encode it again would cost more than the rest of the call's answer.
type reply struct {
	value []byte
	empty func() proto.Message
}

func (r *reply) decode() (proto.Message, error) {
	message := r.empty()
	if err := proto.Unmarshal(r.value, message); err != nil {
		return nil, fmt.Errorf("the recorded response is not a %s: %w", message.ProtoReflect().Descriptor().FullName(), err)
	}
	return message, nil
}

// decodeError is a request that is not what it should be. Its text is for the caller.
type decodeError struct{ reason string }

func (e *decodeError) Error() string { return e.reason }

func notDecoded(message proto.Message, form string, err error) error {
	// protobuf writes "proto:" followed, at random, by a space or a no-break space, so that
	// nobody depends on the text. We only show it.
	reason := strings.ReplaceAll(err.Error(), "\u00a0", " ")
	reason = strings.TrimPrefix(reason, "proto: ")
	return &decodeError{fmt.Sprintf("the request is not a %s in %s: %s", message.ProtoReflect().Descriptor().FullName(), form, reason)}
}

var errNotMessage = errors.New("not a protobuf message")

// binaryCodec is connectproto.BinaryCodec that also sends a reply, and reads without a copy.
type binaryCodec struct{}

func (binaryCodec) Name() string   { return connect.CodecNameProto }
func (binaryCodec) IsBinary() bool { return true }

func (c binaryCodec) MarshalWrite(_ context.Context, dst io.Writer, message any) error {
	if r, ok := message.(*reply); ok {
		_, err := dst.Write(r.value)
		return err
	}
	m, ok := message.(proto.Message)
	if !ok {
		return fmt.Errorf("%T is %w", message, errNotMessage)
	}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return err
	}
	_, err = dst.Write(data)
	return err
}

// MarshalWriteStable is MarshalWrite, which is deterministic.
func (c binaryCodec) MarshalWriteStable(ctx context.Context, dst io.Writer, message any) error {
	return c.MarshalWrite(ctx, dst, message)
}

func (binaryCodec) UnmarshalRead(_ context.Context, src io.Reader, message any) error {
	m, ok := message.(proto.Message)
	if !ok {
		return fmt.Errorf("%T is %w", message, errNotMessage)
	}
	data, err := contents(src)
	if err != nil {
		return err
	}
	if err := proto.Unmarshal(data, m); err != nil {
		return notDecoded(m, "protobuf's binary form", err)
	}
	return nil
}

// jsonCodec is connectproto.JSONCodec that also sends a reply, reads without a copy, and says
// what it expected.
type jsonCodec struct {
	*connectproto.JSONCodec
}

func newJSONCodec() jsonCodec {
	codec := connectproto.NewJSONCodec()
	return jsonCodec{codec}
}

func (c jsonCodec) MarshalWrite(ctx context.Context, dst io.Writer, message any) error {
	if r, ok := message.(*reply); ok {
		decoded, err := r.decode()
		if err != nil {
			return err
		}
		message = decoded
	}
	return c.JSONCodec.MarshalWrite(ctx, dst, message)
}

func (c jsonCodec) UnmarshalRead(_ context.Context, src io.Reader, message any) error {
	m, ok := message.(proto.Message)
	if !ok {
		return fmt.Errorf("%T is %w", message, errNotMessage)
	}
	data, err := contents(src)
	if err != nil {
		return err
	}
	if len(data) == 0 {
		return &decodeError{"the request has no body: send at least {}"}
	}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(data, m); err != nil {
		return notDecoded(m, "JSON", err)
	}
	return nil
}

// contents is all of src. Connect gives codecs what it has buffered, which need not be copied
// into a second buffer.
func contents(src io.Reader) ([]byte, error) {
	if buffered, ok := src.(*bytes.Buffer); ok {
		return buffered.Bytes(), nil
	}
	return io.ReadAll(src)
}
