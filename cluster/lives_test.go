package cluster_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/cluster"
)

var (
	livesSeed = flag.Uint64("lives.seed", 0, "seed of the choices of TestLives, 0 for a new one; the timing of a run is never the same")
	livesFor  = flag.Duration("lives.for", time.Second, "how long the nodes of TestLives come and go")
)

// TestLives: nodes whose starts and stops are cut short at any moment, while others start and stop and handlers run,
// come to their ends, and leave nothing behind that runs.
func TestLives(t *testing.T) {
	before := goroutines()
	seed := *livesSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	l := &lives{
		t: t, seed: seed, stuck: make(chan string, 1),
		a:      newProgram(t, builtA, busyHandlers()),
		b:      newProgram(t, builtMore, busyHandlers()),
		broken: newProgram(t, builtBroken, busyHandlers()),
	}
	for range 3 {
		l.slots = append(l.slots, &slot{dir: t.TempDir(), gossip: freeAddress(t)})
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.run()
	}()
	select {
	case <-ended:
	case what := <-l.stuck:
		stacks := make([]byte, 4<<20)
		t.Fatalf("seed %d: %s; all goroutines:\n%s", seed, what, stacks[:runtime.Stack(stacks, true)])
	}
	if t.Failed() {
		t.Fatalf("seed %d", seed)
	}
	t.Logf("seed %d: %d starts of %d served", seed, l.mu.served, l.mu.started)
	var left []string
	for until := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) { // polling goroutines that end by themselves, until the deadline
		left = nil
		for id, stack := range goroutines() {
			if before[id] == "" {
				left = append(left, stack)
			}
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(until) {
			t.Fatalf("seed %d: all nodes have ended, and these go on:\n%s", seed, strings.Join(left, "\n\n"))
		}
	}
}

// goroutines are the stacks of all but the calling one, by what goroutines are named.
func goroutines() map[string]string {
	stacks := make([]byte, 4<<20)
	found := map[string]string{}
	all := strings.Split(string(stacks[:runtime.Stack(stacks, true)]), "\n\n")
	for _, stack := range all[1:] {
		id, _, _ := strings.Cut(stack, " [")
		found[id] = stack
	}
	return found
}

// busyHandlers take steps as long as they may.
func busyHandlers() handlers {
	h := waitingHandlers()
	h["Job/Do"] = func(ctx actor.Context, root string) (string, error) {
		for step := range 1000 {
			if err := actor.Do(ctx, fmt.Sprint("step ", step), func(ctx context.Context) error { return ctx.Err() }); err != nil {
				return "", err
			}
			if err := actor.Sleep(ctx, time.Millisecond); err != nil {
				return "", err
			}
		}
		return root, nil
	}
	return h
}

// lives are those of the nodes of a cluster.
type lives struct {
	t            *testing.T
	seed         uint64
	a, b, broken *program
	slots        []*slot
	calls        sync.WaitGroup
	stuck        chan string // has room for one: what has not ended in time

	mu struct {
		sync.Mutex
		started, served int
	}
}

// slot is a directory in which one node lives after another.
type slot struct {
	dir, gossip string
}

// end is how a life ends.
type end struct {
	// startFor is how long a start has until it is cut short, by its context or by Shutdown.
	startFor   time.Duration
	byShutdown bool
	// serve returns when a node that has started is to be shut down.
	serve func(*cluster.Node)
	// patience is how long Shutdown may wait for what is under way.
	patience time.Duration
}

const patient = 20 * time.Second

func randomEnd(random *rand.Rand) end {
	e := end{startFor: 3 * time.Second, byShutdown: random.IntN(2) == 0, patience: patient}
	switch random.IntN(4) {
	case 0, 1: // before it waits for other nodes
		e.startFor = time.Duration(random.IntN(400_000)) * time.Microsecond
	case 2:
		e.startFor = time.Duration(random.IntN(2500)) * time.Millisecond
	}
	if random.IntN(2) == 0 {
		e.patience = time.Duration(random.IntN(100_000)) * time.Microsecond
	}
	return e
}

func (l *lives) run() {
	// What is there at first: state, which the broken build does not fit, and an early copy of one of the directories.
	l.together(func(node *cluster.Node) {
		if _, err := l.b.call(l.t, node, "Thing/Set", "kept", "x"); err != nil {
			l.t.Errorf("seed %d: %v", l.seed, err)
		}
	}, func() {})
	early := copied(l.t, l.slots[0].dir)
	var all sync.WaitGroup
	until := time.Now().Add(*livesFor)
	for i, s := range l.slots {
		all.Go(func() {
			random := rand.New(rand.NewPCG(l.seed, uint64(i)))
			for time.Now().Before(until) && !l.t.Failed() {
				p, build := l.build(random)
				e := randomEnd(random)
				serves := time.Duration(random.IntN(700)) * time.Millisecond
				gone := make(chan struct{})
				e.serve = func(node *cluster.Node) {
					l.calls.Go(func() { l.use(node, p, gone) })
					time.Sleep(serves) // that long it lives, by the seed: the moment of its end is what is tried
				}
				_ = l.live(s, p, build, e) // which may fail for any reason
				close(gone)
				time.Sleep(time.Duration(random.IntN(50)) * time.Millisecond) // that long it is down, by the seed
			}
		})
	}
	all.Wait()
	l.ends("calls of nodes that have ended", time.Minute, l.calls.Wait)
	// The cluster is well after all that. Meanwhile others come, which are refused or cut short.
	l.together(func(*cluster.Node) {}, func() {
		for i, dir := range []string{early, l.t.TempDir()} {
			all.Go(func() {
				random := rand.New(rand.NewPCG(l.seed, uint64(100+i)))
				p, build := l.b, "b"
				if dir != early {
					p, build = l.broken, "broken"
				}
				e := randomEnd(random)
				e.startFor = min(e.startFor, 1500*time.Millisecond)
				e.serve = func(*cluster.Node) { l.t.Errorf("seed %d: build %s serves on %s", l.seed, build, dir) }
				_ = l.live(&slot{dir: dir, gossip: freeAddress(l.t)}, p, build, e)
			})
		}
		all.Wait()
	})
}

// together has a node live in each slot: once all of them serve, each does the one thing and somebody the other, and
// then they end.
func (l *lives) together(each func(*cluster.Node), beside func()) {
	var all, serving sync.WaitGroup
	serving.Add(len(l.slots))
	done := make(chan struct{})
	for i, s := range l.slots {
		all.Go(func() {
			var once sync.Once
			defer once.Do(serving.Done)
			err := l.live(s, l.b, "b", end{startFor: 2 * patient, patience: patient, serve: func(node *cluster.Node) {
				each(node)
				once.Do(serving.Done)
				<-done
			}})
			if err != nil {
				l.t.Errorf("seed %d: node %d: %v", l.seed, i, err)
			}
		})
	}
	serving.Wait()
	if !l.t.Failed() {
		beside()
	}
	close(done)
	all.Wait()
}

// build is what a node is started with.
func (l *lives) build(random *rand.Rand) (*program, string) {
	switch random.IntN(8) {
	case 0:
		return l.broken, "broken"
	case 1, 2, 3:
		return l.a, "a"
	}
	return l.b, "b"
}

// live has a node begin and end, and returns the error of its start.
func (l *lives) live(s *slot, p *program, build string, e end) error {
	peers := cluster.Peers{Listen: s.gossip, TransportListen: "127.0.0.1:0"}
	for _, other := range l.slots {
		if other != s {
			peers.Join = append(peers.Join, other.gossip)
		}
	}
	if _, err := os.Stat(filepath.Join(s.dir, "node.json")); err != nil && s == l.slots[0] {
		peers.Join = nil // it founds the cluster
	}
	node := p.node(s.dir, cluster.WithDeployment(build), cluster.WithPeers(peers), func(c *cluster.Config) { c.DrainTimeout = 300 * time.Millisecond })
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	shutDown := func(patience time.Duration) error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		return node.Shutdown(ctx)
	}
	var failed error
	l.ends("a start", time.Minute+e.startFor, func() {
		if !e.byShutdown {
			defer time.AfterFunc(e.startFor, cancel).Stop()
			failed = node.Start(ctx)
			return
		}
		// It waits for the start, which it ends.
		var stopping sync.WaitGroup
		stopping.Add(1)
		stop := time.AfterFunc(e.startFor, func() { defer stopping.Done(); _ = shutDown(e.patience) })
		failed = node.Start(ctx)
		if stop.Stop() {
			stopping.Done()
		}
		stopping.Wait()
	})
	l.mu.Lock()
	l.mu.started++
	if failed == nil {
		l.mu.served++
	}
	l.mu.Unlock()
	if failed == nil {
		e.serve(node)
	}
	l.ends("a shutdown", time.Minute+e.patience, func() {
		// What a stop in haste cuts off is its error.
		if err := shutDown(e.patience); err != nil && failed == nil && e.patience == patient && !e.byShutdown {
			l.t.Errorf("seed %d: shutdown: %v", l.seed, err)
		}
	})
	return failed
}

// ends has do end in time, or the test fails.
func (l *lives) ends(what string, within time.Duration, do func()) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		do()
	}()
	select {
	case <-ended:
	case <-time.After(within):
		select {
		case l.stuck <- fmt.Sprintf("%s goes on after %s", what, within):
		default:
		}
		select {} // the test has failed
	}
}

// use calls a node until it is gone.
func (l *lives) use(node *cluster.Node, p *program, gone <-chan struct{}) {
	web := &http.Client{Transport: &http.Transport{}}
	defer web.CloseIdleConnections()
	var all sync.WaitGroup
	defer all.Wait()
	// A call to a node that is gone is made again until its caller has enough; one in its process is refused.
	dialled, enough := context.WithCancel(context.Background())
	all.Go(func() {
		<-gone
		enough()
	})
	for _, caller := range []struct {
		ctx    context.Context
		client *actor.Client
	}{{context.Background(), node.Client()}, {dialled, cluster.Dial(web, node.URL())}} {
		for _, call := range []struct {
			name, key string
			most      int // of those sent
		}{
			{"Thing/Set", "free", 0}, {"Thing/Get", "free", 0}, {"Job/Do", "", 0}, {"Thing/Set", "held", 0},
			{"Thing/Wait", "held", 5}, {"Job/Do", "", 20},
		} {
			service, handler, _ := strings.Cut(call.name, "/")
			at := slices.IndexFunc(p.services[service].Methods, func(m *actor.MethodDesc) bool { return m.Name == handler })
			method := p.services[service].Methods[at]
			all.Go(func() {
				for i := 0; call.most == 0 || i < call.most; i++ {
					var err error
					key, req := call.key, &mixin{Root: "x"}
					if key == "free" {
						key = fmt.Sprint(key, i%5)
					}
					if call.most > 0 {
						_, err = actor.InvokeSend[*mixin](caller.ctx, caller.client, method, key, req, nil)
					} else {
						_, err = actor.Invoke[*mixin](caller.ctx, caller.client, method, key, req, nil)
					}
					select {
					case <-gone:
						return
					default:
					}
					if err != nil {
						time.Sleep(5 * time.Millisecond) // before the next try; what it waits for, a node that leads, may never come before gone
					}
				}
			})
		}
	}
}
