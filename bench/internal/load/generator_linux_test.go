package load

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func addrOf(server *httptest.Server) netip.AddrPort {
	return netip.MustParseAddrPort(server.Listener.Addr().String())
}

// TestGeneratorCountsWhatTheServerAnswered also proves that net/http understands the requests.
func TestGeneratorCountsWhatTheServerAnswered(t *testing.T) {
	var served, inFlight, most atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		most.Store(max(most.Load(), inFlight.Add(1)))
		defer inFlight.Add(-1)
		body, _ := io.ReadAll(r.Body)
		if r.Method != "POST" || r.Header.Get("Content-Type") != "application/json" || !strings.HasPrefix(string(body), `{"k":`) {
			t.Errorf("got %s %s %q", r.Method, r.Header.Get("Content-Type"), body)
		}
		served.Add(1)
		switch string(body) {
		case `{"k":1}`: // too long for one write: net/http sends it in chunks
			io.WriteString(w, strings.Repeat("x", 8000))
		default:
			io.WriteString(w, "{}")
		}
	}))
	defer server.Close()
	g, err := Start(Plan{Addr: addrOf(server), Calls: Single(Post("a", "/", `{"k":0}`), Post("a", "/", `{"k":1}`)), Callers: 4})
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return g.Completed() > 100 })
	g.Record(true)
	before := g.Completed()
	waitFor(t, func() bool { return g.Completed() > before+200 })
	result := g.Stop()
	if result.Failed != 0 || result.Completed != uint64(served.Load()) {
		t.Errorf("completed %d, failed %d (%v), served %d", result.Completed, result.Failed, result.FirstError, served.Load())
	}
	if n := result.Latency.Count(); n < 200 || n >= result.Completed {
		t.Errorf("%d latencies of %d calls, of which at least 200 recorded and 100 not", n, result.Completed)
	}
	if most.Load() > 4 {
		t.Errorf("%d calls at once, want at most the 4 callers", most.Load())
	}
}

func TestGeneratorLimitSendsEachRequestInOrder(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]int{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		seen[string(body)]++
	}))
	defer server.Close()
	var requests [][]byte
	for i := range 50 {
		requests = append(requests, Post("a", "/", fmt.Sprint(i)))
	}
	g, err := Start(Plan{Addr: addrOf(server), Calls: Single(requests...), Callers: 8, Limit: 50})
	if err != nil {
		t.Fatal(err)
	}
	if result := g.Wait(t.Context()); result.Completed != 50 || result.Failed != 0 {
		t.Errorf("completed %d, failed %d: %v", result.Completed, result.Failed, result.FirstError)
	}
	if len(seen) != 50 {
		t.Errorf("%d different requests arrived, want 50", len(seen))
	}
}

func TestGeneratorSurvivesErrorsSilenceAndClosedConnections(t *testing.T) {
	var calls atomic.Int64
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch n := calls.Add(1); {
		case n == 1:
			http.Error(w, "no room", http.StatusServiceUnavailable)
		case n == 2:
			panic(http.ErrAbortHandler) // closes the connection without an answer
		case n == 3:
			<-release // never answers in time
		case n == 4:
			w.Header().Set("Connection", "close")
		}
	}))
	defer server.Close()
	defer close(release)
	g, err := Start(Plan{Addr: addrOf(server), Calls: Single(Post("a", "/", "{}")), Callers: 2, Timeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return g.Completed() > 50 && g.failed.Load() >= 3 })
	result := g.Stop()
	if result.FirstError == nil || result.Failed < 3 || result.Rejected != 0 {
		t.Errorf("failed %d, first error %v, want the 503, the closed connection and the silence", result.Failed, result.FirstError)
	}
	if _, err := Start(Plan{Addr: netip.MustParseAddrPort("127.0.0.1:1"), Calls: Single(nil), Callers: 1}); err == nil {
		t.Error("Start connected to a closed port")
	}
}

// TestGeneratorSendsACallOneByOne calls a server on which every second call is refused in the middle.
func TestGeneratorSendsACallOneByOne(t *testing.T) {
	var mu sync.Mutex
	seen, keys := map[string]int{}, map[string]bool{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		seen[string(body)]++
		keys[r.Header.Get(KeyHeader)] = true
		if string(body) == "refused" {
			http.Error(w, `{"code":"failed_precondition"}`, http.StatusBadRequest)
			return
		}
		io.WriteString(w, `{"change":"2"}`)
	}))
	defer server.Close()
	post := func(body string) []byte { return Post("a", "/", body, KeyHeader, AnyKey) }
	g, err := Start(Plan{
		Addr: addrOf(server), Callers: 3, Limit: 40, Refusal: `"failed_precondition"`,
		Calls:  []Call{{post("first"), post("second")}, {post("third"), post("refused"), post("never")}},
		Change: func(body []byte) (int64, error) { return Number(body, "change") },
	})
	if err != nil {
		t.Fatal(err)
	}
	g.Record(true)
	result := g.Wait(t.Context())
	if result.Completed != 40 || result.Refused != 20 || result.Failed != 0 || result.Changed != 120 {
		t.Errorf("completed %d, refused %d, failed %d (%v), changed %d", result.Completed, result.Refused, result.Failed, result.FirstError, result.Changed)
	}
	for body, want := range map[string]int{"first": 20, "second": 20, "third": 20, "refused": 20, "never": 0} {
		if seen[body] != want {
			t.Errorf("request %q arrived %d times, want %d", body, seen[body], want)
		}
	}
	if len(keys) != 80 {
		t.Errorf("80 requests had %d different keys", len(keys))
	}
}

// counters is a server that is killed and restarted by the tests below; broken makes it forget or repeat.
type counters struct {
	mu      sync.Mutex
	values  map[string]int64
	results map[string]int64
	down    bool
	broken  string
}

func (c *counters) setDown(down bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down = down
}

func (c *counters) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	key, dedup := string(body), r.Header.Get("Idempotency-Key")
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down {
		panic(http.ErrAbortHandler)
	}
	if r.URL.Path == "/add" {
		value, repeated := c.results[dedup]
		if !repeated || c.broken == "twice" && c.values[key]%5 == 0 {
			c.values[key]++
			value = c.values[key]
			c.results[dedup] = value
			if value%50 == 0 { // applied, but the caller does not hear of it
				panic(http.ErrAbortHandler)
			}
		}
		fmt.Fprintf(w, `{"value":"%d"}`, value)
		return
	}
	fmt.Fprintf(w, `{"value":%d}`, c.values[key])
}

// away is how long the server of the tests below is gone: many times as long as a caller waits for a processor on a busy
// machine, for an answer that it reads late cuts the gap.
const away = time.Second

func recovery(t *testing.T, c *counters) Recovered {
	server := httptest.NewServer(c)
	addr := server.Listener.Addr().String()
	r := StartRecovery(RecoveryPlan{
		Addr: addr, Keys: 5, Callers: 4,
		Add: func(key int, idempotencyKey string) []byte {
			return Post("a", "/add", fmt.Sprint(key), "Idempotency-Key", idempotencyKey)
		},
		Read: func(key int) []byte { return Post("a", "/get", fmt.Sprint(key)) },
	})
	waitFor(t, func() bool { return r.Acknowledged() > 300 })
	// As a killed process does: no connection survives, and new ones are refused until the restart.
	server.Listener.Close()
	c.setDown(true)
	server.CloseClientConnections()
	server.Close()
	r.Killed()
	time.Sleep(away)
	c.setDown(false)
	if c.broken == "forgets" {
		c.values["3"]--
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	restarted := &httptest.Server{Listener: listener, Config: &http.Server{Handler: c}}
	restarted.Start()
	defer restarted.Close()
	waitFor(t, r.Resumed)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return r.Finish(ctx)
}

func TestRecoveryAcceptsAServerThatKeepsItsPromise(t *testing.T) {
	outcome := recovery(t, &counters{values: map[string]int64{}, results: map[string]int64{}})
	if len(outcome.Problems) > 0 {
		t.Errorf("problems: %q", outcome.Problems)
	}
	if outcome.Retried == 0 || outcome.Gap < away/2 || outcome.Gap > 10*away || outcome.AllResumed < outcome.Gap || outcome.FirstError == nil {
		t.Errorf("retried %d, gap %v, all resumed %v, first error %v", outcome.Retried, outcome.Gap, outcome.AllResumed, outcome.FirstError)
	}
}

func TestRecoveryCatchesAServerThatBreaksIt(t *testing.T) {
	for _, broken := range []string{"forgets", "twice"} {
		outcome := recovery(t, &counters{values: map[string]int64{}, results: map[string]int64{}, broken: broken})
		if len(outcome.Problems) == 0 {
			t.Errorf("a server that %s went unnoticed in %d calls", broken, outcome.Acknowledged)
		}
	}
}

func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("condition not met within 20 s")
		}
	}
}

func TestLatencyIsFromSendToAnswer(t *testing.T) {
	const delay = 3 * time.Millisecond
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(delay) }))
	defer server.Close()
	g, err := Start(Plan{Addr: addrOf(server), Calls: Single(Post("a", "/", "{}")), Callers: 2})
	if err != nil {
		t.Fatal(err)
	}
	g.Record(true)
	start := time.Now()
	waitFor(t, func() bool { return g.Completed() >= 20 })
	result, elapsed := g.Stop(), time.Since(start)
	// Two callers, one after the other: the sum of the latencies cannot exceed twice the time that passed.
	if least, mean := result.Latency.Quantile(0), result.Latency.Mean(); least < delay*98/100 || mean*time.Duration(result.Latency.Count()) > 2*elapsed+delay {
		t.Errorf("least %v, mean %v of %d calls in %v", least, mean, result.Latency.Count(), elapsed)
	}
}
