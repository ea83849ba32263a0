// Command benchnode is a Perdure node with the benchmark's handlers and default settings. The bench command starts it;
// -help has its flags. PERDURE_BENCH_PARTITIONS is how many partitions it founds a cluster with.
package main

import (
	"fmt"
	"os"
	"strconv"

	"github.com/perdure/perdure/bench/internal/handlers"
	"github.com/perdure/perdure/cluster"
)

func main() {
	var options []cluster.Option
	if text := os.Getenv("PERDURE_BENCH_PARTITIONS"); text != "" {
		count, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			fmt.Fprintf(os.Stderr, "benchnode: PERDURE_BENCH_PARTITIONS is %q; it must be a number\n", text)
			os.Exit(2)
		}
		options = append(options, cluster.WithPartitions(uint32(count)))
	}
	cluster.Main(func(node *cluster.Node) { handlers.Register(node) }, options...)
}
