package badgerstore

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
)

// badgerLog passes Badger's log lines to slog. Its info lines are debug lines to us: they tell
// about tables, not about anything an operator acts on.
type badgerLog struct{ logger *slog.Logger }

func (l badgerLog) log(level slog.Level, format string, args []any) {
	if l.logger.Enabled(context.Background(), level) {
		l.logger.Log(context.Background(), level, "badger", "detail", strings.TrimSpace(fmt.Sprintf(format, args...)))
	}
}

func (l badgerLog) Errorf(format string, args ...any)   { l.log(slog.LevelError, format, args) }
func (l badgerLog) Warningf(format string, args ...any) { l.log(slog.LevelWarn, format, args) }
func (l badgerLog) Infof(format string, args ...any)    { l.log(slog.LevelDebug, format, args) }
func (l badgerLog) Debugf(format string, args ...any)   { l.log(slog.LevelDebug, format, args) }
