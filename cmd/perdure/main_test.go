package main

import (
	"context"
	"flag"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/perdure/perdure/cluster"
	counterv1 "github.com/perdure/perdure/examples/counter/gen/counter/v1"
	counter "github.com/perdure/perdure/examples/counter/gen/counter/v1/counterv1perdure"
	"github.com/perdure/perdure/internal/admin"
	"github.com/perdure/perdure/internal/ingress"
	perdurev1 "github.com/perdure/perdure/proto/perdure/v1"
)

var update = flag.Bool("update", false, "write what the scripts got as what they expect from now on")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"perdure": main})
}

// TestScripts runs testdata/*.txtar. Those whose name starts with "node" talk to a real node
// with the counter example's service, the others to one whose data is made up (see shop), so
// that all that is printed can be compared.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata",
		UpdateScripts: *update,
		Setup: func(env *testscript.Env) error {
			env.Setenv("TZ", "UTC")
			env.Setenv("SUSPENDED", id(1).String())
			env.Setenv("FAILED", id(2).String())
			env.Setenv("BACKING_OFF", id(3).String())
			env.Setenv("UNKNOWN", id(4).String())
			env.Setenv("IN_DOUBT", id(5).String())
			env.Setenv("PREPARING", id(6).String())
			env.Setenv("WAITING", id(7).String())
			env.Setenv("COMMITTED", id(8).String())
			if err := writeSchemas(env.WorkDir); err != nil {
				return err
			}
			start := startFake
			if name := strings.TrimPrefix(filepath.Base(env.WorkDir), "script-"); strings.HasPrefix(name, "node") {
				start = startNode
			}
			addr, stop, err := start(env)
			if err != nil {
				return err
			}
			env.Defer(stop)
			env.Setenv("PERDURE_ADDR", addr)
			return nil
		},
	})
}

func startFake(*testscript.Env) (addr string, stop func(), err error) {
	router := &shopRouter{}
	quiet := slog.New(slog.DiscardHandler)
	deployments, err := deploymentsOf(services())
	if err != nil {
		return "", nil, err
	}
	inspector, err := admin.New(admin.Config{Router: router, Services: services(), Deployments: deployments, Deployment: "v2", Logger: quiet, Node: nodeInfo, Cluster: newFour(deployments), Now: func() time.Time { return time.UnixMilli(noon) }})
	if err != nil {
		return "", nil, err
	}
	edge, err := ingress.New(ingress.Config{Router: router, Services: services(), Others: []ingress.Other{inspector}, Logger: quiet})
	if err != nil {
		return "", nil, err
	}
	server := httptest.NewServer(edge)
	return server.URL, server.Close, nil
}

// counters is the counter example's handler.
type counters struct{}

func (counters) Add(ctx counter.CounterTxContext, req *counterv1.AddRequest) (*counterv1.AddResponse, error) {
	state := ctx.State().Get()
	state.Value += req.Amount
	ctx.State().Set(state)
	return &counterv1.AddResponse{Value: state.Value}, nil
}

func (counters) Get(ctx counter.CounterReadContext, _ *counterv1.GetRequest) (*counterv1.GetResponse, error) {
	return &counterv1.GetResponse{Value: ctx.State().Get().Value}, nil
}

func startNode(env *testscript.Env) (addr string, stop func(), err error) {
	node := cluster.NewNode(cluster.WithListen("127.0.0.1:0"), cluster.WithDataDir(filepath.Join(env.WorkDir, "data")),
		cluster.WithPartitions(2), cluster.WithDeployment("counter-1"), cluster.WithLogger(slog.New(slog.DiscardHandler)))
	counter.RegisterCounterHandler(node, counters{})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := node.Start(ctx); err != nil {
		return "", nil, err
	}
	return node.URL(), func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = node.Shutdown(ctx) // of a node whose data is thrown away
	}, nil
}

// writeSchemas writes the counter's schema as old.binpb, and as new.binpb with another kind.
func writeSchemas(dir string) error {
	set := &descriptorpb.FileDescriptorSet{}
	var add func(file protoreflect.FileDescriptor)
	seen := map[string]bool{}
	add = func(file protoreflect.FileDescriptor) {
		if seen[file.Path()] {
			return
		}
		seen[file.Path()] = true
		for i := range file.Imports().Len() {
			add(file.Imports().Get(i).FileDescriptor)
		}
		set.File = append(set.File, protodesc.ToFileDescriptorProto(file))
	}
	add(counterv1.File_counter_v1_counter_proto)
	write := func(name string) error {
		encoded, err := proto.Marshal(set)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, name), encoded, 0o600)
	}
	if err := write("old.binpb"); err != nil {
		return err
	}
	changed := proto.CloneOf(set)
	set = changed
	service := set.File[len(set.File)-1].Service[0]
	options := proto.GetExtension(service.Options, perdurev1.E_Service).(*perdurev1.ServiceOptions)
	options = proto.CloneOf(options)
	options.State = "AddRequest"
	proto.SetExtension(service.Options, perdurev1.E_Service, options)
	return write("new.binpb")
}

// TestLinksNoEngine: the command is installed on laptops and in images; it must stay small, and
// build without what a node is made of.
func TestLinksNoEngine(t *testing.T) {
	output, err := exec.Command("go", "list", "-deps", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, output)
	}
	for _, dependency := range strings.Fields(string(output)) {
		for _, banned := range []string{"badger", "raft", "perdure/cluster", "perdure/storage", "internal/engine", "internal/partition", "connectrpc.com"} {
			if strings.Contains(dependency, banned) {
				t.Errorf("it links %s", dependency)
			}
		}
	}
}
