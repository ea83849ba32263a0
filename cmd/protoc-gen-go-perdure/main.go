// Command protoc-gen-go-perdure is the plugin by which buf and protoc generate Go for services
// with perdure options. It goes after protoc-gen-go, which generates the messages:
//
//	plugins:
//	  - local: protoc-gen-go
//	    out: gen
//	    opt: paths=source_relative
//	  - local: protoc-gen-go-perdure
//	    out: gen
//	    opt: paths=source_relative
package main

import (
	"flag"

	"google.golang.org/protobuf/compiler/protogen"

	"github.com/perdure/perdure/codegen"
)

func main() {
	var flags flag.FlagSet
	suffix := flags.String("package_suffix", codegen.DefaultPackageSuffix,
		"added to the name of the messages' Go package; empty: generate into that package")
	protogen.Options{ParamFunc: flags.Set}.Run(func(plugin *protogen.Plugin) error {
		return codegen.Generate(plugin, codegen.Options{PackageSuffix: *suffix})
	})
}
