// Package perdureproto holds the .proto files that users of perdure import, for those who have no
// Go module to take them from.
package perdureproto

import (
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

//go:embed perdure/v1/options.proto perdure/v1/invocation.proto
var files embed.FS

// Sources returns the text of every file by the path under which it is imported, such as
// "perdure/v1/options.proto".
func Sources() map[string]string {
	sources := map[string]string{}
	// An embedded file system is in memory and complete: walking it cannot fail.
	_ = fs.WalkDir(files, ".", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			var text []byte
			text, err = files.ReadFile(path)
			sources[path] = string(text)
		}
		return err
	})
	return sources
}

// Export writes the files into dir, which becomes an import path for any protobuf compiler, and
// returns the names of what it wrote. It makes dir if need be and replaces older versions of the
// files, so that it can be run again after an update.
func Export(dir string) ([]string, error) {
	var written []string
	err := fs.WalkDir(files, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := files.ReadFile(path)
		if err != nil {
			return err
		}
		name := filepath.Join(dir, filepath.FromSlash(path))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, text, 0o644); err != nil {
			return err
		}
		written = append(written, name)
		return nil
	})
	if err != nil {
		return written, fmt.Errorf("export protos: %w", err)
	}
	return written, nil
}
