// Package raftlog joins the raft library to the logger and to errors: it panics where this program
// halts one group.
package raftlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"

	raft "go.etcd.io/raft/v3"
)

// Logger passes the library's messages on. What it calls info is one line per election step
// and group, so it is debug here.
type Logger struct {
	Logger *slog.Logger
	Group  uint32
}

var _ raft.Logger = Logger{}

func (l Logger) log(level slog.Level, format func() string) {
	if l.Logger.Enabled(context.Background(), level) {
		l.Logger.Log(context.Background(), level, "raft: "+format(), "partition", l.Group)
	}
}

func (l Logger) line(level slog.Level, v []any) {
	l.log(level, func() string { return fmt.Sprint(v...) })
}

func (l Logger) linef(level slog.Level, format string, v []any) {
	l.log(level, func() string { return fmt.Sprintf(format, v...) })
}

// Debug implements raft.Logger.
func (l Logger) Debug(v ...any) { l.line(slog.LevelDebug, v) }

// Debugf implements raft.Logger.
func (l Logger) Debugf(format string, v ...any) { l.linef(slog.LevelDebug, format, v) }

// Info implements raft.Logger.
func (l Logger) Info(v ...any) { l.line(slog.LevelDebug, v) }

// Infof implements raft.Logger.
func (l Logger) Infof(format string, v ...any) { l.linef(slog.LevelDebug, format, v) }

// Warning implements raft.Logger.
func (l Logger) Warning(v ...any) { l.line(slog.LevelWarn, v) }

// Warningf implements raft.Logger.
func (l Logger) Warningf(format string, v ...any) { l.linef(slog.LevelWarn, format, v) }

// Error implements raft.Logger.
func (l Logger) Error(v ...any) { l.line(slog.LevelError, v) }

// Errorf implements raft.Logger.
func (l Logger) Errorf(format string, v ...any) { l.linef(slog.LevelError, format, v) }

// Fatal implements raft.Logger.
func (l Logger) Fatal(v ...any) { panic(broken{errors.New(fmt.Sprint(v...))}) }

// Fatalf implements raft.Logger.
func (l Logger) Fatalf(format string, v ...any) { panic(broken{fmt.Errorf(format, v...)}) }

// Panic implements raft.Logger.
func (l Logger) Panic(v ...any) { panic(broken{errors.New(fmt.Sprint(v...))}) }

// Panicf implements raft.Logger.
func (l Logger) Panicf(format string, v ...any) { panic(broken{fmt.Errorf(format, v...)}) }

// broken is an invariant that the library found broken.
type broken struct{ error }

// Recover, deferred, turns a panic of the library into an error of one group. The library panics when a
// log cannot be read and when its invariants break; neither may take the other groups along. unread is the
// first failed read of the log: if there is one it is the error.
func Recover(err *error, unread *error) {
	switch cause := recover().(type) {
	case nil:
	case broken:
		*err = fmt.Errorf("raft: %w", cause.error)
	default:
		*err = fmt.Errorf("raft: panic: %v\n%s", cause, debug.Stack())
	}
	if *err != nil && *unread != nil {
		*err = *unread
	}
}
