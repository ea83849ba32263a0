package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"
)

func build(ctx context.Context, binary string) error {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return fmt.Errorf("find the module: %w (run this from a checkout, with Go installed)", err)
	}
	command := exec.CommandContext(ctx, "go", "build", "-o", binary, "./examples/bank")
	command.Dir = strings.TrimSpace(string(root))
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// process is the node, at one address whatever happens to it.
type process struct {
	binary, data, address, url string
	// gossip and transport are where other nodes reach it, and join where it looks for them.
	gossip, transport string
	join              []string
	command           *exec.Cmd
	exited            chan struct{}
}

// start runs the node and returns how long it took until it was ready. A port that was free a moment ago may be
// somebody's by now, a caller's for a connection of its own: then it takes others, or, if others know them, waits.
func (p *process) start(ctx context.Context) (time.Duration, error) {
	fresh := p.address == ""
	for {
		took, err := p.run(ctx)
		if err == nil || !strings.HasSuffix(strings.TrimSpace(err.Error()), "bind: address already in use") {
			return took, err
		}
		if fresh {
			p.address, p.gossip, p.transport = "", "", ""
		}
		select {
		case <-ctx.Done():
			return 0, err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (p *process) run(ctx context.Context) (time.Duration, error) {
	for _, address := range []*string{&p.address, &p.gossip, &p.transport} {
		if *address != "" {
			continue
		}
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return 0, err
		}
		*address = listener.Addr().String()
		if err := listener.Close(); err != nil {
			return 0, err
		}
	}
	p.url = "http://" + p.address
	log, err := os.OpenFile(p.data+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	began := time.Now()
	p.command = exec.Command(p.binary, "--listen", p.address, "--data", p.data, "--log-level", "warn",
		"--cluster", p.gossip, "--cluster-transport", p.transport, "--join", strings.Join(p.join, ","))
	p.command.Stdout, p.command.Stderr = log, log
	if err := p.command.Start(); err != nil {
		return 0, err
	}
	p.exited = make(chan struct{})
	go func(command *exec.Cmd, exited chan struct{}) {
		_ = command.Wait() // It is killed: that is no news.
		close(exited)
	}(p.command, p.exited)
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+"/readyz", nil)
		if err != nil {
			return 0, err
		}
		response, err := http.DefaultClient.Do(request)
		if err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return time.Since(began), nil
			}
		}
		select {
		case <-p.exited:
			text, _ := os.ReadFile(log.Name())
			return 0, fmt.Errorf("the node ended at start:\n%s", text)
		case <-ctx.Done():
			return 0, errors.New("the node was not ready in time")
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// kill ends the node as a power button would: nothing gets a chance to finish.
func (p *process) kill() {
	if p.command == nil {
		return
	}
	_ = p.command.Process.Kill()
	<-p.exited
	p.command = nil
}
