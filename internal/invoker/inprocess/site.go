package inprocess

import (
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
)

// sites caches what a program counter stands for: "" for a frame of this project.
var sites sync.Map // of uintptr to string

// callSite is where the handler made the step, as "orders.go:42": the first caller outside this
// project's own packages and generated code.
func callSite() string {
	var counters [24]uintptr
	depth := runtime.Callers(3, counters[:])
	for _, counter := range counters[:depth] {
		cached, ok := sites.Load(counter)
		if !ok {
			cached = siteOf(counter)
			sites.Store(counter, cached)
		}
		if site := cached.(string); site != "" {
			return site
		}
	}
	return ""
}

func siteOf(counter uintptr) string {
	frames := runtime.CallersFrames([]uintptr{counter})
	for { // one counter stands for several frames if functions were inlined
		frame, more := frames.Next()
		if !isOwn(frame) {
			return filepath.Base(frame.File) + ":" + strconv.Itoa(frame.Line)
		}
		if !more {
			return ""
		}
	}
}

func isOwn(frame runtime.Frame) bool {
	return strings.HasPrefix(frame.Function, "github.com/perdure/perdure/actor.") ||
		strings.HasPrefix(frame.Function, "github.com/perdure/perdure/actor/actortest.") ||
		strings.HasPrefix(frame.Function, "github.com/perdure/perdure/internal/invoker/inprocess.") ||
		strings.HasSuffix(frame.File, ".perdure.go") || strings.HasPrefix(frame.Function, "runtime.")
}
