package compat

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/perdure/perdure/codegen/internal/descriptortest"
)

var update = flag.Bool("update", false, "write what the tests got as what they expect from now on")

// TestCompare compares the .proto texts "old" and "new" of every testdata/*.txtar; "want" has the
// changes, a line each.
func TestCompare(t *testing.T) {
	names, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(names) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if len(archive.Files) != 3 {
				t.Fatalf("%s has %d parts, want old, new and want", name, len(archive.Files))
			}
			changes, err := Compare(compile(t, archive.Files[0].Data), compile(t, archive.Files[1].Data))
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			for _, change := range changes {
				got.WriteString(change.String() + "\n")
			}
			if *update {
				archive.Files[2].Data = []byte(got.String())
				if err := os.WriteFile(name, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if want := string(archive.Files[2].Data); got.String() != want {
				t.Errorf("got\n%swant\n%s", got.String(), want)
			}
		})
	}
}

func compile(t *testing.T, source []byte) []byte {
	t.Helper()
	return marshal(t, descriptortest.Compile(t, map[string]string{"t/v1/t.proto": string(source)}, "t/v1/t.proto"))
}

func marshal(t *testing.T, set *descriptorpb.FileDescriptorSet) []byte {
	t.Helper()
	encoded, err := proto.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}

// TestCompareImage has what buf makes, with edition 2024 and option imports in it.
func TestCompareImage(t *testing.T) {
	image, err := os.ReadFile("../testdata/golden.binpb")
	if err != nil {
		t.Fatal(err)
	}
	changes, err := Compare(image, image)
	if err != nil || len(changes) > 0 {
		t.Errorf("Compare with itself returned %v, %v", changes, err)
	}
}

func TestCompareRefuses(t *testing.T) {
	const invalid = `syntax = "proto3";
package t.v1;
import "perdure/v1/options.proto";
service A { option (perdure.v1.service).kind = OBJECT; }
`
	incomplete := marshal(t, &descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{{
		Name: proto.String("a.proto"), Dependency: []string{"missing.proto"},
	}}})
	good := compile(t, []byte("syntax = \"proto3\";\npackage t.v1;\n"))
	for _, test := range []struct {
		name string
		old  []byte
		want string
	}{
		{"garbage", []byte("syntax = \"proto3\";"), "old: not an encoded FileDescriptorSet"},
		{"empty", nil, "old: the FileDescriptorSet has no files"},
		{"incomplete", incomplete, "--include_imports"},
		{"invalid", compile(t, []byte(invalid)), "old: 1 problem:\nt/v1/t.proto:4:1: t.v1.A: a perdure service needs at least one rpc"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := Compare(test.old, good)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Compare returned %v, want … %s", err, test.want)
			}
		})
	}
}
