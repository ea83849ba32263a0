package actor

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
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
