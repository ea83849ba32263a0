package local_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/perdure/perdure/cmd/perdure/internal/local"
)

// TestMain is also the node that the tests run: it says what it was given, and ends when asked to.
func TestMain(m *testing.M) {
	if os.Getenv("PERDURE_CLUSTER") == "" {
		os.Exit(m.Run())
	}
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM)
	fmt.Printf("listen=%s cluster=%s join=%s\n", os.Getenv("PERDURE_LISTEN"), os.Getenv("PERDURE_CLUSTER"), os.Getenv("PERDURE_JOIN"))
	<-asked
	if len(os.Args) > 1 && os.Args[1] == "stubborn" {
		fmt.Println("no")
		select {}
	}
	fmt.Println("bye")
	os.Exit(0)
}

// screen is what was printed, to be waited for.
type screen struct {
	mu struct {
		sync.Mutex
		text    bytes.Buffer
		changed chan struct{}
	}
}

func newScreen() *screen {
	s := &screen{}
	s.mu.changed = make(chan struct{})
	return s
}

func (s *screen) Write(text []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.mu.changed)
	s.mu.changed = make(chan struct{})
	return s.mu.text.Write(text)
}

// await waits until want was printed times over.
func (s *screen) await(t *testing.T, want string, times int) {
	t.Helper()
	late := time.After(30 * time.Second)
	for {
		s.mu.Lock()
		text, changed := s.mu.text.String(), s.mu.changed
		s.mu.Unlock()
		if strings.Count(text, want) >= times {
			return
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("no %q, %d times, in:\n%s", want, times, text)
		}
	}
}

func run(t *testing.T, config local.Config) (say func(string), printed *screen, end func()) {
	t.Helper()
	printed = newScreen()
	reader, writer := io.Pipe()
	config.Out, config.In, config.Port = printed, reader, 40_000
	c, err := local.New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	end = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("it ended with %v", err)
		}
		_ = reader.Close()
	})
	t.Cleanup(end)
	return func(line string) { fmt.Fprintln(writer, line) }, printed, end
}

func TestCommands(t *testing.T) {
	dir := t.TempDir()
	say, printed, end := run(t, local.Config{
		Command: []string{os.Args[0]}, Nodes: 3, Dir: dir,
		Status: func(_ context.Context, url string) (string, error) { return "seen from " + url, nil },
	})
	printed.await(t, "node-1 | listen=127.0.0.1:40000 cluster=127.0.0.1:40001 join=\n", 1)
	printed.await(t, "node-2 | listen=127.0.0.1:40010", 1)
	printed.await(t, "node-3 | listen=127.0.0.1:40020 cluster=127.0.0.1:40021 join=127.0.0.1:40001,127.0.0.1:40011,127.0.0.1:40021\n", 1)
	say("kill 1")
	printed.await(t, "node-1 ended: signal: killed; start 1 brings it back", 1)
	say("kill 1")
	printed.await(t, "kill node-1: it does not run", 1)
	say("pause 2")
	printed.await(t, "pause node-2: done", 1)
	say("status")
	printed.await(t, "node-1 does not run http://127.0.0.1:40000", 1)
	printed.await(t, "node-2 is paused", 1)
	printed.await(t, "seen from http://127.0.0.1:40020", 1)
	say("start 1")
	printed.await(t, "node-1 | listen=", 2)
	say("start 1")
	printed.await(t, "start node-1: it runs", 1)
	say("stop 2") // which has to be woken for it
	printed.await(t, "node-2 | bye", 1)
	say("kill 7")
	printed.await(t, `"kill 7" is not understood; commands: status`, 1)
	end()
	printed.await(t, "node-3 | bye", 1)
	printed.await(t, "all nodes have ended", 1)
	logged, err := os.ReadFile(filepath.Join(dir, "node-3", "log.txt"))
	if err != nil || !strings.Contains(string(logged), "listen=127.0.0.1:40020") || !strings.Contains(string(logged), "bye") {
		t.Errorf("the log of node-3: %q, %v", logged, err)
	}
}

func TestThoseThatDoNotEndAreKilled(t *testing.T) {
	_, printed, end := run(t, local.Config{
		Command: []string{os.Args[0], "stubborn"}, Nodes: 1, Dir: t.TempDir(), StopAfter: 50 * time.Millisecond,
	})
	printed.await(t, "node-1 | listen=", 1)
	end()
	printed.await(t, "node-1 did not end in 50ms: it is killed", 1)
}

func TestWhatCanNotRun(t *testing.T) {
	_, err := local.New(local.Config{Nodes: 12, Port: 65_500})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"the program to run is missing", "nodes is 12", "port is 65500; it must be from 1 to 65415"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	c, err := local.New(local.Config{Command: []string{"/no/such/program"}, Nodes: 2, Port: 40_000, Dir: t.TempDir(), Out: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "start node-1: ") {
		t.Errorf("a program that is not there: %v", err)
	}
}
