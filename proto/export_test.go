package perdureproto

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestExport(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "proto")
	for range 2 { // again over its own files
		written, err := Export(dir)
		if err != nil {
			t.Fatal(err)
		}
		want := []string{
			filepath.Join(dir, "perdure", "v1", "invocation.proto"),
			filepath.Join(dir, "perdure", "v1", "options.proto"),
		}
		if !slices.Equal(written, want) {
			t.Fatalf("Export wrote %v, want %v", written, want)
		}
		got, err := os.ReadFile(want[1])
		if err != nil {
			t.Fatal(err)
		}
		source, err := os.ReadFile("perdure/v1/options.proto")
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(source) || Sources()["perdure/v1/options.proto"] != string(source) {
			t.Error("options.proto is not what is in the repository")
		}
	}
}

func TestExportSaysWhatIsInTheWay(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Export(file); err == nil {
		t.Error("Export into a file succeeded")
	}
}
