package telemetry_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestLogKeys: one word for one thing in the log lines of all packages, also of those below
// this one, which have no constants to use.
func TestLogKeys(t *testing.T) {
	instead := map[string]string{
		"err": "error", "file": "path", "dir": "path", "directory": "path", "store_dir": "path", "group": "partition", "shard": "partition",
		"object": "service", "method": "handler", "procedure": "handler", "invocation": "invocation_id", "id": "a word that says whose id",
		"took": "duration", "elapsed": "duration", "size": "bytes", "addr": "address", "node_id": "node", "seq": "sequence",
	}
	levels := map[string]bool{"Debug": true, "Info": true, "Warn": true, "Error": true, "With": true,
		"DebugContext": true, "InfoContext": true, "WarnContext": true, "ErrorContext": true, "Log": true, "LogAttrs": true}
	lines := 0
	for _, folder := range []string{"storage", "cluster", "internal"} {
		err := filepath.WalkDir(filepath.Join("..", "..", folder), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			files := token.NewFileSet()
			parsed, err := parser.ParseFile(files, path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(parsed, func(node ast.Node) bool {
				call, ok := node.(*ast.CallExpr)
				if !ok {
					return true
				}
				selector, ok := call.Fun.(*ast.SelectorExpr)
				if !ok || !levels[selector.Sel.Name] || len(call.Args) < 2 {
					return true
				}
				lines++
				for _, argument := range call.Args {
					literal, ok := argument.(*ast.BasicLit)
					if !ok || literal.Kind != token.STRING {
						continue
					}
					key, err := strconv.Unquote(literal.Value)
					if better, bad := instead[key]; err == nil && bad {
						t.Errorf("%s: log key %q: use %q", files.Position(literal.Pos()), key, better)
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if lines < 20 {
		t.Errorf("found %d log lines: the test looks in the wrong place", lines)
	}
}
