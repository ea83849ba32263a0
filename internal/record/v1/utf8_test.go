package recordv1

import (
	"testing"

	"google.golang.org/protobuf/proto"
)

// A row of a table may have any key: a record that refused it would cost its partition a
// leadership for what a user named a row.
func TestTableKeysAreBytes(t *testing.T) {
	put := &Entry{Entry: &Entry_TablePut{TablePut: &TablePut{Table: "t", Key: "\xff\x00"}}}
	data, err := proto.Marshal(put)
	if err != nil {
		t.Fatal(err)
	}
	got := &Entry{}
	if err := proto.Unmarshal(data, got); err != nil || got.GetTablePut().GetKey() != "\xff\x00" {
		t.Errorf("%q, %v", got.GetTablePut().GetKey(), err)
	}
}
