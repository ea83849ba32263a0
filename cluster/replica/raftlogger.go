package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"

	raft "go.etcd.io/raft/v3"
)

// raftLogger passes the library's messages on. What it calls info is one line per election step
// and group, so it is debug here.
type raftLogger struct {
	logger *slog.Logger
	group  GroupID
}

var _ raft.Logger = raftLogger{}

func (l raftLogger) log(level slog.Level, format func() string) {
	if l.logger.Enabled(context.Background(), level) {
		l.logger.Log(context.Background(), level, "raft: "+format(), "partition", uint32(l.group))
	}
}

func (l raftLogger) line(level slog.Level, v []any) {
	l.log(level, func() string { return fmt.Sprint(v...) })
}

func (l raftLogger) linef(level slog.Level, format string, v []any) {
	l.log(level, func() string { return fmt.Sprintf(format, v...) })
}

func (l raftLogger) Debug(v ...any)                   { l.line(slog.LevelDebug, v) }
func (l raftLogger) Debugf(format string, v ...any)   { l.linef(slog.LevelDebug, format, v) }
func (l raftLogger) Info(v ...any)                    { l.line(slog.LevelDebug, v) }
func (l raftLogger) Infof(format string, v ...any)    { l.linef(slog.LevelDebug, format, v) }
func (l raftLogger) Warning(v ...any)                 { l.line(slog.LevelWarn, v) }
func (l raftLogger) Warningf(format string, v ...any) { l.linef(slog.LevelWarn, format, v) }
func (l raftLogger) Error(v ...any)                   { l.line(slog.LevelError, v) }
func (l raftLogger) Errorf(format string, v ...any)   { l.linef(slog.LevelError, format, v) }
func (l raftLogger) Fatal(v ...any)                   { panic(raftPanic{errors.New(fmt.Sprint(v...))}) }
func (l raftLogger) Fatalf(format string, v ...any)   { panic(raftPanic{fmt.Errorf(format, v...)}) }
func (l raftLogger) Panic(v ...any)                   { panic(raftPanic{errors.New(fmt.Sprint(v...))}) }
func (l raftLogger) Panicf(format string, v ...any)   { panic(raftPanic{fmt.Errorf(format, v...)}) }

// raftPanic is an invariant that the library found broken.
type raftPanic struct{ error }

// recoverInto turns a panic of the library into an error of one group. The library panics when a
// log cannot be read and when its invariants break; neither may take the other groups along.
func recoverInto(err *error, log *raftLog) {
	switch cause := recover().(type) {
	case nil:
	case raftPanic:
		*err = fmt.Errorf("raft: %w", cause.error)
	default:
		if log.err == nil {
			*err = fmt.Errorf("raft: panic: %v\n%s", cause, debug.Stack())
			return
		}
		*err = log.err
	}
	if *err != nil && log.err != nil {
		*err = log.err
	}
}
