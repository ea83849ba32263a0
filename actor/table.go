package actor

import (
	"iter"

	"google.golang.org/protobuf/proto"
)

// TableReader reads a table: rows beside an object's state, each loaded when it is asked for.
type TableReader[V proto.Message] interface {
	// Get returns a copy of one row; ok is false if there is none.
	Get(key string) (row V, ok bool)
	// Len is the number of rows.
	Len() int
	// From iterates over copies of the rows whose key is at least key, in ascending order of keys
	// as bytes; "" is all rows. Rows that the loop changes further on are seen as they were or as
	// they are.
	From(key string) iter.Seq2[string, V]
}

// Table reads and writes a table. Writes take effect as those of [State] do.
type Table[V proto.Message] interface {
	TableReader[V]
	// Put replaces the row with what row is now. The key may be any string of at most 1,024 bytes.
	Put(key string, row V)
	// Delete removes the row, if there is one.
	Delete(key string)
}

// maxTableKeyBytes is the longest key of a row.
const maxTableKeyBytes = 1024

// TableOf is a table of the object whose handler runs. Generated contexts call it.
func TableOf[V proto.Message](ctx Context, name string) Table[V] {
	return tableHandle[V]{ctx.handler(), name}
}

// TableReaderOf is [TableOf] for READ handlers.
func TableReaderOf[V proto.Message](ctx Context, name string) TableReader[V] {
	return tableHandle[V]{ctx.handler(), name}
}

type tableHandle[V proto.Message] struct {
	handler *handlerContext
	name    string
}

func (t tableHandle[V]) Get(key string) (row V, ok bool) {
	data, ok := t.handler.runtime.TableGet(t.name, key)
	if !ok {
		return row, false
	}
	return t.decode(key, data), true
}

func (t tableHandle[V]) Len() int { return t.handler.runtime.TableLen(t.name) }

func (t tableHandle[V]) From(key string) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		t.handler.runtime.TableScan(t.name, key, func(at string, data []byte) bool {
			return yield(at, t.decode(at, data))
		})
	}
}

func (t tableHandle[V]) Put(key string, row V) {
	runtime := t.handler.runtime
	if !row.ProtoReflect().IsValid() {
		runtime.Fail(Errorf(Internal, "table %s: Put(%q, nil): use Delete to remove a row", t.name, key))
	}
	if len(key) > maxTableKeyBytes {
		runtime.Fail(Errorf(ResourceExhausted, "table %s: the key %.40q… has %d bytes; at most %d are allowed: use a hash of it, and keep the rest in the row", t.name, key, len(key), maxTableKeyBytes))
	}
	data, err := marshal(row)
	if err != nil {
		runtime.Fail(Errorf(Internal, "table %s: row %q cannot be encoded: %w", t.name, key, err))
	}
	runtime.TablePut(t.name, key, data, false)
}

func (t tableHandle[V]) Delete(key string) { t.handler.runtime.TablePut(t.name, key, nil, true) }

func (t tableHandle[V]) decode(key string, data []byte) V {
	row := newMessage[V]()
	if err := proto.Unmarshal(data, row); err != nil {
		described := t.handler.runtime.Invocation()
		t.handler.runtime.Fail(Errorf(DataLoss, "row %q in table %s of %s/%s is not a %s: %w", key, t.name, described.Method.Service, described.Key, row.ProtoReflect().Descriptor().FullName(), err))
	}
	gave(t.handler.runtime, t.name, key, row)
	return row
}
