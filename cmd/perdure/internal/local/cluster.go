// Package local runs the nodes of a cluster on this machine, as processes of one program: for
// trying out what a cluster does when nodes die.
//
// # Goroutines
//
// Run owns one goroutine for each process that runs, which copies its output and waits for its
// end, and one that reads commands. All have ended when Run returns, except the reader of
// commands if its input can't be interrupted.
package local

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Config says what to run. Command, Nodes, Dir and Out are required.
type Config struct {
	// Command and its arguments start one node. It must read the flags or the environment that
	// cluster.Main does.
	Command []string
	// Nodes is how many, from 1 to 9.
	Nodes int
	// Dir holds a directory for each node, with its data and its log. What is there is kept.
	Dir string
	// Port of the first node; each node takes the two ports after its own as well, and the next
	// node's is ten above.
	Port int
	// Out gets what the nodes print, each line with its node's name, and what happens to them.
	Out io.Writer
	// In has commands, a line each; nil: none.
	In io.Reader
	// Status, if set, describes the cluster, as one of the nodes that run sees it.
	Status func(ctx context.Context, url string) (string, error)
	// StopAfter is how long nodes may take to end before they are killed. Defaults to 15 s.
	StopAfter time.Duration
}

// Validate reports all that is wrong, joined.
func (c Config) Validate() error {
	var problems []error
	if len(c.Command) == 0 {
		problems = append(problems, errors.New("the program to run is missing: give it after --, such as -- ./examples/bank"))
	}
	if c.Nodes < 1 || c.Nodes > 9 {
		problems = append(problems, fmt.Errorf("nodes is %d; it must be from 1 to 9", c.Nodes))
	}
	if most := 65_535 - 10*c.Nodes; c.Port < 1 || c.Port > most {
		problems = append(problems, fmt.Errorf("port is %d; it must be from 1 to %d", c.Port, most))
	}
	return errors.Join(problems...)
}

// Cluster is the nodes of one Run.
type Cluster struct {
	config Config
	events chan event // from processes and the reader of commands

	out struct {
		sync.Mutex
		io.Writer
	}
	nodes   []*node
	running sync.WaitGroup
}

// node is one of them. All but its fixed fields belongs to Run's goroutine.
type node struct {
	name, dir, url string
	environment    []string
	process        *exec.Cmd // nil while it does not run
	paused         bool
}

// event is something that Run has to see to.
type event struct {
	ended   *node
	err     error
	command string
}

const help = `commands: status, kill N, stop N, pause N, resume N, start N, quit`

// New makes a cluster; nothing runs yet.
func New(config Config) (*Cluster, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if config.StopAfter == 0 {
		config.StopAfter = 15 * time.Second
	}
	c := &Cluster{config: config, events: make(chan event)}
	c.out.Writer = config.Out
	address := func(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
	var members []string
	for i := range config.Nodes {
		members = append(members, address(config.Port+10*i+1))
	}
	for i := range config.Nodes {
		port := config.Port + 10*i
		n := &node{name: fmt.Sprintf("node-%d", i+1), url: "http://" + address(port)}
		n.dir = filepath.Join(config.Dir, n.name)
		n.environment = []string{
			"PERDURE_LISTEN=" + address(port), "PERDURE_DATA=" + filepath.Join(n.dir, "data"),
			"PERDURE_CLUSTER=" + members[i],
		}
		if i > 0 {
			n.environment = append(n.environment, "PERDURE_JOIN="+strings.Join(members, ","))
		}
		c.nodes = append(c.nodes, n)
	}
	return c, nil
}

// Run starts the nodes and obeys commands until ctx ends or one says quit; then it ends the nodes,
// in order first. It fails if a program can't be started.
func (c *Cluster) Run(ctx context.Context) error {
	defer c.running.Wait()
	program, err := c.build(ctx)
	if err != nil {
		return err
	}
	reading, stopReading := context.WithCancel(ctx)
	defer stopReading()
	if c.config.In != nil {
		go c.read(reading)
	}
	for _, n := range c.nodes {
		if err := c.start(n, program); err != nil {
			return errors.Join(err, c.stop())
		}
	}
	c.say("%d nodes: %s\n%s", len(c.nodes), c.nodes[0].url, help)
	for {
		select {
		case <-ctx.Done():
			return c.stop()
		case e := <-c.events:
			if e.ended != nil {
				c.ended(e)
			} else if quit := c.obey(ctx, e.command, program); quit {
				return c.stop()
			}
		}
	}
}

// build makes a program of a directory with a Go package; anything else is one already.
func (c *Cluster) build(ctx context.Context) (string, error) {
	program := c.config.Command[0]
	info, err := os.Stat(program)
	if err != nil || !info.IsDir() {
		return program, nil // what is wrong with it, starting it will say
	}
	if err := os.MkdirAll(c.config.Dir, 0o700); err != nil {
		return "", err
	}
	built, err := filepath.Abs(filepath.Join(c.config.Dir, "program"))
	if err != nil {
		return "", err
	}
	c.say("building %s", program)
	build := exec.CommandContext(ctx, "go", "build", "-o", built, ".")
	build.Dir = program
	if text, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", program, err, text)
	}
	return built, nil
}

func (c *Cluster) start(n *node, program string) error {
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		return err
	}
	file, err := os.OpenFile(filepath.Join(n.dir, "log.txt"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	process := exec.Command(program, c.config.Command[1:]...)
	process.Env = append(os.Environ(), n.environment...)
	process.SysProcAttr = ownGroup() // Ctrl-C in the terminal is for Run, which ends the nodes in order
	reader, writer := io.Pipe()
	process.Stdout, process.Stderr = writer, writer
	if err := process.Start(); err != nil {
		return errors.Join(fmt.Errorf("start %s: %w", n.name, err), file.Close())
	}
	n.process, n.paused = process, false
	var copying sync.WaitGroup
	copying.Go(func() { c.copy(n.name, io.TeeReader(reader, file)) })
	c.running.Go(func() {
		err := process.Wait() // returns once all that it printed was written to the pipe
		_ = writer.Close()
		copying.Wait()
		_ = file.Close()
		c.events <- event{ended: n, err: err}
	})
	return nil
}

// copy prints lines of a node. A line that is too long is cut into several.
func (c *Cluster) copy(name string, from io.Reader) {
	lines := bufio.NewReaderSize(from, 16<<10)
	for {
		line, err := lines.ReadSlice('\n')
		if len(line) > 0 {
			c.print(name, strings.TrimRight(string(line), "\n"))
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

func (c *Cluster) print(name, line string) {
	c.out.Lock()
	defer c.out.Unlock()
	fmt.Fprintf(c.out.Writer, "%s | %s\n", name, line)
}

// say prints what happens to the cluster.
func (c *Cluster) say(format string, args ...any) {
	for line := range strings.SplitSeq(fmt.Sprintf(format, args...), "\n") {
		c.print("cluster", line)
	}
}

func (c *Cluster) ended(e event) {
	e.ended.process = nil
	how := "ended"
	if e.err != nil {
		how = "ended: " + e.err.Error()
	}
	c.say("%s %s; start %s brings it back", e.ended.name, how, strings.TrimPrefix(e.ended.name, "node-"))
}

// read passes commands on until ctx ends.
func (c *Cluster) read(ctx context.Context) {
	lines := bufio.NewScanner(c.config.In)
	for lines.Scan() {
		select {
		case c.events <- event{command: lines.Text()}:
		case <-ctx.Done():
			return
		}
	}
}

// obey does what a line says, and reports whether it was quit.
func (c *Cluster) obey(ctx context.Context, line, program string) (quit bool) {
	words := strings.Fields(line)
	switch {
	case len(words) == 0:
		return false
	case words[0] == "quit":
		return true
	case words[0] == "status":
		c.status(ctx)
		return false
	}
	var n *node
	if len(words) == 2 {
		if number, err := strconv.Atoi(strings.TrimPrefix(words[1], "node-")); err == nil && number >= 1 && number <= len(c.nodes) {
			n = c.nodes[number-1]
		}
	}
	signal, known := signals[words[0]]
	if n == nil || !known && words[0] != "start" {
		c.say("%q is not understood; %s", line, help)
		return false
	}
	var err error
	switch {
	case words[0] == "start" && n.process != nil:
		err = errors.New("it runs")
	case words[0] == "start":
		err = c.start(n, program)
	case n.process == nil:
		err = errors.New("it does not run")
	default:
		if words[0] == "stop" && n.paused { // else it would not hear it
			err = n.process.Process.Signal(signals["resume"])
		}
		err = errors.Join(err, n.process.Process.Signal(signal))
		n.paused = words[0] == "pause"
	}
	if err != nil {
		c.say("%s %s: %v", words[0], n.name, err)
		return false
	}
	c.say("%s %s: done", words[0], n.name)
	return false
}

// status asks the first node that answers.
func (c *Cluster) status(ctx context.Context) {
	for _, n := range c.nodes {
		state := "runs"
		switch {
		case n.process == nil:
			state = "does not run"
		case n.paused:
			state = "is paused"
		}
		c.say("%s %s %s", n.name, state, n.url)
	}
	if c.config.Status == nil {
		return
	}
	problem := errors.New("no node runs")
	for _, n := range c.nodes {
		if n.process == nil || n.paused {
			continue
		}
		asking, cancel := context.WithTimeout(ctx, 5*time.Second)
		text, err := c.config.Status(asking, n.url)
		cancel()
		if err == nil {
			c.say("%s", strings.TrimRight(text, "\n"))
			return
		}
		problem = err
	}
	c.say("no status: %v", problem)
}

// stop ends every node: in order, and those that don't end by killing them.
func (c *Cluster) stop() error {
	left := 0
	for _, n := range c.nodes {
		if n.process == nil {
			continue
		}
		left++
		if n.paused {
			_ = n.process.Process.Signal(signals["resume"])
		}
		_ = n.process.Process.Signal(signals["stop"])
	}
	late := time.NewTimer(c.config.StopAfter)
	defer late.Stop()
	for left > 0 {
		select {
		case e := <-c.events:
			if e.ended != nil {
				left--
				e.ended.process = nil
			}
		case <-late.C:
			for _, n := range c.nodes {
				if n.process != nil {
					c.say("%s did not end in %s: it is killed", n.name, c.config.StopAfter)
					_ = n.process.Process.Kill()
				}
			}
		}
	}
	c.say("all nodes have ended; their data and logs are in %s", c.config.Dir)
	return nil
}
