package transport_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/perdure/perdure/cluster/transport"
	"github.com/perdure/perdure/cluster/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func tcp(t *testing.T, config transport.Config) (transport.Messenger, string) {
	if config.Listen == "" {
		config.Listen = "127.0.0.1:0"
	}
	m, err := transport.New(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	return m, m.Addr().String()
}

func TestConformance(t *testing.T) {
	transporttest.Run(t, transporttest.Suite{Make: tcp, Bubble: func(t *testing.T, test func(*testing.T)) { test(t) }})
}
