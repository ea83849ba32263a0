// Package codegen turns protobuf services with perdure options into Go: the interface a handler
// implements, the contexts it gets, and the stub that calls it.
package codegen

import (
	"fmt"
	"go/token"
	"path"
	"slices"

	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"

	"github.com/perdure/perdure/codegen/schema"
)

// DefaultPackageSuffix makes bankv1perdure of bankv1.
const DefaultPackageSuffix = "perdure"

// Options are what the plugin's opt lines in buf.gen.yaml can set.
type Options struct {
	// PackageSuffix is added to the name of the messages' Go package to name the generated one,
	// which is put in a folder of that name inside theirs. Empty: the code goes into the
	// messages' own package, whose names it must then not collide with.
	PackageSuffix string
}

// Generate adds one Go file to the plugin's response for every requested .proto file that has a
// perdure service. If anything is wrong with the input, it generates nothing and returns
// [schema.Problems] with all that is wrong in all files.
func Generate(plugin *protogen.Plugin, options Options) error {
	plugin.SupportedFeatures = uint64(pluginpb.CodeGeneratorResponse_FEATURE_PROTO3_OPTIONAL |
		pluginpb.CodeGeneratorResponse_FEATURE_SUPPORTS_EDITIONS)
	plugin.SupportedEditionsMinimum = descriptorpb.Edition_EDITION_PROTO2
	plugin.SupportedEditionsMaximum = descriptorpb.Edition_EDITION_2024
	if options.PackageSuffix != "" && !token.IsIdentifier("x"+options.PackageSuffix) {
		return fmt.Errorf("package_suffix %q would make no Go package name; use letters and digits", options.PackageSuffix)
	}

	messages := indexMessages(plugin)
	var problems schema.Problems
	var files []*goFile
	for _, file := range plugin.Files {
		services, found := schema.Read(file.Desc)
		if file.Generate {
			problems = append(problems, found...)
		}
		if len(services) == 0 {
			continue
		}
		files = append(files, newGoFile(messages, file, services, options))
	}
	problems = append(problems, nameProblems(files)...)
	if len(problems) > 0 {
		problems.Sort()
		return problems
	}

	documented := map[protogen.GoImportPath]bool{}
	for _, file := range files {
		if !file.proto.Generate {
			continue
		}
		file.generate(plugin, !documented[file.importPath])
		documented[file.importPath] = true
	}
	return nil
}

// goFile is one file to generate.
type goFile struct {
	proto       *protogen.File
	services    []*goService
	packageName string
	importPath  protogen.GoImportPath
	name        string
	// The messages are in the same Go package.
	samePackage bool
}

func newGoFile(messages messageIndex, file *protogen.File, services []*schema.Service, options Options) *goFile {
	f := &goFile{
		proto:       file,
		packageName: string(file.GoPackageName) + options.PackageSuffix,
		importPath:  file.GoImportPath,
		name:        file.GeneratedFilenamePrefix + ".perdure.go",
		samePackage: options.PackageSuffix == "",
	}
	if !f.samePackage {
		f.importPath = protogen.GoImportPath(path.Join(string(file.GoImportPath), f.packageName))
		dir, base := path.Split(f.name)
		f.name = path.Join(dir, f.packageName, base)
	}
	for _, service := range services {
		i := slices.IndexFunc(file.Services, func(s *protogen.Service) bool { return s.Desc.FullName() == service.Desc.FullName() })
		f.services = append(f.services, newGoService(messages, file.Services[i], service))
	}
	return f
}

// messageIndex has the Go name of every message of the run. Options refer to messages by name
// only, so protogen makes no link to them.
type messageIndex map[protoreflect.FullName]protogen.GoIdent

func indexMessages(plugin *protogen.Plugin) messageIndex {
	index := messageIndex{}
	var add func(messages []*protogen.Message)
	add = func(messages []*protogen.Message) {
		for _, message := range messages {
			index[message.Desc.FullName()] = message.GoIdent
			add(message.Messages)
		}
	}
	for _, file := range plugin.Files {
		add(file.Messages)
	}
	return index
}
