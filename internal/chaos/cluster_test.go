//go:build linux

package chaos

import (
	"context"
	"testing"
	"time"
)

// TestCluster breaks the nodes of a cluster, the links between them where namespaces are
// permitted, and their disks where mounting is, and proves what TestKillUnderLoad and TestKillTransactions do for one node. Every
// object answers within the patience of callers once all is mended. Where links are not cut, what nodes say to each other is encrypted.
func TestCluster(t *testing.T) {
	length := *chaosFor
	if testing.Short() {
		length = min(length, 6*time.Second)
	}
	for _, way := range []struct {
		name    string
		cutting bool
		run     func(*testing.T, *lab, time.Duration)
	}{
		{"counters", true, func(t *testing.T, l *lab, length time.Duration) {
			random := choices(t)
			countUnderLoad(t, random, l.nodes, length, func(ctx context.Context) string { return l.torment(ctx, random) })
		}},
		{"transactions", true, func(t *testing.T, l *lab, length time.Duration) {
			random := choices(t)
			transactUnderLoad(t, random, l.nodes, length, func(ctx context.Context) string { return l.torment(ctx, random) })
		}},
		{"without namespaces", false, func(t *testing.T, l *lab, length time.Duration) {
			random := choices(t)
			countUnderLoad(t, random, l.nodes, length/2, func(ctx context.Context) string { return l.torment(ctx, random) })
		}},
		{"disks", false, func(t *testing.T, l *lab, length time.Duration) {
			random := choices(t)
			l.settled(3)
			check := countUnderLoad
			if random.IntN(2) == 0 {
				check = transactUnderLoad
			}
			check(t, random, l.nodes, length/5, func(ctx context.Context) string { return l.spoil(ctx, random) })
		}},
	} {
		t.Run(way.name, func(t *testing.T) {
			l := newLab(t, 3, way.cutting)
			if !way.cutting {
				l.secure()
			}
			if way.name == "disks" {
				l.mountDisks()
			}
			l.start()
			if !way.cutting {
				l.isSecure()
			}
			way.run(t, l, length)
		})
	}
}
