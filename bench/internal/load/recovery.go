package load

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// retryAfter is how long a caller of a Recovery waits before it sends a call again.
	retryAfter = 10 * time.Millisecond
	// attemptTimeout is how long it waits for one answer before it tries again on a new connection.
	attemptTimeout = 5 * time.Second
)

// RecoveryPlan says how to call a server that will be killed.
type RecoveryPlan struct {
	Addr    string
	Keys    int
	Callers int
	// Add is the request that adds one to counter key, made idempotent by idempotencyKey. Read reads it.
	Add  func(key int, idempotencyKey string) []byte
	Read func(key int) []byte
}

// Recovery keeps adding to counters, each call retried with its own idempotency key until it is acknowledged, and
// remembers every acknowledged value. Its methods may be called from any goroutine.
type Recovery struct {
	plan         RecoveryPlan
	start        time.Time
	cancel       context.CancelFunc
	stopping     atomic.Bool
	killed       atomic.Bool
	acknowledged atomic.Int64
	resumed      atomic.Int64 // callers that were acknowledged on a connection made after the kill
	callers      sync.WaitGroup

	mu struct {
		sync.Mutex
		acks       []ack
		retried    int
		unanswered int
		firstError error
	}
}

type ack struct {
	caller int
	key    int
	value  int64
	at     time.Duration // since Recovery.start
	after  bool          // on a connection made after the kill
}

// Recovered is what came of it.
type Recovered struct {
	// Acknowledged calls, and how many of them needed more than one attempt.
	Acknowledged, Retried int
	// Gap is the silence callers saw: from the last acknowledgement on an old connection to the first on a new one.
	Gap time.Duration
	// AllResumed is from the same start to the moment when every caller had been acknowledged again.
	AllResumed time.Duration
	// Problems lists what breaks "every acknowledged call took effect exactly once", at most ten; empty is proof for
	// this run.
	Problems []string
	// FirstError is the first failed attempt, expected around the kill.
	FirstError error
}

// StartRecovery begins to call. The caller must call Finish.
func StartRecovery(plan RecoveryPlan) *Recovery {
	ctx, cancel := context.WithCancel(context.Background())
	r := &Recovery{plan: plan, start: time.Now(), cancel: cancel}
	for i := range plan.Callers {
		r.callers.Go(func() { r.call(ctx, i) })
	}
	return r
}

// Acknowledged is how many calls have been acknowledged.
func (r *Recovery) Acknowledged() int { return int(r.acknowledged.Load()) }

// Killed tells that the server is gone. It must be called before the server is started again.
func (r *Recovery) Killed() { r.killed.Store(true) }

// Resumed says whether every caller was acknowledged again after the kill.
func (r *Recovery) Resumed() bool { return int(r.resumed.Load()) == r.plan.Callers }

// call is one caller: a call, retried until acknowledged, then the next.
func (r *Recovery) call(ctx context.Context, caller int) {
	var line *connection
	defer func() { line.close() }()
	resumed := false
	for sequence := 0; !r.stopping.Load(); sequence++ {
		key := (caller*7919 + sequence*31) % r.plan.Keys
		request := r.plan.Add(key, "c"+strconv.Itoa(caller)+"-"+strconv.Itoa(sequence))
		for attempt := 0; ; attempt++ {
			if line == nil {
				line = r.dial(ctx)
			}
			value, err := line.call(request)
			if err == nil {
				r.acknowledge(ack{caller: caller, key: key, value: value, at: time.Since(r.start), after: line.after}, attempt > 0)
				if line.after && !resumed {
					resumed = true
					r.resumed.Add(1)
				}
				break
			}
			r.attemptFailed(err)
			line.close()
			line = nil
			select {
			case <-time.After(retryAfter):
			case <-ctx.Done():
				r.mu.Lock()
				r.mu.unanswered++
				r.mu.Unlock()
				return
			}
		}
	}
}

func (r *Recovery) acknowledge(a ack, retried bool) {
	r.acknowledged.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.acks = append(r.mu.acks, a)
	if retried {
		r.mu.retried++
	}
}

func (r *Recovery) attemptFailed(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.firstError == nil {
		r.mu.firstError = err
	}
}

// Finish starts no further call, gives those in flight until ctx ends, reads every counter back and checks: the values
// acknowledged for a key are exactly 1 to n, and n is what it reads.
func (r *Recovery) Finish(ctx context.Context) Recovered {
	r.stopping.Store(true)
	stop := context.AfterFunc(ctx, r.cancel)
	r.callers.Wait()
	stop()
	r.cancel()

	r.mu.Lock()
	defer r.mu.Unlock()
	outcome := Recovered{Acknowledged: len(r.mu.acks), Retried: r.mu.retried, FirstError: r.mu.firstError}
	outcome.Gap, outcome.AllResumed = silence(r.mu.acks, r.plan.Callers)
	values := make([][]int64, r.plan.Keys)
	for _, a := range r.mu.acks {
		values[a.key] = append(values[a.key], a.value)
	}
	problems := wrongValues(values)
	if r.mu.unanswered > 0 {
		problems = append(problems, fmt.Sprintf("%d calls were never acknowledged", r.mu.unanswered))
	}
	problems = append(problems, r.readBack(ctx, values)...)
	if len(problems) > 10 {
		problems = append(problems[:10], fmt.Sprintf("and %d more", len(problems)-10))
	}
	outcome.Problems = problems
	return outcome
}

// silence finds the gap around the kill and when the last of all callers was back, 0 if some never were.
func silence(acks []ack, callers int) (gap, allResumed time.Duration) {
	var last time.Duration
	back := make(map[int]time.Duration, callers) // first acknowledgement after the kill, by caller
	for _, a := range acks {
		if !a.after {
			last = max(last, a.at)
		} else if at, found := back[a.caller]; !found || a.at < at {
			back[a.caller] = a.at
		}
	}
	if len(back) == 0 {
		return 0, 0
	}
	times := slices.Sorted(maps.Values(back))
	if len(times) == callers {
		allResumed = times[len(times)-1] - last
	}
	// An answer that was read late, by a caller that waited for a processor, can make this negative if the server was
	// hardly away.
	return max(0, times[0]-last), allResumed
}

// wrongValues checks that the values of each key are 1 to n without holes or repeats.
func wrongValues(values [][]int64) (problems []string) {
	for key, got := range values {
		slices.Sort(got)
		for i, value := range got {
			want := int64(i + 1)
			if value == want {
				continue
			}
			verdict := "one is missing"
			if value < want {
				verdict = "one was given twice"
			}
			problems = append(problems, fmt.Sprintf("key %d: value %d of %d acknowledged ones is %d: %s", key, i+1, len(got), value, verdict))
			break
		}
	}
	return problems
}

func (r *Recovery) readBack(ctx context.Context, values [][]int64) []string {
	var mu struct {
		sync.Mutex
		problems []string
	}
	var readers sync.WaitGroup
	next := make(chan int)
	for range min(r.plan.Callers, 16) {
		readers.Go(func() {
			var line *connection
			defer func() { line.close() }()
			for key := range next {
				var value int64
				var err error
				for range 3 { // a server that just restarted may still drop connections
					if line == nil {
						line = r.dial(ctx)
					}
					if value, err = line.call(r.plan.Read(key)); err == nil {
						break
					}
					line.close()
					line = nil
				}
				mu.Lock()
				switch want := int64(len(values[key])); {
				case err != nil:
					mu.problems = append(mu.problems, fmt.Sprintf("key %d: cannot be read back: %v", key, err))
				case value < want:
					mu.problems = append(mu.problems, fmt.Sprintf("key %d: reads %d after %d acknowledged calls: lost", key, value, want))
				case value > want:
					mu.problems = append(mu.problems, fmt.Sprintf("key %d: reads %d after %d acknowledged calls: applied twice", key, value, want))
				}
				mu.Unlock()
			}
		})
	}
	for key := range values {
		next <- key
	}
	close(next)
	readers.Wait()
	slices.Sort(mu.problems)
	return mu.problems
}

// connection is a keep-alive connection of one caller. A nil connection fails every call.
type connection struct {
	net.Conn
	after bool // made after the kill
	err   error
	buf   []byte
}

func (r *Recovery) dial(ctx context.Context) *connection {
	dialer := net.Dialer{Timeout: attemptTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", r.plan.Addr)
	// Asked once the connection stands: one that was made just before the kill is then taken for a new one at worst, and
	// it will never be answered. Asked before, a slow dial that reaches the new server would be taken for an old one.
	after := r.killed.Load()
	return &connection{Conn: conn, after: after, err: err, buf: make([]byte, 0, 4096)}
}

// call sends request and returns the field value of the answer.
func (c *connection) call(request []byte) (int64, error) {
	if c.err != nil {
		return 0, c.err
	}
	if err := c.SetDeadline(time.Now().Add(attemptTimeout)); err != nil {
		return 0, err
	}
	if _, err := c.Write(request); err != nil {
		return 0, err
	}
	c.buf = c.buf[:0]
	for {
		c.buf = slices.Grow(c.buf, 1024)
		n, err := c.Read(c.buf[len(c.buf):cap(c.buf)])
		c.buf = c.buf[:len(c.buf)+n]
		if response, taken, bad := parse(c.buf); bad != nil {
			return 0, bad
		} else if taken > 0 {
			if response.Status != 200 {
				return 0, fmt.Errorf("status %d: %.200s", response.Status, response.Body)
			}
			if response.Close {
				c.err = net.ErrClosed
			}
			return Value(response.Body)
		}
		if err != nil {
			return 0, err
		}
	}
}

func (c *connection) close() {
	if c != nil && c.Conn != nil {
		c.Conn.Close()
	}
}
