package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"time"

	"github.com/perdure/perdure/bench/internal/clusters"
	"github.com/perdure/perdure/bench/internal/procfs"
	"github.com/perdure/perdure/bench/internal/system"
)

// runCluster is run with -cluster.
func runCluster(ctx context.Context, o options, scratch string) error {
	root, err := system.ModuleRoot(ctx)
	if err != nil {
		return err
	}
	perdure, err := system.BuildPerdure(ctx, root, scratch)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	bench := &clusters.Bench{
		Perdure: perdure, HTTP: system.HTTP{Command: []string{self, floorServer}}, Dir: scratch, Progress: os.Stderr,
		Window: 5 * time.Second, Kills: 50, KillsFor: 20 * time.Minute, StateBytes: 256 << 20,
	}
	if o.quick {
		bench.Window, bench.KillsFor = 2*time.Second, 6*time.Minute
	}
	if o.window > 0 {
		bench.Window = o.window
	}
	if o.workloads != "" {
		if bench.Only, err = regexp.Compile(o.workloads); err != nil {
			return fmt.Errorf("-workloads %q is no regular expression: %w", o.workloads, err)
		}
	}
	if o.kills > 0 {
		bench.Kills = o.kills
	}
	origin := clusters.Origin{Command: command(), Machine: procfs.Model(), Versions: []string{runtime.Version()}, Started: time.Now()}
	name, durable, err := procfs.FileSystem(scratch)
	if err != nil {
		return err
	}
	if origin.Disk = name; !durable {
		origin.Notes = append(origin.Notes, fmt.Sprintf("The data directories are on %s, where fdatasync does not reach a disk of this machine: no figure here is of durable calls. Use -dir.", name))
	}
	measured := bench.Do(ctx)
	origin.Took = time.Since(origin.Started)
	if measured != nil {
		origin.Notes = append(origin.Notes, "Not all was measured: "+measured.Error())
	}
	bench.Markdown(os.Stdout, origin)
	if o.markdown != "" {
		file, err := os.Create(o.markdown)
		if err != nil {
			return errors.Join(measured, err)
		}
		bench.Markdown(file, origin)
		measured = errors.Join(measured, file.Close())
	}
	if len(bench.Wrong) > 0 {
		measured = errors.Join(measured, fmt.Errorf("wrong: %q", bench.Wrong))
	}
	return measured
}
