// Command perdurevet finds mistakes in the handlers of perdure services: clocks, chance,
// goroutines and I/O where a journal is replayed, state that is changed and not Set, and the
// like.
//
//	perdurevet ./...
//	go vet -vettool=$(which perdurevet) ./...
//
// perdurevet help lists the rules; docs/guides/vet.md explains them. It exits with another code than 0 if it
// found something.
package main

import (
	"golang.org/x/tools/go/analysis/multichecker"

	"github.com/perdure/perdure/internal/vet"
)

func main() { multichecker.Main(vet.Analyzers()...) }
