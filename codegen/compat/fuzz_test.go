package compat

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

// FuzzCompare compares arbitrary bytes. Whatever they are, the result is changes or an error,
// and nothing has changed between a schema and itself.
func FuzzCompare(f *testing.F) {
	// Small, for the fuzzer is the faster the smaller they are; those of testdata are not.
	var seeds [][]byte
	for _, set := range []*descriptorpb.FileDescriptorSet{
		small(perdurev1.Kind_OBJECT, "State"), small(perdurev1.Kind_OBJECT, ""), small(perdurev1.Kind_WORKFLOW, "State"),
		small(perdurev1.Kind_OBJECT, "Nope"), {File: []*descriptorpb.FileDescriptorProto{{}}},
	} {
		encoded, err := proto.Marshal(set)
		if err != nil {
			f.Fatal(err)
		}
		seeds = append(seeds, encoded)
	}
	if changes, err := Compare(seeds[0], seeds[1]); err != nil || len(changes) == 0 {
		f.Fatalf("the seeds are no schemas: %v, %v", changes, err)
	}
	for i, seed := range seeds {
		f.Add(seed, seed)
		f.Add(seed, seeds[(i+1)%len(seeds)])
	}
	f.Add([]byte{}, seeds[0])
	f.Fuzz(func(t *testing.T, previous, next []byte) {
		for _, change := range compareAll(t, previous, next) {
			if change.String() == "" || change.Message == "" {
				t.Errorf("a change without a word: %+v", change)
			}
		}
		if changes, err := Compare(next, next); err == nil && len(changes) > 0 {
			t.Errorf("nothing changed, and yet: %v", changes)
		}
	})
}

func compareAll(t *testing.T, previous, next []byte) []Change {
	changes, err := Compare(previous, next)
	if err != nil && (err.Error() == "" || len(changes) > 0) {
		t.Errorf("%d changes and error %q", len(changes), err)
	}
	return changes
}

// small is a schema with options and without imports.
func small(kind perdurev1.Kind, state string) *descriptorpb.FileDescriptorSet {
	options := &descriptorpb.ServiceOptions{}
	proto.SetExtension(options, perdurev1.E_Service, &perdurev1.ServiceOptions{Kind: kind, State: state})
	key := &descriptorpb.FieldOptions{}
	proto.SetExtension(key, perdurev1.E_Field, &perdurev1.FieldOptions{Key: true})
	return &descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{{
		Name: proto.String("t.proto"), Package: proto.String("t.v1"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{
			{Name: proto.String("State")},
			{Name: proto.String("Request"), Field: []*descriptorpb.FieldDescriptorProto{{
				Name: proto.String("key"), JsonName: proto.String("key"), Number: proto.Int32(1), Options: key,
				Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
			}}},
		},
		Service: []*descriptorpb.ServiceDescriptorProto{{
			Name: proto.String("TService"), Options: options,
			Method: []*descriptorpb.MethodDescriptorProto{{
				Name: proto.String("Run"), InputType: proto.String(".t.v1.Request"), OutputType: proto.String(".t.v1.State"),
			}},
		}},
	}}}
}
