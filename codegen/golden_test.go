package codegen_test

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/cmd/protoc-gen-go/internal_gengo"
	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"

	"github.com/perdure/perdure/codegen"
)

var update = flag.Bool("update", false, "write what the tests got as what they expect from now on")

// The golden inputs use edition 2024, which only buf and protoc compile, so that their compiled
// form is kept beside them. `make generate` renews it:
//
//	buf build codegen/testdata/golden -o codegen/testdata/golden.binpb
const goldenImage = "testdata/golden.binpb"

const goldenModule = "github.com/perdure/perdure/codegen"

// TestGolden compares what is generated with the committed packages under internal/golden, which
// TestGeneratedCode compiles and calls.
func TestGolden(t *testing.T) {
	image := readImage(t, goldenImage)
	var shared, same []string
	for _, file := range image.File {
		switch {
		case strings.HasPrefix(file.GetName(), "golden/samepackage/"):
			same = append(same, file.GetName())
		case strings.HasPrefix(file.GetName(), "golden/"):
			shared = append(shared, file.GetName())
		}
	}
	if len(shared) != 4 || len(same) != 1 {
		t.Fatalf("%s has the files %v and %v; want 4 and 1", goldenImage, shared, same)
	}

	var got []string
	got = append(got, compareGolden(t, image, shared, codegen.Options{PackageSuffix: codegen.DefaultPackageSuffix})...)
	got = append(got, compareGolden(t, image, same, codegen.Options{})...)
	slices.Sort(got)

	var committed []string
	err := filepath.WalkDir("internal/golden", func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && strings.HasSuffix(path, ".go") {
			committed = append(committed, filepath.ToSlash(path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(committed)
	if !slices.Equal(got, committed) {
		t.Errorf("generated %v\nbut internal/golden has %v", got, committed)
	}
}

func compareGolden(t *testing.T, image *descriptorpb.FileDescriptorSet, files []string, options codegen.Options) []string {
	t.Helper()
	plugin := newPlugin(t, image, files)
	if err := codegen.Generate(plugin, options); err != nil {
		t.Fatal(err)
	}
	for _, file := range plugin.Files {
		if file.Generate {
			internal_gengo.GenerateFile(plugin, file)
		}
	}
	response := plugin.Response()
	if response.Error != nil {
		t.Fatal(response.GetError())
	}
	var names []string
	for _, file := range response.File {
		name := file.GetName()
		names = append(names, name)
		if *update {
			if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(name, []byte(file.GetContent()), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(name)
		if err != nil {
			t.Error(err)
			continue
		}
		if file.GetContent() != string(want) {
			t.Errorf("%s: %s\nif the change is meant: go test ./codegen -update", name, firstDifference(file.GetContent(), string(want)))
		}
	}
	return names
}

func readImage(t *testing.T, name string) *descriptorpb.FileDescriptorSet {
	t.Helper()
	encoded, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	image := new(descriptorpb.FileDescriptorSet)
	if err := proto.Unmarshal(encoded, image); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return image
}

func newPlugin(t *testing.T, image *descriptorpb.FileDescriptorSet, generate []string) *protogen.Plugin {
	t.Helper()
	// Through bytes, as a plugin gets it: only then are options what the plugin would see.
	encoded, err := proto.Marshal(&pluginpb.CodeGeneratorRequest{
		FileToGenerate: generate,
		ProtoFile:      image.File,
		Parameter:      proto.String("module=" + goldenModule),
	})
	if err != nil {
		t.Fatal(err)
	}
	request := new(pluginpb.CodeGeneratorRequest)
	if err := proto.Unmarshal(encoded, request); err != nil {
		t.Fatal(err)
	}
	plugin, err := protogen.Options{}.New(request)
	if err != nil {
		t.Fatal(err)
	}
	return plugin
}

func firstDifference(got, want string) string {
	gotLines, wantLines := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i, line := range gotLines {
		if i >= len(wantLines) || line != wantLines[i] {
			expected := "(the end)"
			if i < len(wantLines) {
				expected = wantLines[i]
			}
			return "line " + strconv.Itoa(i+1) + "\n got: " + line + "\nwant: " + expected
		}
	}
	return "ends early at line " + strconv.Itoa(len(gotLines))
}
