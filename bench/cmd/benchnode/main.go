// Command benchnode is a Perdure node with the benchmark's handlers and default settings. The bench command starts it;
// -help has its flags.
package main

import (
	"github.com/perdure/perdure/bench/internal/handlers"
	"github.com/perdure/perdure/cluster"
)

func main() {
	cluster.Main(func(node *cluster.Node) { handlers.Register(node) })
}
