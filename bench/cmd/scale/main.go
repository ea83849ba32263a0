// Command scale measures what a cluster's size costs, and prints tables for clusters of other sizes.
//
//	go run ./bench/cmd/scale -parameters bench/internal/scale/testdata/parameters.json -markdown docs/scale.md
//
// It needs about five minutes, and a machine that does nothing else. With -measure=false it makes the
// tables from the parameters that are there.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/perdure/perdure/bench/internal/scale"
)

func main() {
	parameters := flag.String("parameters", "", "file that the parameters are kept in; none if empty")
	markdown := flag.String("markdown", "", "page whose generated part is replaced; standard output if empty")
	measured := flag.Bool("measure", true, "measure, instead of only reading the parameters")
	only := flag.String("only", "", "what to measure of partitions, placement, raft, gossip, store; all if empty")
	rows := flag.Int("rows", 2_000_000, "rows in the store")
	lasts := flag.Duration("for", 5*time.Second, "how long each stretch of time is")
	partitions := flag.Int("heap-of", 0, "be a node with so many partitions and print its heap (the command starts itself so)")
	flag.Parse()
	if *partitions > 0 {
		if err := heapOf(context.Background(), *partitions); err != nil {
			fmt.Fprintln(os.Stderr, "scale:", err)
			os.Exit(1)
		}
		return
	}
	if err := run(*parameters, *markdown, *only, *measured, *rows, *lasts); err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}

func run(parameters, markdown, only string, measured bool, rows int, lasts time.Duration) error {
	var p scale.Parameters
	if parameters != "" {
		encoded, err := os.ReadFile(parameters)
		if err != nil && (!measured || !errors.Is(err, fs.ErrNotExist)) {
			return err
		}
		if err == nil {
			if err := json.Unmarshal(encoded, &p); err != nil {
				return fmt.Errorf("%s: %w", parameters, err)
			}
		}
	}
	if measured {
		if err := measure(context.Background(), only, rows, lasts, &p); err != nil {
			return err
		}
		encoded, err := json.MarshalIndent(p, "", "  ")
		if err != nil {
			return err
		}
		if parameters != "" {
			if err := os.WriteFile(parameters, append(encoded, '\n'), 0o644); err != nil {
				return err
			}
		}
	}
	if markdown == "" {
		fmt.Print(p.Tables())
		return nil
	}
	page, err := os.ReadFile(markdown)
	if err != nil {
		return err
	}
	changed, err := scale.Replace(string(page), p.Tables())
	if err != nil {
		return fmt.Errorf("%s: %w", markdown, err)
	}
	return os.WriteFile(markdown, []byte(changed), 0o644)
}

// parts of what is measured; each replaces its own of what was measured before.
var parts = []struct {
	name    string
	measure func(ctx context.Context, rows int, lasts time.Duration, p *scale.Parameters) error
}{
	{"partitions", func(ctx context.Context, _ int, _ time.Duration, p *scale.Parameters) error {
		return measurePartitions(ctx, p)
	}},
	{"placement", func(_ context.Context, _ int, _ time.Duration, p *scale.Parameters) error {
		p.Plans = nil
		return each([][2]int{{3, 64}, {10, 256}, {50, 1024}}, &p.Plans, measurePlans)
	}},
	{"raft", func(ctx context.Context, _ int, lasts time.Duration, p *scale.Parameters) error {
		p.Raft = nil
		return each([][2]int{{3, 64}, {3, 256}, {10, 256}}, &p.Raft, func(nodes, groups int) (scale.Raft, error) { return measureRaft(ctx, nodes, groups, lasts) })
	}},
	{"gossip", func(_ context.Context, _ int, lasts time.Duration, p *scale.Parameters) error {
		p.Gossip = nil
		return each([][2]int{{3, 64}, {3, 1024}, {10, 1024}, {25, 1024}, {50, 1024}}, &p.Gossip, func(nodes, partitions int) (scale.Gossip, error) {
			return measureGossip(nodes, partitions, lasts)
		})
	}},
	{"store", func(ctx context.Context, rows int, _ time.Duration, p *scale.Parameters) error {
		return measureStorage(ctx, rows, p)
	}},
}

// each measures clusters of some nodes and partitions.
func each[T any](shapes [][2]int, all *[]T, measure func(nodes, partitions int) (T, error)) error {
	for _, shape := range shapes {
		fmt.Fprintf(os.Stderr, "scale: %d nodes, %d partitions\n", shape[0], shape[1])
		one, err := measure(shape[0], shape[1])
		if err != nil {
			return err
		}
		*all = append(*all, one)
	}
	return nil
}

func measure(ctx context.Context, only string, rows int, lasts time.Duration, p *scale.Parameters) error {
	known := false
	for _, part := range parts {
		if only != "" && only != part.name {
			continue
		}
		known = true
		fmt.Fprintln(os.Stderr, "scale: measuring", part.name)
		if err := part.measure(ctx, rows, lasts, p); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	if !known {
		return fmt.Errorf("-only %s: the parts are partitions, placement, raft, gossip and store", only)
	}
	return nil
}
