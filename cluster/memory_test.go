package cluster_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/cluster"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
)

// TestLittleMemory: a node starts with any allowed budget, and takes messages as large as it says.
func TestLittleMemory(t *testing.T) {
	for _, memory := range []int64{128 << 20, 129 << 20, 200 << 20, 300 << 20, 512 << 20} {
		var log bytes.Buffer
		node := newNode(t, t.TempDir(), cluster.WithMemory(memory), cluster.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
		startNode(t, node)
		atMost := int(memory / 512)
		large := &bankv1.DepositRequest{Amount: 1}
		large.ProtoReflect().SetUnknown(protowire.AppendBytes(protowire.AppendTag(nil, 99, protowire.BytesType), make([]byte, atMost-100)))
		sent, err := bank.Account(node.Client(), "a").DepositSend(t.Context(), large)
		if err == nil {
			_, err = sent.Attach(t.Context())
		}
		if err != nil {
			t.Errorf("memory %d: a message of about %d bytes: %v", memory, atMost, err)
		}
		stopNode(t, node)
		if told := strings.Contains(log.String(), "fewer bytes than usual"); told != (memory < 512<<20) {
			t.Errorf("memory %d: told: %v", memory, told)
		}
	}
}

// TestMessagesTooLargeForMemory: what was asked for is not made smaller silently.
func TestMessagesTooLargeForMemory(t *testing.T) {
	node := newNode(t, t.TempDir(), cluster.WithMemory(128<<20), cluster.WithMaxMessageBytes(1<<20))
	err := node.Start(t.Context())
	if err == nil || !strings.Contains(err.Error(), "max message bytes is 1048576, and with memory bytes 134217728 a record takes a message of at most") {
		t.Errorf("got %v", err)
	}
	if _, err := bank.Account(node.Client(), "a").Balance(t.Context(), &bankv1.BalanceRequest{}); actor.CodeOf(err) != actor.FailedPrecondition {
		t.Errorf("a call: %v", err)
	}
}
