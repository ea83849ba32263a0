//go:build unix

package chaos

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"

	bench "github.com/perdure/perdure/bench/gen/bench/v1/benchv1perdure"
	"github.com/perdure/perdure/cluster"
	bank "github.com/perdure/perdure/examples/bank/gen/bank/v1/bankv1perdure"
	lists "github.com/perdure/perdure/internal/chaos/gen/chaos/v1/chaosv1perdure"
)

var (
	chaosFor    = flag.Duration("chaos.for", 10*time.Second, "how long a node is killed again and again under load")
	chaosTimers = flag.Int("chaos.timers", 20_000, "how many delayed sends outlive a kill")
	chaosSpread = flag.Duration("chaos.spread", time.Minute, "over how long the delayed sends are spread")
	chaosSeed   = flag.Uint64("chaos.seed", 0, "seed of the choices made, 0 for a new one; the timing of a run is never the same")
)

// The environment of a child: nodeSettings as JSON.
const nodeEnvironment = "PERDURE_CHAOS_NODE"

// nodeSettings is what a test chooses for its child.
type nodeSettings struct {
	Partitions         uint32
	MaxMessageBytes    int
	MemoryBytes        int64
	TransactionTimeout time.Duration
	InactivityTimeout  time.Duration
	// EffectsFile is where handlers note what they did to the world outside.
	EffectsFile string
	// WithoutSteps: the node does not host the service of steps.
	WithoutSteps bool
}

// TestMain is a node instead of tests when it is started as one.
func TestMain(m *testing.M) {
	text := os.Getenv(nodeEnvironment)
	if text == "" {
		os.Exit(m.Run())
	}
	var settings nodeSettings
	if err := json.Unmarshal([]byte(text), &settings); err != nil {
		fmt.Fprintln(os.Stderr, nodeEnvironment, err)
		os.Exit(2)
	}
	effects, err := openEffects(settings.EffectsFile)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	cluster.Main(func(n *cluster.Node) {
		bench.RegisterCounterHandler(n, counters{effects: effects})
		if !settings.WithoutSteps {
			bench.RegisterStepsHandler(n, steps{effects})
		}
		bank.RegisterAccountHandler(n, accounts{})
		bank.RegisterTransferHandler(n, transfers{})
		bank.RegisterBackOfficeHandler(n, backOffice{})
		lists.RegisterListHandler(n, listed{})
		lists.RegisterBatchHandler(n, batches{})
		lists.RegisterLimitedHandler(n, limited{effects})
		registerPrograms(n)
	}, cluster.WithConfig(cluster.Config{
		Partitions: settings.Partitions, MaxMessageBytes: settings.MaxMessageBytes, MemoryBytes: settings.MemoryBytes, MaxResultBytes: 64 << 20,
		TransactionTimeout: settings.TransactionTimeout, InactivityTimeout: settings.InactivityTimeout,
		DrainTimeout: time.Second,
		Validator:    func(m proto.Message) error { return protovalidate.Validate(m) },
	}))
}

// choices is the test's source of randomness; its seed is printed if the test fails.
func choices(t *testing.T) *rand.Rand {
	seed := *chaosSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed: -chaos.seed=%d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 0))
}

// upTo is a duration from 0 to most.
func upTo(random *rand.Rand, most time.Duration) time.Duration {
	return time.Duration(random.Int64N(int64(most)))
}
