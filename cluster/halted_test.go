package cluster_test

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/perdure/perdure/cluster"
	"github.com/perdure/perdure/storage/nodelog"
)

// damage appends an entry to a partition's log that nobody can read.
func damage(t *testing.T, dir string, partitions ...uint32) {
	t.Helper()
	log, err := nodelog.Open(nodelog.Options{Dir: filepath.Join(dir, "log")})
	if err != nil {
		t.Fatal(err)
	}
	for _, partition := range partitions {
		_, last := log.Bounds(partition)
		term, err := log.Term(partition, last)
		if err != nil {
			t.Fatal(err)
		}
		if err := log.Append([]nodelog.GroupWrite{{Group: partition, Entries: []nodelog.Entry{{Index: last + 1, Term: term, Data: []byte{255, 0x80}}}}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestDamagedPartition: a node starts with what it can serve, and says what it can't.
func TestDamagedPartition(t *testing.T) {
	dir := t.TempDir()
	node := newNode(t, dir)
	startNode(t, node)
	stopNode(t, node)
	damage(t, dir, 3)

	node = newNode(t, dir)
	startNode(t, node)
	served, refused := 0, 0
	for i := range 64 {
		status, body := request(t, node.URL()+depositPath, fmt.Sprintf(`{"accountId":"account %d","amount":"1"}`, i))
		switch {
		case status == http.StatusOK:
			served++
		case status == http.StatusServiceUnavailable && strings.Contains(body, "partition 3"):
			refused++
		default:
			t.Errorf("got %d %s", status, body)
		}
	}
	if served < 32 || refused == 0 {
		t.Errorf("%d calls were served and %d refused, with one of 8 partitions damaged", served, refused)
	}
	for path, want := range map[string]string{"/readyz": "ready\npartition 3 has no leader: ", "/healthz": "ok\npartition 3 has no leader: "} {
		response, err := http.Get(node.URL() + path)
		if err != nil {
			t.Fatal(err)
		}
		body := new(strings.Builder)
		if err := response.Write(body); err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK || !strings.Contains(body.String(), want) {
			t.Errorf("%s: %s", path, body)
		}
	}
	_, described := request(t, node.URL()+"/perdure.admin.v1.AdminService/GetNode", "{}")
	described = strings.ReplaceAll(described, " ", "")
	for _, want := range []string{`"ready":true`, `{"id":3,"failure":"`, `{"id":4,"leader":true,`} {
		if !strings.Contains(described, want) {
			t.Errorf("%s does not say %s", described, want)
		}
	}
}

// TestAllDamaged: a node that can serve nothing doesn't start.
func TestAllDamaged(t *testing.T) {
	dir := t.TempDir()
	node := newNode(t, dir, cluster.WithPartitions(2))
	startNode(t, node)
	stopNode(t, node)
	damage(t, dir, 1, 2)
	node = newNode(t, dir, cluster.WithPartitions(2))
	if err := node.Start(soon(t)); err == nil || !strings.Contains(err.Error(), "none of the 2 partitions can be led: ") {
		t.Errorf("got %v", err)
	}
}
