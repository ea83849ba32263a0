package codegen

import (
	"fmt"

	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/perdure/perdure/codegen/schema"
	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

// contextMethods are what every context has by itself. actor.Context is sealed and may get more
// methods; the last line keeps names free for them.
var contextMethods = map[string]bool{
	"Deadline": true, "Done": true, "Err": true, "Value": true,
	"InvocationID": true, "Attempt": true, "Logger": true, "Now": true, "Rand": true, "UUID": true,
	"Key": true, "State": true, "Context": true,
	"Caller": true, "Service": true, "Handler": true, "Deployment": true,
}

// nameProblems finds names that are fine in protobuf and meet in Go.
func nameProblems(files []*goFile) schema.Problems {
	var problems schema.Problems
	packages := map[protogen.GoImportPath]map[string]string{}
	for _, file := range files {
		taken := packages[file.importPath]
		if taken == nil {
			taken = map[string]string{}
			packages[file.importPath] = taken
		}
		if file.samePackage {
			takeMessageNames(taken, file.proto)
		}
		for _, service := range file.services {
			problem, collides := takePackageNames(taken, service)
			if !file.proto.Generate {
				continue
			}
			if collides {
				problems = append(problems, problem)
			}
			problems = append(problems, stubProblems(service)...)
			problems = append(problems, contextProblems(service)...)
		}
	}
	return problems
}

func takeMessageNames(taken map[string]string, file *protogen.File) {
	taken[file.GoDescriptorIdent.GoName] = file.Desc.Path()
	var takeEnums func(enums []*protogen.Enum)
	takeEnums = func(enums []*protogen.Enum) {
		for _, enum := range enums {
			name := string(enum.Desc.FullName())
			taken[enum.GoIdent.GoName] = name
			taken[enum.GoIdent.GoName+"_name"] = name
			taken[enum.GoIdent.GoName+"_value"] = name
			for _, value := range enum.Values {
				taken[value.GoIdent.GoName] = string(value.Desc.FullName())
			}
		}
	}
	var takeMessages func(messages []*protogen.Message)
	takeMessages = func(messages []*protogen.Message) {
		for _, message := range messages {
			taken[message.GoIdent.GoName] = string(message.Desc.FullName())
			taken[message.GoIdent.GoName+"_builder"] = string(message.Desc.FullName())
			takeEnums(message.Enums)
			takeMessages(message.Messages)
		}
	}
	takeEnums(file.Enums)
	takeMessages(file.Messages)
	for _, extension := range file.Extensions {
		taken["E_"+extension.GoIdent.GoName] = string(extension.Desc.FullName())
	}
}

// takePackageNames reports the first collision only: the others have the same cause.
func takePackageNames(taken map[string]string, service *goService) (schema.Problem, bool) {
	names := service.packageNames()
	for _, name := range names {
		if owner, ok := taken[name]; ok {
			return schema.Problemf(service.Desc, nil, "would generate the Go name %s, which %s has already; rename one of them", name, owner), true
		}
	}
	for _, name := range names {
		taken[name] = string(service.Desc.FullName())
	}
	return schema.Problem{}, false
}

func stubProblems(service *goService) schema.Problems {
	var problems schema.Problems
	made := map[string]*goMethod{}
	for _, method := range service.methods {
		for _, name := range method.stubNames() {
			if other, ok := made[name]; ok {
				problems = append(problems, schema.Problemf(method.Desc, nil, "the stub method %s is already made for rpc %s; rename one of them", name, other.Desc.Name()))
				break
			}
		}
		for _, name := range method.stubNames() {
			if made[name] == nil {
				made[name] = method
			}
		}
	}
	return problems
}

// contextProblems are about methods of the contexts, which are named by tables, promises and
// signals.
func contextProblems(service *goService) schema.Problems {
	var problems schema.Problems
	made := map[string]string{}
	take := func(desc protoreflect.Descriptor, within []int32, what, name string) {
		switch other, ok := made[name]; {
		case contextMethods[name]:
			problems = append(problems, schema.Problemf(desc, within, "%s would hide the context's own %s method; rename it", what, name))
		case ok:
			problems = append(problems, schema.Problemf(desc, within, "%s would make the context method %s, which %s makes already; rename one of them", what, name, other))
		default:
			made[name] = what
		}
	}
	for _, table := range service.tables {
		take(service.Desc, table.option, fmt.Sprintf("table %q", table.name), table.goName)
	}
	for _, promise := range service.promises {
		take(service.Desc, promise.option, fmt.Sprintf("promise %q", promise.name), promise.goName)
	}
	for _, method := range service.methods {
		if method.Mode == perdurev1.Mode_SIGNAL {
			take(method.Desc, nil, "the signal "+string(method.Desc.Name()), method.proto.GoName)
		}
	}
	return problems
}
