// Command restart measures how long a node takes to serve again that holds a million objects
// and a hundred thousand suspended workflows, after kill -9.
//
//	go run ./bench/cmd/restart -objects 1000000 -suspended 100000
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/perdure/perdure/actor"
	benchv1 "github.com/perdure/perdure/bench/gen/bench/v1"
	"github.com/perdure/perdure/bench/gen/bench/v1/benchv1perdure"
	"github.com/perdure/perdure/bench/internal/handlers"
	"github.com/perdure/perdure/cluster"
	shopv1 "github.com/perdure/perdure/examples/orders/gen/shop/v1"
	"github.com/perdure/perdure/examples/orders/gen/shop/v1/shopv1perdure"
)

const address = "127.0.0.1:7388"

func main() {
	objects := flag.Int("objects", 1_000_000, "objects with state")
	suspended := flag.Int("suspended", 100_000, "workflows that wait for a signal")
	callers := flag.Int("callers", 256, "callers that make them")
	dir := flag.String("dir", "", "where the data goes; a temporary directory if empty")
	serve := flag.Bool("serve", false, "be the node (the command starts itself so)")
	flag.Parse()
	var err error
	if *serve {
		err = node(*dir)
	} else {
		err = run(*objects, *suspended, *callers, *dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "restart:", err)
		os.Exit(1)
	}
}

// orders is a workflow that waits for approval and nothing else.
type orders struct {
	shopv1perdure.UnimplementedOrderHandler
}

func (orders) Run(ctx shopv1perdure.OrderRunContext, _ *shopv1.RunRequest) (*shopv1.RunResponse, error) {
	_, err := ctx.Approve().Receive(ctx)
	return nil, err
}

func node(dir string) error {
	n := cluster.NewNode(cluster.WithDataDir(dir), cluster.WithListen(address), cluster.WithInactivityTimeout(time.Millisecond),
		cluster.WithLogger(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))))
	handlers.Register(n)
	shopv1perdure.RegisterOrderHandler(n, orders{})
	return n.Run(context.Background())
}

func run(objects, suspended, callers int, dir string) error {
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("", "perdure-restart-"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	}
	child, ready, err := start(dir)
	if err != nil {
		return err
	}
	defer func() { kill(child) }()
	fmt.Printf("empty directory: ready after %d ms\n", ready.Milliseconds())
	client := cluster.Dial(nil, "http://"+address)
	began := time.Now()
	err = each(objects, callers, func(ctx context.Context, i int) error {
		_, err := benchv1perdure.Counter(client, strconv.Itoa(i)).Add(ctx, &benchv1.AddRequest{Amount: int64(i)})
		return err
	})
	if err != nil {
		return err
	}
	fmt.Printf("%d objects made in %.0f s\n", objects, time.Since(began).Seconds())
	began = time.Now()
	err = each(suspended, callers, func(ctx context.Context, i int) error {
		_, err := shopv1perdure.Order(client, strconv.Itoa(i)).RunSend(ctx, &shopv1.RunRequest{})
		return err
	})
	if err != nil {
		return err
	}
	fmt.Printf("%d workflows suspended in %.0f s; resident %d MiB, on disk %d MiB\n",
		suspended, time.Since(began).Seconds(), resident(child.Process.Pid)>>20, size(dir)>>20)
	for range 3 {
		kill(child)
		if child, ready, err = start(dir); err != nil {
			return err
		}
		if err := check(client, objects, suspended); err != nil {
			return err
		}
		fmt.Printf("after kill -9: ready after %d ms, resident %d MiB\n", ready.Milliseconds(), resident(child.Process.Pid)>>20)
	}
	return nil
}

// check reads an object and wakes a workflow.
func check(client *actor.Client, objects, suspended int) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	last := objects - 1
	got, err := benchv1perdure.Counter(client, strconv.Itoa(last)).Get(ctx, &benchv1.GetRequest{})
	if err != nil || got.Value != int64(last) {
		return fmt.Errorf("object %d after the restart: %v, %w", last, got.GetValue(), err)
	}
	if suspended == 0 {
		return nil
	}
	order := shopv1perdure.Order(client, strconv.Itoa(int(time.Now().UnixNano()%int64(suspended))))
	if _, err := order.Approve(ctx, &shopv1.ApproveRequest{}); err != nil {
		return err
	}
	_, err = order.RunAttach(ctx)
	return err
}

func start(dir string) (*exec.Cmd, time.Duration, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, 0, err
	}
	command := exec.Command(self, "-serve", "-dir", dir)
	command.Stderr = os.Stderr
	began := time.Now()
	if err := command.Start(); err != nil {
		return nil, 0, err
	}
	for time.Since(began) < 2*time.Minute {
		response, err := http.Get("http://" + address + "/readyz")
		if err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return command, time.Since(began), nil
			}
		}
		time.Sleep(2 * time.Millisecond) // polling another process
	}
	kill(command)
	return nil, 0, errors.New("the node was not ready within two minutes")
}

func kill(command *exec.Cmd) {
	_ = command.Process.Kill()
	_ = command.Wait()
}

// each calls fn for 0 to count-1 from many goroutines, and returns the first error.
func each(count, callers int, fn func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	var next atomic.Int64
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < count && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				if err := fn(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

func resident(pid int) int64 {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.SplitSeq(string(status), "\n") {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, _ := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
			return kib << 10
		}
	}
	return 0
}

// size is what the files below dir occupy.
func size(dir string) (total int64) {
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			if info, err := entry.Info(); err == nil {
				total += info.Size()
			}
		}
		return nil
	})
	return total
}
