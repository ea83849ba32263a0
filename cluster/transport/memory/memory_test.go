package memory_test

import (
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/perdure/perdure/cluster/transport"
	"github.com/perdure/perdure/cluster/transport/memory"
	"github.com/perdure/perdure/cluster/transport/transporttest"
)

// factory makes transports of one network.
func factory(network *memory.Network) transporttest.Factory {
	next := 0
	return func(t *testing.T, config transport.Config) (transport.Messenger, string) {
		if config.Listen == "" {
			next++
			config.Listen = fmt.Sprintf("node-%d:1", next)
		}
		m, err := network.New(config)
		if err != nil {
			t.Fatal(err)
		}
		return m, config.Listen
	}
}

func TestConformance(t *testing.T) {
	transporttest.Run(t, transporttest.Suite{Make: factory(memory.NewNetwork(nil)), Bubble: func(t *testing.T, test func(*testing.T)) { synctest.Test(t, test) }})
}
