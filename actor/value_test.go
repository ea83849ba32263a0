package actor

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/apipb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type order struct {
	ID    string
	Items []int
	At    time.Time
}

func roundTrip[T any](t *testing.T, value T) {
	t.Helper()
	data, err := encodeValue(value)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeValue[T](data)
	if err != nil {
		t.Fatal(err)
	}
	if message, ok := any(value).(proto.Message); ok {
		if !proto.Equal(message, any(got).(proto.Message)) {
			t.Errorf("%v became %v", value, got)
		}
	} else if !reflect.DeepEqual(value, got) {
		t.Errorf("%#v became %#v", value, got)
	}
}

func TestValuesComeBackAsTheyWere(t *testing.T) {
	roundTrip(t, "text")
	roundTrip(t, int64(1)<<62)
	roundTrip(t, struct{}{})
	roundTrip(t, []byte{0, 1, 255})
	roundTrip(t, []string(nil))
	roundTrip(t, order{"1", []int{1, 2}, time.Unix(5, 6).UTC()})
	roundTrip(t, &order{ID: "2"})
	roundTrip(t, (*order)(nil))
	roundTrip(t, wrapperspb.String("message"))
	roundTrip(t, &apipb.Mixin{}) // an empty message is no missing one
	roundTrip(t, (*apipb.Mixin)(nil))
	roundTrip[proto.Message](t, wrapperspb.Int64(4))
	roundTrip(t, json.RawMessage(`{"a":1}`))
}

// TestValuesAreAny: what is written and read without a copy in between is a google.protobuf.Any.
func TestValuesAreAny(t *testing.T) {
	for _, message := range []proto.Message{&apipb.Mixin{}, &apipb.Mixin{Name: "n", Root: strings.Repeat("r", 300)}, wrapperspb.Bytes(make([]byte, 70_000))} {
		packed, err := anypb.New(message)
		if err != nil {
			t.Fatal(err)
		}
		want, err := marshal(packed)
		if err != nil {
			t.Fatal(err)
		}
		got, err := encodeValue(message)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%T is encoded as %.100q, not %.100q, %v", message, got, want, err)
		}
		unknown := protowire.AppendString(protowire.AppendTag(nil, 9, protowire.BytesType), "of a later version")
		unknown = protowire.AppendVarint(protowire.AppendTag(unknown, 1, protowire.VarintType), 3)
		for _, data := range [][]byte{want, append(unknown, want...), append(want[:len(want):len(want)], unknown...)} {
			if read, err := unmarshalAny(data); err != nil || read.GetTypeUrl() != packed.GetTypeUrl() || !bytes.Equal(read.GetValue(), packed.GetValue()) {
				t.Errorf("%.100q is read as %.100v, %v", data, read, err)
			}
		}
		for _, cut := range []int{1, len(want) - 1} {
			if read, err := unmarshalAny(want[:cut]); err == nil {
				t.Errorf("%.100q, which was cut, is read as %.100v", want[:cut], read)
			}
		}
	}
}

func TestValuesOfTheWrongType(t *testing.T) {
	data, err := encodeValue(wrapperspb.String("x"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decodeValue[*apipb.Mixin](data); err == nil || !strings.Contains(err.Error(), "google.protobuf.StringValue") {
		t.Error(err)
	}
	if _, err := decodeValue[int]([]byte(`"text"`)); err == nil {
		t.Error("text was read as a number")
	}
	if _, err := encodeValue(make(chan int)); err == nil {
		t.Error("a channel was encoded")
	}
}

// An awakeable is resolved by curl with the JSON form of a message.
func TestJSONBecomesAMessage(t *testing.T) {
	got, err := decodeAwakened[*apipb.Mixin]([]byte(`{"name":"a","root":"b"}`))
	if err != nil || got.Name != "a" || got.Root != "b" {
		t.Error(got, err)
	}
	if _, err := decodeAwakened[*apipb.Mixin]([]byte(`{"nope":1}`)); CodeOf(err) != InvalidArgument {
		t.Error(err)
	}
	data, err := encodeValue(json.RawMessage("\n {\"name\":\"a\"}"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := decodeAwakened[*apipb.Mixin](data); err != nil || got.Name != "a" {
		t.Error(got, err)
	}
	if got, err := decodeAwakened[string](nil); err != nil || got != "" {
		t.Error(got, err)
	}
}
