// Command bench measures Perdure, and Restate beside it, on the machine at hand and prints one set of tables.
//
//	go run ./bench/cmd/bench                  about 20 minutes
//	go run ./bench/cmd/bench -quick           about 3 minutes, coarser
//	go run ./bench/cmd/bench -transactions    about 25 minutes: SmallBank and mixes of several keys
//	go run ./bench/cmd/bench -cluster         about 15 minutes: one node against three, failover, idle partitions
//
// It needs Go. Restate is fetched with npm, once, into a cache directory; without npm the tables have no Restate. All
// servers listen on the loopback device only, run on throw-away directories, and are gone when it ends, however it ends.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/perdure/perdure/bench/internal/floor"
	"github.com/perdure/perdure/bench/internal/measure"
	"github.com/perdure/perdure/bench/internal/procfs"
	"github.com/perdure/perdure/bench/internal/report"
	"github.com/perdure/perdure/bench/internal/system"
)

// floorServer as first argument makes this program the HTTP floor's server instead.
const floorServer = "serve-http-floor"

// options are the flags.
type options struct {
	quick          bool
	transactions   bool
	cluster        bool
	rounds, kills  int
	window, warmup time.Duration
	timeout        time.Duration
	systems        string
	workloads      string
	dir            string
	raw, markdown  string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if len(os.Args) == 3 && os.Args[1] == floorServer {
		if err := floor.Serve(ctx, os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, "bench: HTTP floor:", err)
			os.Exit(1)
		}
		return
	}
	var o options
	flag.BoolVar(&o.quick, "quick", false, "about 3 minutes: fewer and shorter windows, one server for all of a round")
	flag.BoolVar(&o.transactions, "transactions", false, "measure transactions across objects instead (SmallBank, and mixes of 2 to 8 keys), beside the same work without atomicity: about 25 minutes, or less than 3 with -quick")
	flag.BoolVar(&o.cluster, "cluster", false, "measure clusters of nodes on this machine instead: about 15 minutes, or 10 with -quick")
	flag.IntVar(&o.kills, "kills", 0, "how many nodes are killed with -cluster; 0: 50, or with -quick as many as there is time for in 6 minutes, at most 50")
	flag.IntVar(&o.rounds, "rounds", 0, "how often each system has its turn, and is killed; 0: 3 rounds, or with -quick 2 rounds and 1 kill, or with -quick -transactions 1 round")
	flag.DurationVar(&o.window, "window", 0, "length of each window; 0: 4s, or 1.2s with -quick; with -transactions 2s or 800ms")
	flag.DurationVar(&o.warmup, "warmup", 0, "calls before each window that do not count; 0: 1.5s, or 500ms with -quick; with -transactions 500ms or 200ms")
	flag.DurationVar(&o.timeout, "timeout", 30*time.Minute, "stop measuring after this long and report what there is")
	flag.StringVar(&o.systems, "systems", "", "what to measure, comma-separated; empty: perdure,restate-default,restate-best,http-floor, or perdure,restate-best with -transactions -quick")
	flag.StringVar(&o.workloads, "workloads", "", `only workloads whose "name/callers" matches this regular expression, such as 'Add.*/64|recovery'; with -cluster only parts of that name, such as 'failover'`)
	flag.StringVar(&o.dir, "dir", "", "where data and Restate's download go, on the disk to be measured; empty: perdure-bench in the user's cache directory")
	flag.StringVar(&o.raw, "raw", "", "file to write every single measurement to, one JSON object a line; empty: bench.jsonl in -dir")
	flag.StringVar(&o.markdown, "markdown", "", "file to write the tables to as Markdown, such as docs/bench.md; empty: none")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "bench: unexpected argument %q\n", flag.Arg(0))
		os.Exit(2)
	}
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func (o options) plan() (measure.Plan, error) {
	var plan measure.Plan
	switch {
	case o.transactions && o.quick:
		plan = measure.QuickTransactions()
	case o.transactions:
		plan = measure.FullTransactions()
	case o.quick:
		plan = measure.Quick()
	default:
		plan = measure.Full()
	}
	if o.rounds > 0 {
		plan.Rounds = o.rounds
		if plan.RecoveryRounds > 0 {
			plan.RecoveryRounds = o.rounds
		}
	}
	if o.window > 0 {
		plan.Window = o.window
	}
	if o.warmup > 0 {
		plan.Warmup = o.warmup
	}
	if o.workloads != "" {
		return plan.Only(o.workloads)
	}
	return plan, nil
}

func run(ctx context.Context, o options) (err error) {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	cache, err := o.cacheDir()
	if err != nil {
		return err
	}
	removeStale(cache)
	scratch, err := os.MkdirTemp(cache, fmt.Sprintf("run-%d-", os.Getpid()))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()

	if o.cluster {
		return runCluster(ctx, o, scratch)
	}
	plan, err := o.plan()
	if err != nil {
		return err
	}
	if o.raw == "" {
		o.raw = filepath.Join(cache, "bench.jsonl")
	}
	raw, err := os.Create(o.raw)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, raw.Close()) }()

	bench := &measure.Run{Plan: plan, Dir: scratch, Raw: raw, Progress: os.Stderr}
	records := &bench.Records
	records.Started = time.Now()
	records.Transactions = o.transactions
	records.Machine = procfs.Model()
	records.Command = command()
	records.Versions = []string{runtime.Version()}
	name, durable, err := procfs.FileSystem(scratch)
	if err != nil {
		return err
	}
	records.Disk = name
	if !durable {
		records.Notes = append(records.Notes, fmt.Sprintf("The data directories are on %s, where fdatasync does not reach a disk of this machine: no figure here is of durable calls. Use -dir.", name))
	}
	if err := prepare(ctx, o, bench, cache, scratch); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "measuring; raw records in %s\n", o.raw)
	measured := bench.Do(ctx)
	records.Took = time.Since(records.Started)
	if errors.Is(measured, context.DeadlineExceeded) {
		records.Notes = append(records.Notes, fmt.Sprintf("Stopped after %s by -timeout; what is missing was not measured.", o.timeout))
		measured = nil
	} else if errors.Is(measured, context.Canceled) {
		measured = errors.New("interrupted")
	}
	report.Text(os.Stdout, records)
	if o.markdown != "" && measured == nil {
		if err := writeMarkdown(o.markdown, records); err != nil {
			return err
		}
	}
	return errors.Join(measured, wrong(records))
}

// prepare builds and fetches what is to be measured. What cannot be had becomes a note.
func prepare(ctx context.Context, o options, bench *measure.Run, cache, scratch string) error {
	root, err := system.ModuleRoot(ctx)
	if err != nil {
		return err
	}
	known := []string{"perdure", "restate-default", "restate-best", "http-floor"}
	wanted := strings.Split(o.systems, ",")
	switch {
	case o.systems != "":
	case o.transactions && o.quick:
		wanted = []string{"perdure", "restate-best"} // To fill the other takes a minute.
	default:
		wanted = known
	}
	for _, name := range wanted {
		if !slices.Contains(known, name) {
			return fmt.Errorf("systems: %q is not one of %s", name, strings.Join(known, ", "))
		}
	}
	absent := func(name string, err error) {
		text := fmt.Sprintf("%s is not in these tables: %v", name, err)
		bench.Records.Notes = append(bench.Records.Notes, text)
		fmt.Fprintln(os.Stderr, text)
	}
	if slices.Contains(wanted, "http-floor") {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		bench.HTTP = system.HTTP{Command: []string{self, floorServer}}
	}
	if slices.Contains(wanted, "perdure") {
		if perdure, err := system.BuildPerdure(ctx, root, scratch); err != nil {
			absent("Perdure", err)
		} else {
			perdure.Metrics = o.transactions
			bench.Systems = append(bench.Systems, perdure)
		}
	}
	if slices.Contains(wanted, "restate-default") || slices.Contains(wanted, "restate-best") {
		fmt.Fprintf(os.Stderr, "fetching and building Restate %s\n", system.RestateVersion)
		server, service, err := system.BuildRestate(ctx, root, cache, scratch)
		if err != nil {
			absent("Restate", err)
			return ctx.Err()
		}
		bench.Records.Versions = append(bench.Records.Versions, "restate-server "+system.RestateVersion)
		if slices.Contains(wanted, "restate-default") {
			bench.Systems = append(bench.Systems, system.Restate{Server: server, Service: service, Tuning: system.Default})
		}
		if slices.Contains(wanted, "restate-best") {
			bench.Systems = append(bench.Systems, system.Restate{Server: server, Service: service, Tuning: system.Best})
		}
	}
	return ctx.Err()
}

func (o options) cacheDir() (string, error) {
	dir := o.dir
	if dir == "" {
		// Not the directory for temporary files: that is often in memory, where a sync costs nothing.
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("%w; say -dir", err)
		}
		dir = filepath.Join(user, "perdure-bench")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o700)
}

// removeStale removes the data of runs that were killed before they could. Their servers died with them.
func removeStale(cache string) {
	left, err := filepath.Glob(filepath.Join(cache, "run-*-*"))
	if err != nil {
		return
	}
	for _, dir := range left {
		pid, err := strconv.Atoi(strings.Split(filepath.Base(dir), "-")[1])
		if err == nil && syscall.Kill(pid, 0) == syscall.ESRCH {
			os.RemoveAll(dir)
		}
	}
}

// command is what made the tables, without the flags that only say where files go.
func command() string {
	words := []string{"go run ./bench/cmd/bench"}
	flag.Visit(func(f *flag.Flag) {
		if f.Name == "dir" || f.Name == "raw" || f.Name == "markdown" {
			return
		}
		words = append(words, fmt.Sprintf("-%s=%s", f.Name, f.Value))
	})
	return strings.Join(words, " ")
}

func writeMarkdown(path string, records *measure.Records) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	report.Markdown(io.Writer(file), records)
	return nil
}

// wrong is an error when Perdure broke a promise. A missed budget is none, and what Restate does is not ours to fail on.
func wrong(records *measure.Records) error {
	for _, note := range records.Notes {
		if strings.HasPrefix(note, "WRONG: Perdure") {
			return errors.New(note)
		}
	}
	return nil
}
