package membership

import (
	"bytes"
	"context"
	"log"
	"log/slog"
)

// libraryLogger gives what the library logs a level less than it does: its errors are other nodes
// that don't answer, which is its daily bread.
func libraryLogger(to *slog.Logger) *log.Logger { return log.New(lines{to}, "", 0) }

type lines struct{ to *slog.Logger }

func (l lines) Write(line []byte) (int, error) {
	level := slog.LevelDebug
	text := bytes.TrimSpace(line)
	for _, prefix := range []struct {
		text  string
		level slog.Level
	}{{"[ERR] ", slog.LevelWarn}, {"[WARN] ", slog.LevelInfo}, {"[INFO] ", slog.LevelDebug}, {"[DEBUG] ", slog.LevelDebug}} {
		if rest, ok := bytes.CutPrefix(text, []byte(prefix.text)); ok {
			text, level = rest, prefix.level
			break
		}
	}
	l.to.Log(context.Background(), level, string(bytes.TrimPrefix(text, []byte("memberlist: "))))
	return len(line), nil
}
