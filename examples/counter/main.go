package main

import (
	"github.com/perdure/perdure/cluster"
	counter "github.com/perdure/perdure/examples/counter/gen/counter/v1/counterv1perdure"
)

func main() {
	cluster.Main(func(n *cluster.Node) { counter.RegisterCounterHandler(n, Counter{}) })
}
