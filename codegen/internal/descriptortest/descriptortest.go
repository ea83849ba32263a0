// Package descriptortest compiles .proto text for tests, without buf or protoc.
package descriptortest

import (
	"context"
	"maps"
	"testing"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	perdureproto "github.com/perdure/perdure/proto"
)

// Compile makes the descriptors of one file and all that it imports, each before what imports it,
// with source positions. files has texts by path; perdure's own files and google.protobuf's are
// there without being in it. Edition 2024 is not supported.
func Compile(t *testing.T, files map[string]string, path string) *descriptorpb.FileDescriptorSet {
	t.Helper()
	sources := maps.Clone(files)
	maps.Copy(sources, perdureproto.Sources())
	compiler := protocompile.Compiler{
		Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{
			Accessor: protocompile.SourceAccessorFromMap(sources),
		}),
		SourceInfoMode: protocompile.SourceInfoExtraOptionLocations,
	}
	compiled, err := compiler.Compile(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	set := new(descriptorpb.FileDescriptorSet)
	added := map[string]bool{}
	var add func(file protoreflect.FileDescriptor)
	add = func(file protoreflect.FileDescriptor) {
		if added[file.Path()] {
			return
		}
		added[file.Path()] = true
		for i := range file.Imports().Len() {
			add(file.Imports().Get(i).FileDescriptor)
		}
		set.File = append(set.File, protodesc.ToFileDescriptorProto(file))
	}
	add(compiled[0])

	// The compiler has messages of its own for options; decoding makes the generated ones.
	encoded, err := proto.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	decoded := new(descriptorpb.FileDescriptorSet)
	if err := proto.Unmarshal(encoded, decoded); err != nil {
		t.Fatal(err)
	}
	return decoded
}
