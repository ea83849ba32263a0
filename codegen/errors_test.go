package codegen_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/perdure/perdure/codegen"
	"github.com/perdure/perdure/codegen/internal/descriptortest"
	"github.com/perdure/perdure/codegen/schema"
	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

// TestErrors generates from every testdata/errors/*.proto and compares what is said with the
// .want file beside it. A first line "// opt: package_suffix=x" sets that option.
func TestErrors(t *testing.T) {
	inputs, err := filepath.Glob("testdata/errors/*.proto")
	if err != nil || len(inputs) == 0 {
		t.Fatalf("no inputs: %v", err)
	}
	for _, input := range inputs {
		name := strings.TrimSuffix(filepath.Base(input), ".proto")
		t.Run(name, func(t *testing.T) {
			options := codegen.Options{PackageSuffix: codegen.DefaultPackageSuffix}
			source, err := os.ReadFile(input)
			if err != nil {
				t.Fatal(err)
			}
			if first, _, _ := strings.Cut(string(source), "\n"); strings.HasPrefix(first, "// opt: ") {
				options.PackageSuffix = strings.TrimPrefix(first, "// opt: package_suffix=")
			}
			set := descriptortest.Compile(t, map[string]string{name + ".proto": string(source)}, name+".proto")
			got := generateError(t, set, options, name+".proto") + "\n"
			want := "testdata/errors/" + name + ".want"
			if *update {
				if err := os.WriteFile(want, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			expected, err := os.ReadFile(want)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(expected) {
				t.Errorf("got\n%swant\n%s", got, expected)
			}
		})
	}
}

func generateError(t *testing.T, set *descriptorpb.FileDescriptorSet, options codegen.Options, path string) string {
	t.Helper()
	plugin := newPlugin(t, set, []string{path})
	err := codegen.Generate(plugin, options)
	var problems schema.Problems
	if !errors.As(err, &problems) {
		t.Fatalf("Generate returned %v, which is not schema.Problems", err)
	}
	if files := plugin.Response().File; len(files) > 0 {
		t.Errorf("Generate failed and yet generated %d files", len(files))
	}
	return problems.Error()
}

// TestNewerOptions has what a .proto text can't say to this version: options and enum numbers
// that a later options.proto may bring.
func TestNewerOptions(t *testing.T) {
	const source = `syntax = "proto3";
package t.v1;
import "perdure/v1/options.proto";
option go_package = "example.com/t/v1;tv1";
service A {
  option (perdure.v1.service).kind = OBJECT;
  rpc X(Req) returns (Res) { option (perdure.v1.method).mode = READ; }
}
message Req { string id = 1 [(perdure.v1.field).key = true]; }
message Res {}
`
	unknown := []byte{0xf8, 0x07, 1} // field 127, varint 1
	setUnknown := func(m proto.Message) { m.ProtoReflect().SetUnknown(unknown) }
	for _, test := range []struct {
		name, want string
		change     func(*perdurev1.ServiceOptions, *perdurev1.MethodOptions, *perdurev1.FieldOptions)
	}{
		{"kind", "t.v1.A: kind 9 is not known to this protoc-gen-go-perdure; update it",
			func(s *perdurev1.ServiceOptions, _ *perdurev1.MethodOptions, _ *perdurev1.FieldOptions) { s.Kind = 9 }},
		{"mode", "t.v1.A.X: mode 9 is not known to this protoc-gen-go-perdure; update it",
			func(_ *perdurev1.ServiceOptions, m *perdurev1.MethodOptions, _ *perdurev1.FieldOptions) { m.Mode = 9 }},
		{"on exhausted", "t.v1.A: defaults.retry.on_exhausted 9 is not known to this protoc-gen-go-perdure; update it",
			func(s *perdurev1.ServiceOptions, _ *perdurev1.MethodOptions, _ *perdurev1.FieldOptions) {
				s.Defaults = &perdurev1.HandlerOptions{Retry: &perdurev1.RetryPolicy{OnExhausted: 9}}
			}},
		{"service field", "t.v1.A: (perdure.v1.service) has a field that is not known to this protoc-gen-go-perdure; update it",
			func(s *perdurev1.ServiceOptions, _ *perdurev1.MethodOptions, _ *perdurev1.FieldOptions) {
				s.Defaults = &perdurev1.HandlerOptions{}
				setUnknown(s.Defaults)
			}},
		{"method field", "t.v1.A.X: (perdure.v1.method) has a field that is not known to this protoc-gen-go-perdure; update it",
			func(_ *perdurev1.ServiceOptions, m *perdurev1.MethodOptions, _ *perdurev1.FieldOptions) {
				setUnknown(m)
			}},
		{"field field", "t.v1.Req.id: (perdure.v1.field) has a field that is not known to this protoc-gen-go-perdure; update it",
			func(_ *perdurev1.ServiceOptions, _ *perdurev1.MethodOptions, f *perdurev1.FieldOptions) {
				setUnknown(f)
			}},
	} {
		t.Run(test.name, func(t *testing.T) {
			set := descriptortest.Compile(t, map[string]string{"t.proto": source}, "t.proto")
			file := set.File[len(set.File)-1]
			service, method, field := file.Service[0], file.Service[0].Method[0], file.MessageType[0].Field[0]
			s := proto.GetExtension(service.Options, perdurev1.E_Service).(*perdurev1.ServiceOptions)
			m := proto.GetExtension(method.Options, perdurev1.E_Method).(*perdurev1.MethodOptions)
			f := proto.GetExtension(field.Options, perdurev1.E_Field).(*perdurev1.FieldOptions)
			test.change(s, m, f)
			proto.SetExtension(service.Options, perdurev1.E_Service, s)
			proto.SetExtension(method.Options, perdurev1.E_Method, m)
			proto.SetExtension(field.Options, perdurev1.E_Field, f)
			got := generateError(t, set, codegen.Options{PackageSuffix: "perdure"}, "t.proto")
			if !strings.HasPrefix(got, "1 problem:\nt.proto:") || !strings.HasSuffix(got, ": "+test.want) {
				t.Errorf("got  %s\nwant … %s", got, test.want)
			}
		})
	}
}

func TestPackageSuffixMustMakeAPackageName(t *testing.T) {
	plugin := newPlugin(t, readImage(t, goldenImage), []string{"golden/services/v1/services.proto"})
	err := codegen.Generate(plugin, codegen.Options{PackageSuffix: "-perdure"})
	if err == nil || !strings.Contains(err.Error(), `package_suffix "-perdure"`) {
		t.Errorf("Generate returned %v", err)
	}
}
