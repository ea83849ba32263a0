package main

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

//go:embed scheduler.go.txt
var scheduler string

//go:embed children.go.txt
var children string

// edit replaces a text of a file of the standard library, which must be there once.
type edit struct{ file, old, new string }

// edits make what goroutines of a bubble with a seed can tell of chance, time and order follow from the seed. Whatever else runs in
// the process, such as the collector of garbage, goes on as ever, and never between two of them in a way they can tell.
var edits = []edit{
	{"runtime/synctest.go", "active  int // other sources of activity\n", "active  int // other sources of activity\n\n\treplay replayState\n"},
	{"runtime/synctest.go", "\tbubble.now = synctestBaseTime\n", "\tbubble.now = synctestBaseTime\n\treplayBegin(bubble)\n"},

	// Which goroutine runs.
	{"runtime/proc.go", "func runqput(pp *p, gp *g, next bool) {\n", "func runqput(pp *p, gp *g, next bool) {\n\tif replayPut(gp, next) {\n\t\treturn\n\t}\n"},
	{"runtime/proc.go", "func globrunqput(gp *g) {\n", "func globrunqput(gp *g) {\n\tif replayPut(gp, false) {\n\t\treturn\n\t}\n"},
	{"runtime/proc.go", "\t\tif t == h {\n\t\t\treturn nil, false\n", "\t\tif t == h {\n\t\t\treturn replayGet(), false\n"},
	{"runtime/proc.go", "\t\t\treturn head == tail && runnext == 0\n", "\t\t\treturn head == tail && runnext == 0 && replayEmpty()\n"},
	{"runtime/proc.go", "\tif sched.gcwaiting.Load() || pp.runSafePointFn != 0 {\n\t\tunlock(&sched.lock)\n\t\tgoto top\n", "\tif sched.gcwaiting.Load() || pp.runSafePointFn != 0 || !replayEmpty() {\n\t\tunlock(&sched.lock)\n\t\tgoto top\n"},
	{"runtime/proc.go", "\tif preempted && sched.gcwaiting.Load() {\n", "\tif preempted && replayPreempted(gp) {\n\t} else if preempted && sched.gcwaiting.Load() {\n"},
	// Memory that is used anew is cleared in parts, between which whoever should be preempted yields by itself.
	{"runtime/proc.go", "\tif !canPreemptM(gp.m) {\n\t\tgogo(&gp.sched) // never return\n\t}\n\tgoschedImpl(gp, false)\n", "\tif !canPreemptM(gp.m) {\n\t\tgogo(&gp.sched) // never return\n\t}\n\tgoschedImpl(gp, true)\n"},
	// A call of the system takes as long as the machine wants: nobody else runs meanwhile.
	{"runtime/proc.go", "\tif status != _Gsyscall && status != _Gdeadextra {\n\t\t// Not in a syscall, nothing to do.\n", "\tif status != _Gsyscall && status != _Gdeadextra || gp.bubble != nil && gp.bubble.replay.on {\n\t\t// Not in a syscall, nothing to do.\n"},

	// Chance.
	{"runtime/rand.go", "func rand() uint64 {\n", "func rand() uint64 {\n\tif b := getg().bubble; b != nil && b.replay.on {\n\t\treturn b.replay.value()\n\t}\n"},
	{"runtime/rand.go", "func maps_rand() uint64 {\n\treturn rand()\n", "func maps_rand() uint64 {\n\treturn replayMapSeed()\n"},
	{"runtime/alg.go", "\t\thashkey[i] = uintptr(bootstrapRand())\n", "\t\thashkey[i] = uintptr(replayHashKey(i))\n"},
	{"runtime/alg.go", "\t\tkey[i] = bootstrapRand()\n", "\t\tkey[i] = replayHashKey(i)\n"},
	{"runtime/select.go", "j := cheaprandn(uint32(norder + 1))\n", "j := replayRandn(uint32(norder + 1))\n"},
	// A select waits on channels in the order of their addresses, which timers of the same instant must not have of it.
	{"runtime/select.go", "\t\tif c.timer != nil {\n\t\t\tblockTimerChan(c)\n\t\t}\n\t}\n", "\t}\n\tfor _, casei := range pollorder {\n\t\tif c := scases[casei].c; c.timer != nil {\n\t\t\tblockTimerChan(c)\n\t\t}\n\t}\n"},
	{"runtime/time.go", "t.rand = cheaprand()\n", "t.rand = replayRandn(1<<32 - 1)\n"},

	// A mutex that somebody has waited for a while works otherwise.
	{"runtime/sema.go", "func internal_sync_nanotime() int64 {\n", "func internal_sync_nanotime() int64 {\n\tif b := getg().bubble; b != nil && b.replay.on {\n\t\treturn b.now\n\t}\n"},

	// The collector is neither started nor helped by goroutines of the bubble, which would wait for it; sysmon starts it.
	{"runtime/mgc.go", "\tcase gcTriggerHeap:\n\t\ttrigger, _ := gcController.trigger()\n", "\tcase gcTriggerHeap:\n\t\tif gp := getg().m.curg; gp != nil && gp.bubble != nil && gp.bubble.replay.on {\n\t\t\treturn false\n\t\t}\n\t\ttrigger, _ := gcController.trigger()\n"},
	{"runtime/mgc.go", "\tcase gcTriggerTime:\n\t\tif gcController.gcPercent.Load() < 0 {\n", "\tcase gcTriggerTime:\n\t\tif trigger, _ := gcController.trigger(); gcController.heapLive.Load() >= trigger {\n\t\t\treturn true\n\t\t}\n\t\tif gcController.gcPercent.Load() < 0 {\n"},
	{"runtime/mgcmark.go", "func gcAssistAlloc(gp *g) {\n", "func gcAssistAlloc(gp *g) {\n\tif b := getg().bubble; b != nil && b.replay.on {\n\t\treturn\n\t}\n"},

	// A context cancels its children by their addresses, if there are many.
	{"context/context.go", "\tchildren map[canceler]struct{} ", "\tborn     int\n\tchildren map[canceler]int "},
	{"context/context.go", "\t\t\t\tp.children = make(map[canceler]struct{})\n", "\t\t\t\tp.children = make(map[canceler]int)\n"},
	{"context/context.go", "\t\t\tp.children[child] = struct{}{}\n", "\t\t\tp.born++\n\t\t\tp.children[child] = p.born\n"},
	{"context/context.go", "\tfor child := range c.children {\n", "\tfor _, child := range byAge(c.children) {\n"},
}

// writeOverlay writes the changed files of the standard library and what -overlay reads to a folder, and returns the latter's name.
func writeOverlay(goroot, version, folder string) (string, error) {
	source := filepath.Join(goroot, "src")
	texts := map[string]string{}
	for _, e := range edits {
		text, ok := texts[e.file]
		if !ok {
			data, err := os.ReadFile(filepath.Join(source, e.file))
			if err != nil {
				return "", fmt.Errorf("read the standard library of %s: %w", version, err)
			}
			text = string(data)
		}
		if n := strings.Count(text, e.old); n != 1 {
			return "", fmt.Errorf("%s of %s has %d times, not once, the text %q, which seeds are replayed by: edit internal/sim/replay/overlay.go for this version of Go, or run the simulation without it, by go test ./internal/sim", e.file, version, n, e.old)
		}
		texts[e.file] = strings.Replace(text, e.old, e.new, 1)
	}
	texts["runtime/perdure_replay.go"], texts["context/perdure_replay.go"] = scheduler, children
	var overlay struct{ Replace map[string]string }
	overlay.Replace = map[string]string{}
	for file, text := range texts {
		to := filepath.Join(folder, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(to, []byte(text), 0o600); err != nil {
			return "", err
		}
		overlay.Replace[filepath.Join(source, file)] = to
	}
	data, err := json.Marshal(overlay)
	if err != nil {
		return "", err
	}
	name := filepath.Join(folder, "overlay.json")
	return name, os.WriteFile(name, data, 0o600)
}
