package cluster_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/perdure/perdure/cluster"
)

func TestDataDirectory(t *testing.T) {
	dir := t.TempDir()
	node := newNode(t, dir, cluster.WithPartitions(4))
	startNode(t, node)

	second := newNode(t, dir, cluster.WithPartitions(4))
	if err := second.Start(t.Context()); err == nil || !strings.Contains(err.Error(), dir+" is in use by another node") {
		t.Errorf("a second node: %v", err)
	}
	stopNode(t, node)

	path := filepath.Join(dir, "node.json")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var identity map[string]any
	if err := json.Unmarshal(good, &identity); err != nil {
		t.Fatal(err)
	}
	if identity["partitions"] != 4.0 || identity["format_version"] != 1.0 || identity["node_id"] == "" || identity["cluster_id"] == "" {
		t.Errorf("node.json is %s", good)
	}
	for _, name := range []string{"log", "store", "lock"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}

	if err := newNode(t, dir, cluster.WithPartitions(8)).Start(t.Context()); err == nil ||
		!strings.Contains(err.Error(), "created with 4 partitions, and the configuration says 8") {
		t.Errorf("other partitions: %v", err)
	}
	for _, test := range []struct{ name, content, says string }{
		{"newer", strings.Replace(string(good), `"format_version": 1`, `"format_version": 9`, 1), "its format version is 9, and this program"},
		{"newer and strange", `{"format_version": 2, "partitions": "many"}`, "its format version is 2"},
		{"cut off", string(good[:len(good)/2]), "node.json is damaged"},
		{"empty", "", "node.json is damaged"},
		{"without an id", `{"format_version": 1, "partitions": 4}`, "node.json is damaged"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(test.content), 0o600); err != nil {
				t.Fatal(err)
			}
			err := newNode(t, dir, cluster.WithPartitions(0)).Start(t.Context())
			if err == nil || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), dir) {
				t.Errorf("got %v", err)
			}
			if now, err := os.ReadFile(path); err != nil || string(now) != test.content {
				t.Errorf("the file was touched: %q %v", now, err)
			}
		})
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := newNode(t, dir).Start(t.Context()); err == nil || !strings.Contains(err.Error(), "node.json is missing, but there is data") {
		t.Errorf("without node.json: %v", err)
	}
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	again := newNode(t, dir, cluster.WithPartitions(0))
	startNode(t, again)
}

func TestDataDirectoryIsAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := newNode(t, path).Start(t.Context()); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
}
