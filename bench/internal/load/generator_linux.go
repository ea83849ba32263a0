package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/perdure/perdure/bench/internal/histogram"
)

const (
	// reconnectAfter is how long a caller waits after its connection failed before it dials again.
	reconnectAfter = 20 * time.Millisecond
	// pollEvery bounds how long the loop sleeps, and so how late it notices Stop and calls that take too long.
	pollEvery = 10 * time.Millisecond
)

// Plan says what to call.
type Plan struct {
	// Addr is the server's IPv4 address and port.
	Addr netip.AddrPort
	// Calls are what callers ask for. Start may change the bytes of requests with an AnyKey, so these belong to one plan.
	Calls []Call
	// Callers is how many calls are in flight at any time, each on a connection of its own.
	Callers int
	// Timeout is how long one call may take before it counts as failed and its connection is dropped. Defaults to 10 s.
	Timeout time.Duration
	// Limit, when positive, makes the calls in order, that many in all, and then ends by itself. Otherwise each call is
	// drawn at random until Stop.
	Limit int
	// Change, when not nil, reads from an answer with status 200 by how much its request changed the sum of all objects.
	Change func(body []byte) (int64, error)
	// Refusal, when not empty, is what the body of an answer holds that is no failure although its status is not 200: the
	// handler did not want to, and changed nothing. The call ends there and counts as completed and as refused.
	Refusal string
}

// Generator keeps calls in flight from one operating system thread. Its methods may be called from any goroutine.
type Generator struct {
	plan      Plan
	recording atomic.Bool
	stopping  atomic.Bool
	completed atomic.Uint64
	failed    atomic.Uint64
	refused   atomic.Uint64
	rejected  atomic.Uint64
	done      chan struct{} // closed by the loop when it has ended

	// Owned by the loop; others read them only after done is closed.
	latency    histogram.Histogram
	firstError error
	changed    int64
	random     *rand.Rand
	anyKey     [len(AnyKey)]byte // the last key that was made up
	issued     int
	inFlight   int
	epoll      int
	conns      []conn
	buffer     []byte
}

// conn is one caller.
type conn struct {
	fd       int // -1 while there is no connection
	busy     bool
	rest     Call      // what of its call was not sent yet
	sentAt   time.Time // of the first request of its call
	dialAt   time.Time // when fd is -1: not before
	leftover []byte    // start of a response that is not complete
}

// Result is what the calls of one generator came to.
type Result struct {
	// Latency holds the calls that succeeded while recording was on.
	Latency *histogram.Histogram
	// Completed and Failed count all calls since the start. A call whose outcome is unknown counts as failed. Refused is
	// how many of the completed ones ended with the plan's refusal, Rejected how many of the failed ones ended with an
	// answer after which a transaction changed nothing: 4xx but for 499 (the caller left), 501 (no such thing here) or 504
	// (it took too long and was rolled back).
	Completed, Failed, Refused, Rejected uint64
	// Changed is the sum of what the plan's Change read from all answers, those of calls that failed later included.
	Changed int64
	// FirstError is why the first failed call failed; nil when none did.
	FirstError error
}

// Start connects all callers and begins to call. The caller must call Stop, or Wait when the plan has a limit.
func Start(plan Plan) (*Generator, error) {
	if len(plan.Calls) == 0 || plan.Callers < 1 || !plan.Addr.Addr().Is4() {
		return nil, fmt.Errorf("load: plan has %d calls, %d callers, address %s; want at least 1, 1 and IPv4", len(plan.Calls), plan.Callers, plan.Addr)
	}
	if i := slices.IndexFunc(plan.Calls, func(c Call) bool { return len(c) == 0 }); i >= 0 {
		return nil, fmt.Errorf("load: call %d of the plan has no request; want at least 1", i)
	}
	if plan.Timeout == 0 {
		plan.Timeout = 10 * time.Second
	}
	epoll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("load: epoll: %w", err)
	}
	g := &Generator{
		plan:   plan,
		done:   make(chan struct{}),
		random: rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0)),
		epoll:  epoll,
		conns:  make([]conn, plan.Callers),
		buffer: make([]byte, 64<<10),
	}
	// Two generators must not make up the same key, so each begins at another one.
	copy(g.anyKey[:], fmt.Sprintf("%08x%012d", g.random.Uint32(), 0))
	for i := range g.conns {
		g.conns[i].fd = -1
	}
	for i := range g.conns {
		if err := g.dial(i); err != nil {
			g.closeAll()
			return nil, fmt.Errorf("load: connection %d of %d to %s: %w", i+1, plan.Callers, plan.Addr, err)
		}
	}
	go g.loop()
	return g, nil
}

// Record says whether calls that end from now on are put into the latencies.
func (g *Generator) Record(on bool) { g.recording.Store(on) }

// Completed is how many calls have succeeded since the start.
func (g *Generator) Completed() uint64 { return g.completed.Load() }

// Refused is how many of them ended with the plan's refusal.
func (g *Generator) Refused() uint64 { return g.refused.Load() }

// Stop sends no further call, waits for those in flight (at most the plan's timeout) and returns the result.
func (g *Generator) Stop() Result {
	g.stopping.Store(true)
	return g.result()
}

// Wait returns the result once the plan's limit is reached, or stops early when ctx ends.
func (g *Generator) Wait(ctx context.Context) Result {
	select {
	case <-g.done:
	case <-ctx.Done():
		g.stopping.Store(true)
	}
	return g.result()
}

func (g *Generator) result() Result {
	<-g.done
	return Result{
		Latency: &g.latency, Completed: g.completed.Load(), Failed: g.failed.Load(), Refused: g.refused.Load(),
		Rejected: g.rejected.Load(), Changed: g.changed, FirstError: g.firstError,
	}
}

// loop owns every connection. It blocks in epoll_wait on a thread of its own: going through the runtime's poller would
// cost a second read and a goroutine switch per call.
func (g *Generator) loop() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(g.done)
	defer g.closeAll()

	now := time.Now()
	for i := range g.conns {
		g.send(i, now)
	}
	events := make([]syscall.EpollEvent, len(g.conns))
	sweepAt := now.Add(pollEvery)
	for !g.finished() {
		n, err := syscall.EpollWait(g.epoll, events, int(pollEvery/time.Millisecond))
		if err != nil && err != syscall.EINTR {
			g.fail(fmt.Errorf("epoll_wait: %w", err))
			return
		}
		for _, event := range events[:max(n, 0)] {
			g.receive(int(event.Fd))
		}
		if now = time.Now(); now.After(sweepAt) {
			sweepAt = now.Add(pollEvery)
			g.sweep(now)
		}
	}
}

func (g *Generator) finished() bool {
	limited := g.plan.Limit > 0 && g.issued >= g.plan.Limit
	return (limited || g.stopping.Load()) && g.inFlight == 0
}

// sweep gives up on calls that took too long and dials again where a connection was lost.
func (g *Generator) sweep(now time.Time) {
	for i := range g.conns {
		c := &g.conns[i]
		switch {
		case c.busy && now.Sub(c.sentAt) > g.plan.Timeout:
			g.drop(i, fmt.Errorf("no answer within %s", g.plan.Timeout))
		case c.fd < 0 && now.After(c.dialAt) && !g.stopping.Load():
			if err := g.dial(i); err != nil {
				c.dialAt = now.Add(reconnectAfter)
				g.fail(err)
				continue
			}
			g.send(i, now)
		}
	}
}

// send starts the next call of caller i, unless no more are wanted.
func (g *Generator) send(i int, now time.Time) {
	if g.stopping.Load() || g.plan.Limit > 0 && g.issued >= g.plan.Limit {
		return
	}
	call := g.plan.Calls[0]
	if g.plan.Limit > 0 {
		call = g.plan.Calls[g.issued%len(g.plan.Calls)]
	} else if len(g.plan.Calls) > 1 {
		call = g.plan.Calls[g.random.IntN(len(g.plan.Calls))]
	}
	c := &g.conns[i]
	g.issued++
	g.inFlight++
	c.busy, c.sentAt, c.rest = true, now, call
	g.sendNext(i)
}

// sendNext sends the next request of the call of caller i.
func (g *Generator) sendNext(i int) {
	c := &g.conns[i]
	request := c.rest[0]
	c.rest = c.rest[1:]
	g.makeKey(request)
	// A request is far smaller than a socket's buffer and the last one was answered, so it goes out in one piece.
	if n, err := syscall.Write(c.fd, request); err != nil || n < len(request) {
		g.drop(i, fmt.Errorf("wrote %d of %d bytes: %v", n, len(request), err))
	}
}

// receive reads what caller i was sent and, if that completes its call, starts the next one.
func (g *Generator) receive(i int) {
	c := &g.conns[i]
	if c.fd < 0 {
		return
	}
	n, err := syscall.Read(c.fd, g.buffer)
	switch {
	case err == syscall.EAGAIN || err == syscall.EINTR:
		return
	case err != nil:
		g.drop(i, fmt.Errorf("read: %w", err))
		return
	case n == 0:
		g.drop(i, errors.New("the server closed the connection"))
		return
	}
	received := g.buffer[:n]
	if len(c.leftover) > 0 {
		c.leftover = append(c.leftover, received...)
		received = c.leftover
	}
	response, taken, err := parse(received)
	switch {
	case err != nil:
		g.drop(i, err)
		return
	case taken == 0:
		if len(c.leftover) == 0 {
			c.leftover = append(c.leftover, received...)
		}
		return
	case taken < len(received) || !c.busy:
		g.drop(i, fmt.Errorf("%d bytes that no request asked for", len(received)-taken))
		return
	}
	refused, err := g.judge(response)
	more := err == nil && !refused && len(c.rest) > 0
	c.leftover = c.leftover[:0]
	if more && !response.Close {
		g.sendNext(i)
		return
	}
	now := time.Now()
	c.busy = false
	g.inFlight--
	switch {
	case more:
		g.fail(errors.New("the server closes the connection before the call is complete"))
	case err != nil:
		g.fail(err)
	default:
		g.completed.Add(1)
		if refused {
			g.refused.Add(1)
		}
		if g.recording.Load() {
			g.latency.Record(now.Sub(c.sentAt))
		}
	}
	if response.Close {
		g.disconnect(i)
		return
	}
	g.send(i, now)
}

// judge says whether an answer is a success, a refusal or neither, and adds up what it changed.
func (g *Generator) judge(response Response) (refused bool, err error) {
	switch {
	case response.Status != 200 && g.plan.Refusal != "" && bytes.Contains(response.Body, []byte(g.plan.Refusal)):
		return true, nil
	case response.Status != 200:
		if s := response.Status; s/100 == 4 && s != 499 || s == 501 || s == 504 {
			g.rejected.Add(1)
		}
		return false, fmt.Errorf("status %d: %.200s", response.Status, response.Body)
	case g.plan.Change == nil:
		return false, nil
	}
	change, err := g.plan.Change(response.Body)
	g.changed += change
	return false, err
}

// makeKey writes a key that was not there before over the AnyKey of a request, or over the key that took its place.
func (g *Generator) makeKey(request []byte) {
	at, found := keyAt(request)
	if !found {
		return
	}
	for digit := len(g.anyKey) - 1; ; digit-- {
		if g.anyKey[digit]++; g.anyKey[digit] <= '9' {
			break
		}
		g.anyKey[digit] = '0'
	}
	copy(request[at:], g.anyKey[:])
}

// drop fails the call of caller i and closes its connection.
func (g *Generator) drop(i int, err error) {
	if c := &g.conns[i]; c.busy {
		c.busy = false
		g.inFlight--
		g.fail(err)
	}
	g.disconnect(i)
}

func (g *Generator) disconnect(i int) {
	c := &g.conns[i]
	if c.fd >= 0 {
		syscall.Close(c.fd)
	}
	c.fd, c.leftover = -1, c.leftover[:0]
	c.dialAt = time.Now().Add(reconnectAfter)
}

func (g *Generator) fail(err error) {
	g.failed.Add(1)
	if g.firstError == nil {
		g.firstError = err
	}
}

func (g *Generator) dial(i int) error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	// Connecting blocks, but only for as long as the loopback device takes; reads and writes afterwards must not.
	err = syscall.Connect(fd, &syscall.SockaddrInet4{Port: int(g.plan.Addr.Port()), Addr: g.plan.Addr.Addr().As4()})
	if err == nil {
		err = syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
	}
	if err == nil {
		err = syscall.SetNonblock(fd, true)
	}
	if err == nil {
		err = syscall.EpollCtl(g.epoll, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(i)})
	}
	if err != nil {
		syscall.Close(fd)
		return fmt.Errorf("connect: %w", err)
	}
	g.conns[i].fd = fd
	return nil
}

func (g *Generator) closeAll() {
	for i := range g.conns {
		if g.conns[i].fd >= 0 {
			syscall.Close(g.conns[i].fd)
		}
	}
	syscall.Close(g.epoll)
}
