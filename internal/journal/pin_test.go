package journal

import (
	"strings"
	"testing"

	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

func TestPin(t *testing.T) {
	row := &recordv1.Invocation{}
	for i, step := range []struct {
		own     string
		entries uint32
		moved   bool
		earlier string
	}{
		{"a", 0, true, ""}, {"a", 3, false, ""}, {"b", 3, true, "a"}, {"b", 4, false, "a"}, {"a", 4, true, "a b"}, {"c", 4, true, "a b"},
		{"d", 4, true, "a b c"}, {"e", 4, true, "a b c d"}, {"f", 4, true, "a b c d e"}, {"g", 4, true, "a b c d e f"}, {"h", 4, true, "a b c d e f g"},
		{"i", 4, true, "a b c d e f g h"}, {"j", 4, true, "a c d e f g h i"}, {"k", 0, true, ""},
	} {
		moved := Pin(row, step.own, step.entries)
		if got := strings.Join(row.EarlierDeployments, " "); moved != step.moved || got != step.earlier || row.Deployment != step.own {
			t.Errorf("step %d: moved %t, %s after %s", i, moved, row.Deployment, got)
		}
	}
}
