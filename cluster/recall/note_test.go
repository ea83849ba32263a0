package recall_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/perdure/perdure/cluster/recall"
	"github.com/perdure/perdure/cluster/transport"
)

func TestNoteworthy(t *testing.T) {
	row := transport.LogClaim{Process: 1, Opened: 5, Durable: 100}
	for _, test := range []struct {
		said        transport.LogClaim
		gone, again bool
		want        bool
	}{
		{row, true, true, false},
		{transport.LogClaim{Process: 1, Opened: 5, Durable: 101}, true, false, true},
		{transport.LogClaim{Process: 1, Opened: 5, Durable: 101}, false, true, false},
		{transport.LogClaim{Process: 1, Opened: 5, Durable: 1100}, false, true, true},
		{transport.LogClaim{Process: 1, Opened: 5, Durable: 1100}, false, false, false},
		{transport.LogClaim{Process: 2, Opened: 100, Durable: 101}, false, false, true},
		{transport.LogClaim{Process: 2, Opened: 60, Durable: 200}, true, true, false}, // it is stale
	} {
		if got := recall.Noteworthy(row, test.said, test.gone, test.again); got != test.want {
			t.Errorf("%+v: %v", test, got)
		}
	}
}

func TestRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "refused")
	if err := recall.Refused(file); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(file, []byte("it is an earlier copy"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := recall.Refused(file); err == nil || !strings.Contains(err.Error(), "it is an earlier copy") || !strings.Contains(err.Error(), file) {
		t.Errorf("%v", err)
	}
}
