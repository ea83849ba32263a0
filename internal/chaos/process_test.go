//go:build unix

package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// node is a child process at one address, whatever happens to it.
type node struct {
	t        *testing.T
	dir      string
	settings nodeSettings
	address  string
	url      string
	// program is what launch starts: this one, or another build of it.
	program string
	// prefix begins the command line, and flags end it. Both may be empty.
	prefix, flags []string

	command *exec.Cmd
	exited  chan struct{}
	said    *output
}

// newNode makes a node that is not started. It is killed at the test's end.
func newNode(t *testing.T, dir string, settings nodeSettings) *node {
	t.Helper()
	address := freeAddress(t)
	n := &node{t: t, dir: dir, settings: settings, address: address, url: "http://" + address, program: os.Args[0], said: &output{}}
	t.Cleanup(func() {
		n.kill()
		if t.Failed() {
			t.Logf("the node said:\n%s", n.said.tail(4_000))
		}
	})
	return n
}

// hosts counts those that freeAddress has given.
var hosts atomic.Uint32

// freeAddress is one that stays free while nobody listens there: before a node is started, and whenever it is down. A
// port of 127.0.0.1 would be given meanwhile, now and then, to somebody who takes any. All of 127.0.0.0/8 is this machine
// on Linux, and connections from it come from 127.0.0.1; so each address is of a host of its own.
func freeAddress(t *testing.T) string {
	t.Helper()
	host := "127.0.0.1"
	if runtime.GOOS == "linux" {
		pid := os.Getpid()
		host = fmt.Sprintf("127.%d.%d.%d", pid>>8&0xff, pid&0xff, 2+hosts.Add(1)%250)
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// TestAddressesStayFree: somebody else has the port of a node that is down.
func TestAddressesStayFree(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("this machine has one loopback address: a port may be taken while a node is down")
	}
	n := newNode(t, t.TempDir(), nodeSettings{Partitions: 1})
	_, port, err := net.SplitHostPort(n.address)
	if err != nil {
		t.Fatal(err)
	}
	somebody, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		t.Skipf("somebody else has the port already: %v", err)
	}
	defer somebody.Close()
	n.start()
	n.stop()
}

// launch starts the process and does not wait for it to serve.
func (n *node) launch() {
	n.t.Helper()
	settings, err := json.Marshal(n.settings)
	if err != nil {
		n.t.Fatal(err)
	}
	line := slices.Concat(n.prefix, []string{n.program, "--listen", n.address, "--data", n.dir, "--log-level", "info"}, n.flags)
	n.command = exec.Command(line[0], line[1:]...)
	n.command.Env = append(os.Environ(), nodeEnvironment+"="+string(settings))
	n.command.Stdout, n.command.Stderr = n.said, n.said
	if err := n.command.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.exited = make(chan struct{})
	go func(command *exec.Cmd, exited chan struct{}) {
		_ = command.Wait() // how it ended is in ProcessState
		close(exited)
	}(n.command, n.exited)
}

// start launches the node and returns how long it took to serve.
func (n *node) start() time.Duration {
	n.t.Helper()
	began := time.Now()
	n.launch()
	if err := n.ready(30 * time.Second); err != nil {
		n.t.Fatal(err)
	}
	return time.Since(began)
}

// ready waits until the node serves.
func (n *node) ready(within time.Duration) error {
	client := http.Client{Timeout: 2 * time.Second}
	for deadline := time.Now().Add(within); ; {
		response, err := client.Get(n.url + "/readyz")
		if err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-n.exited:
			return fmt.Errorf("the node ended with %v:\n%s", n.command.ProcessState, n.said.tail(4_000))
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the node is not ready after %s: %v", within, err)
		}
	}
}

// kill ends the process as a power button does.
func (n *node) kill() {
	if n.command != nil {
		_ = n.command.Process.Kill()
		<-n.exited
		n.command = nil
	}
}

// stop ends the process in order.
func (n *node) stop() {
	n.t.Helper()
	if err := n.command.Process.Signal(syscall.SIGTERM); err != nil {
		n.t.Fatal(err)
	}
	if code := n.wait(20 * time.Second); code != 0 {
		n.t.Fatalf("exit code %d after SIGTERM:\n%s", code, n.said.tail(4_000))
	}
}

// wait returns the exit code of a process that ends by itself.
func (n *node) wait(within time.Duration) int {
	n.t.Helper()
	select {
	case <-n.exited:
	case <-time.After(within):
		n.t.Fatalf("the node did not end within %s", within)
	}
	code := n.command.ProcessState.ExitCode()
	n.command = nil
	return code
}

// alive reports whether the process has not ended.
func (n *node) alive() bool {
	select {
	case <-n.exited:
		return false
	default:
		return true
	}
}

// pause stops the process for a while, as a hypervisor does.
func (n *node) pause(ctx context.Context, length time.Duration) {
	n.t.Helper()
	if err := n.command.Process.Signal(syscall.SIGSTOP); err != nil {
		n.t.Fatal(err)
	}
	select {
	case <-time.After(length):
	case <-ctx.Done():
	}
	if err := n.command.Process.Signal(syscall.SIGCONT); err != nil {
		n.t.Fatal(err)
	}
}

// answer is what came of an HTTP call.
type answer struct {
	status  int
	header  http.Header
	body    string
	Code    string `json:"code"`
	Message string `json:"message"`
	Details []struct {
		Type string `json:"type"`
	} `json:"details"`
}

// post calls the node as curl does.
func (n *node) post(ctx context.Context, client *http.Client, path, body string, headers ...string) (answer, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, n.url+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	request.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := client.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return answer{}, err
	}
	a := answer{status: response.StatusCode, header: response.Header, body: string(text)}
	if response.StatusCode != http.StatusOK {
		_ = json.Unmarshal(text, &a) // what is no JSON has no code, which the test will say
	}
	return a, nil
}

// output keeps what a process says.
type output struct {
	mu struct {
		sync.Mutex
		text bytes.Buffer
	}
}

func (o *output) Write(text []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.mu.text.Write(text)
}

func (o *output) tail(most int) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	text := o.mu.text.Bytes()
	return string(text[max(0, len(text)-most):])
}

// count is how often a text was said.
func (o *output) count(text string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return bytes.Count(o.mu.text.Bytes(), []byte(text))
}

// take returns what was said and forgets it.
func (o *output) take() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.mu.text.Reset()
	return o.mu.text.String()
}
