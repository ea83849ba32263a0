package cluster_test

import (
	"crypto/tls"
	"strings"
	"testing"
	"time"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/cluster"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
)

func TestConfigValidateReportsAllProblems(t *testing.T) {
	if err := (cluster.Config{}).Validate(); err != nil {
		t.Errorf("the zero value: %v", err)
	}
	err := cluster.Config{
		Listen: "localhost", Partitions: 5000, MemoryBytes: 1 << 20, MaxMessageBytes: 1, MaxResultBytes: 1 << 20, MaxConcurrentCalls: -1,
		Middleware: []actor.Middleware{nil}, Headers: []string{"X-Fine", "Cookie", "*"},
		Retention: -time.Second, DrainTimeout: -time.Second,
		TLS:       &cluster.TLS{CertFile: "cert.pem", MinVersion: tls.VersionTLS10},
		Telemetry: cluster.Telemetry{TracesURL: "collector:4318", SampleRatio: 3},
	}.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	want := []string{
		`listen address "localhost" is not host:port`,
		"partitions is 5000; it must be from 1 to 1024",
		"memory is 1048576 bytes; it must be from 134217728",
		"max message bytes is 1; it must be from 1024",
		"max result bytes is 1048576; it must be from 2097152 to 2147483647",
		"max concurrent calls is -1",
		"middleware 1 is nil",
		"header cookie is a secret",
		`headers "*" are too many`,
		"retention is -1s",
		"drain timeout is -1s",
		"must both be set",
		"minimum version is TLS 1.0",
		`"collector:4318" is not http://host:port`,
		"sample ratio 3",
	}
	for _, text := range want {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("it does not say %q", text)
		}
	}
	if lines := strings.Split(err.Error(), "\n"); len(lines) != len(want) {
		t.Errorf("%d lines for %d problems:\n%v", len(lines), len(want), err)
	}
}

// TestStartReportsAllMistakes: configuration and registrations in one error, before anything
// is touched.
func TestStartReportsAllMistakes(t *testing.T) {
	dir := t.TempDir() + "/never"
	node := newNode(t, dir, cluster.WithPartitions(5000))
	bank.RegisterAccountHandler(node, accounts{})
	bank.RegisterTransferHandler(node, nil)
	err := node.Start(t.Context())
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"partitions is 5000", "AccountService: it is registered already", "TransferService: the handler is nil"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	if err := node.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "started before") {
		t.Errorf("a second start: %v", err)
	}
	if err := node.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}
