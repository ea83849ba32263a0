package system

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// HTTP is the loopback floor: net/http with a handler that does nothing, in a process of its own.
type HTTP struct {
	// Command runs the server, given the address to listen on as last argument.
	Command []string
}

// Name implements System.
func (HTTP) Name() string { return "HTTP floor" }

// Start implements System.
func (h HTTP) Start(ctx context.Context, dir string) (*Instance, error) {
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	i := &Instance{
		Addr:    ports[0],
		request: func(Op, []string) (string, string) { return "/", "{}" },
	}
	argv := append(h.Command[:len(h.Command):len(h.Command)], ports[0].String())
	i.relaunch = func() (*process, error) { return launch(dir, filepath.Join(dir, "log"), argv...) }
	return started(ctx, i)
}

// Perdure is one node of this project.
type Perdure struct {
	// Binary is the built bench/cmd/benchnode.
	Binary string
	// Metrics makes the node count, and Instance.Transactions work. Without, as shipped, it counts nothing.
	Metrics bool
}

// Name implements System.
func (Perdure) Name() string { return "Perdure" }

// Start implements System.
func (p Perdure) Start(ctx context.Context, dir string) (*Instance, error) {
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	if err := makeDirs(data); err != nil {
		return nil, err
	}
	i := &Instance{
		Addr:    ports[0],
		request: perdureRequest,
	}
	arguments := []string{p.Binary, "--data", data, "--listen", ports[0].String()}
	if p.Metrics {
		i.metrics = "/metrics"
		arguments = append(arguments, "--prometheus")
	}
	i.relaunch = func() (*process, error) {
		return launch(dir, filepath.Join(dir, "log"), arguments...)
	}
	return started(ctx, i)
}

func perdureRequest(op Op, keys []string) (path, body string) {
	switch op {
	case Add:
		return "/bench.v1.CounterService/Add", fmt.Sprintf(`{"name":%q,"amount":"1"}`, keys[0])
	case Get:
		return "/bench.v1.CounterService/Get", fmt.Sprintf(`{"name":%q}`, keys[0])
	case Deposit:
		return "/bench.v1.AccountService/Deposit", fmt.Sprintf(`{"name":%q,"amount":"%d"}`, keys[0], DepositAmount)
	case Balance:
		return "/bench.v1.AccountService/Balance", fmt.Sprintf(`{"name":%q}`, keys[0])
	case Transfer:
		return "/bench.v1.TransferService/Transfer", fmt.Sprintf(`{"from":%q,"to":%q,"amount":"1"}`, keys[0], keys[1])
	case AddAll:
		return "/bench.v1.FanOutService/AddAll", Names(keys)
	default:
		return "/bench.v1.StepsService/Run10", steps(keys[0])
	}
}

// DepositAmount is what Deposit puts on an account: more than a benchmark moves away again, one by one.
const DepositAmount = 1_000_000_000

// steps is the body of Run10.
func steps(count string) string { return fmt.Sprintf(`{"steps":%s}`, count) }

// Names is the body of AddAll.
func Names(keys []string) string {
	return fmt.Sprintf(`{"names":["%s"]}`, strings.Join(keys, `","`))
}

// RestateTuning is a configuration of Restate.
type RestateTuning int

// Default is as shipped. Best is the fastest durable one found on a machine with two cores: two partitions instead of
// 24, larger batches, no metrics, and journals that are not retained.
const (
	Default RestateTuning = iota
	Best
)

// Restate is one Restate server and a process with the same handlers on its Go SDK.
type Restate struct {
	// Server is the restate-server program, Service the built module bench/restate.
	Server, Service string
	Tuning          RestateTuning
}

// Name implements System.
func (r Restate) Name() string {
	if r.Tuning == Best {
		return "Restate best"
	}
	return "Restate default"
}

// restateConfig leaves everything as shipped, but for addresses on the loopback device and no telemetry.
const restateConfig = `listen-mode = "tcp"
bind-address = "%[1]s"
advertised-address = "http://%[1]s/"
node-name = "bench"
base-dir = %[2]q
disable-telemetry = true
%[3]s
[ingress]
bind-address = "%[4]s"
advertised-ingress-endpoint = "http://%[4]s/"

[admin]
bind-address = "%[5]s"
advertised-admin-endpoint = "http://%[5]s/"
`

const restateBest = `default-num-partitions = 2
disable-prometheus = true
rocksdb-disable-statistics = true
default-journal-retention = "0s"

[worker]
max-command-batch-size = 256
`

func restateRequest(op Op, keys []string) (path, body string) {
	switch op {
	case Add:
		return "/CounterService/" + keys[0] + "/Add", `{"amount":1}`
	case Get:
		return "/CounterService/" + keys[0] + "/Get", `{}`
	case Deposit:
		return "/AccountService/" + keys[0] + "/Deposit", fmt.Sprintf(`{"amount":%d}`, DepositAmount)
	case Balance:
		return "/AccountService/" + keys[0] + "/Balance", `{}`
	case Transfer:
		return "/TransferService/Transfer", fmt.Sprintf(`{"from":%q,"to":%q,"amount":1}`, keys[0], keys[1])
	case AddAll:
		return "/FanOutService/AddAll", Names(keys)
	default:
		return "/StepsService/Run10", steps(keys[0])
	}
}

// Start implements System.
func (r Restate) Start(ctx context.Context, dir string) (*Instance, error) {
	ports, err := freePorts(4)
	if err != nil {
		return nil, err
	}
	fabric, ingress, admin, service := ports[0], ports[1], ports[2], ports[3]
	data := filepath.Join(dir, "data")
	if err := makeDirs(data); err != nil {
		return nil, err
	}
	tuning := ""
	if r.Tuning == Best {
		tuning = restateBest
	}
	config := filepath.Join(dir, "restate.toml")
	text := fmt.Sprintf(restateConfig, fabric, data, tuning, ingress, admin)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	i := &Instance{
		Addr:      ingress,
		request:   restateRequest,
		keyInPath: true,
		ready: func(ctx context.Context) error {
			_, err := get(ctx, "http://"+ingress.String()+"/restate/health")
			return err
		},
		register: func(ctx context.Context) error {
			_, err := post(ctx, "http://"+admin.String()+"/deployments", fmt.Sprintf(`{"uri":"http://%s"}`, service))
			return err
		},
	}
	// The service runs before the clock of the start starts, since it is not what is measured.
	i.sidecar, err = launch(dir, filepath.Join(dir, "service.log"), r.Service, "-listen", service.String())
	if err != nil {
		return nil, err
	}
	i.relaunch = func() (*process, error) {
		return launch(dir, filepath.Join(dir, "log"), r.Server, "--no-logo", "--config-file", config)
	}
	return started(ctx, i)
}

// started starts i, and stops what runs of it if that fails.
func started(ctx context.Context, i *Instance) (*Instance, error) {
	if err := i.start(ctx); err != nil {
		i.Stop()
		return nil, err
	}
	return i, nil
}
