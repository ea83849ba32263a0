// Package rows reads what a partition keeps of objects and invocations, for handlers and for those
// who look at it from outside.
package rows

import (
	"bytes"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

// Reader reads rows: the view as it is, or a snapshot.
type Reader interface {
	Get(key []byte) ([]byte, bool, error)
	Scan(lower, upper []byte, fn func(key, value []byte) bool) error
}

// Tables are those of one object.
func Tables(data Reader, object invocation.Object) invoker.Tables { return tables{data, object} }

// tables implements invoker.Tables for one object.
type tables struct {
	data   Reader
	object invocation.Object
}

// Get implements invoker.Tables.
func (t tables) Get(name, key string) ([]byte, bool, error) {
	return t.data.Get(table.Row(t.object, name, key))
}

// Len implements invoker.Tables.
func (t tables) Len(name string) (int, error) {
	value, _, err := t.data.Get(table.RowCount(t.object, name))
	if err != nil {
		return 0, err
	}
	n, err := table.ParseNumber(value)
	return int(n), err
}

// Scan implements invoker.Tables. The store's values are valid within fn only, and a handler's loop
// takes a page of rows before its body runs.
func (t tables) Scan(name, from string, fn func(key string, value []byte) bool) error {
	prefix := table.Rows(t.object, name)
	return t.data.Scan(table.Row(t.object, name, from), table.Successor(prefix), func(key, value []byte) bool {
		return fn(string(key[len(prefix):]), bytes.Clone(value))
	})
}

// Promise reads how promises of an object were completed.
func Promise(data Reader, object invocation.Object) func(name string) (*recordv1.Result, error) {
	return func(name string) (*recordv1.Result, error) {
		value, ok, err := data.Get(table.Promise(object, name))
		if err != nil || !ok {
			return nil, err
		}
		row := &recordv1.Promise{}
		if err := proto.Unmarshal(value, row); err != nil {
			return nil, fmt.Errorf("promise %s of %s: %w", name, object, err)
		}
		return row.Result, nil
	}
}

// Message reads the message in a row.
func Message(data Reader, key []byte, into proto.Message) (found bool, err error) {
	value, found, err := data.Get(key)
	if err != nil || !found {
		return false, err
	}
	return true, proto.Unmarshal(value, into)
}
