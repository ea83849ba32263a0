package floor

import (
	"os"
	"testing"
	"time"
)

func TestAppendCountsAndCleansUp(t *testing.T) {
	dir := t.TempDir()
	perSecond, latency, err := Append(t.Context(), dir, 20*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if latency.Count() == 0 || perSecond <= 0 || latency.Quantile(0.5) <= 0 {
		t.Errorf("%d appends, %v per second, p50 %v", latency.Count(), perSecond, latency.Quantile(0.5))
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left %s behind", left[0].Name())
	}
	if _, _, err := Append(t.Context(), dir+"/absent", time.Millisecond); err == nil {
		t.Error("a directory that does not exist was accepted")
	}
}
