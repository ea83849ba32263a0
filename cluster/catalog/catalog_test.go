package catalog

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/perdure/perdure/cluster/registry"
	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	"github.com/perdure/perdure/internal/deployment"
	"github.com/perdure/perdure/storage"
	"github.com/perdure/perdure/storage/memstore"
)

// empty is a copy of group 0 that nobody leads.
type empty struct{ store *memstore.Store }

func (empty) Propose(uint64, uint64, []byte) error { return errors.New("nobody leads") }
func (e empty) Snapshot() storage.Snapshot         { return e.store.Snapshot() }

func buildOf(t *testing.T, name string) *deployment.Build {
	t.Helper()
	b, err := deployment.Describe(name, "", "devel", []deployment.Service{{Name: "a.Timestamps", File: timestamppb.File_google_protobuf_timestamp_proto}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// leaderless is a node's catalog while group 0 has no leader.
func leaderless(t *testing.T, file *deployment.Catalog, own *deployment.Build) *Catalog {
	t.Helper()
	r, err := registry.New(registry.Config{Self: registry.Node{ID: 1}, ClusterID: "c", Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Attach(empty{memstore.New(memstore.Options{})}); err != nil {
		t.Fatal(err)
	}
	return New(Config{
		Node: 1, Own: own, Registry: r, Client: &registry.Client{Registry: r}, File: file, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Census: func(context.Context) (deployment.Census, error) { return nil, errors.New("nobody answers") },
	})
}

// TestAdmitWithoutLeader: a node that has a file goes by it, and one that has none waits.
func TestAdmitWithoutLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own, file := buildOf(t, "v2"), deployment.InMemory()
		if err := file.Started(buildOf(t, "v1"), nil, time.Now()); err != nil {
			t.Fatal(err)
		}
		if err := leaderless(t, file, own).Admit(t.Context()); err != nil {
			t.Errorf("with a file: %v", err)
		}
		if found := file.List(); len(found) != 2 || found[0].GetId() != "v2" || !file.Restarts(own) {
			t.Errorf("the file has %v", found)
		}
		file = deployment.InMemory()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		err := leaderless(t, file, own).Admit(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "deployment v2 could not be compared with those of the cluster") {
			t.Errorf("without a file: %v", err)
		}
		if found := file.List(); len(found) != 0 {
			t.Errorf("the file of a node that was not admitted has %v", found)
		}
	})
}

// alone is group 0 of one node, which commits at once.
type alone struct {
	store *memstore.Store
	of    *registry.Registry
}

func (a *alone) Snapshot() storage.Snapshot { return a.store.Snapshot() }

func (a *alone) Propose(epoch, sequence uint64, payload []byte) error {
	var batch storage.Batch
	if err := storage.DecodeBatch(payload, func(op storage.Op) {
		if op.Delete {
			batch.Delete(bytes.Clone(op.Key))
			return
		}
		batch.Put(bytes.Clone(op.Key), bytes.Clone(op.Value))
	}); err != nil {
		return err
	}
	if err := a.store.Commit(&batch); err != nil {
		return err
	}
	a.of.Committed(epoch, sequence)
	a.of.Applied(epoch, sequence)
	return nil
}

// bankBuild is a build of accounts, whose balance is a number or, broken, a text.
func bankBuild(t *testing.T, name string, broken bool) *deployment.Build {
	t.Helper()
	var file protoreflect.FileDescriptor = bankv1.File_bank_v1_bank_proto
	if broken {
		changed := protodesc.ToFileDescriptorProto(file)
		for _, message := range changed.MessageType {
			if message.GetName() == "AccountState" {
				message.Field[0].Type = descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum()
			}
		}
		var err error
		if file, err = protodesc.NewFile(changed, protoregistry.GlobalFiles); err != nil {
			t.Fatal(err)
		}
	}
	b, err := deployment.Describe(name, "", "devel", []deployment.Service{{Name: "bank.v1.AccountService", File: file}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestLateLeader: a node that was let in by its file alone is compared once there is a leader. It stops if what
// it runs does not fit, unless that was accepted or harms nothing, and else the cluster knows it and its past.
func TestLateLeader(t *testing.T) {
	states, nothing := deployment.Census{}, deployment.Census{}
	states.Of("bank.v1.AccountService").States = true
	for name, test := range map[string]struct {
		broken, accept bool
		kept           deployment.Census
		silent         bool // nobody says what is kept
		refused        string
	}{
		"fits":                    {kept: states},
		"breaks":                  {broken: true, kept: states, refused: "bank.v1.AccountState.balance: was int64 and is string"},
		"breaks, and is accepted": {broken: true, accept: true, kept: states},
		"breaks nothing kept":     {broken: true, kept: nothing},
		"nobody knows":            {broken: true, silent: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				file, group := deployment.InMemory(), &alone{store: memstore.New(memstore.Options{})}
				if err := file.Started(bankBuild(t, "v1", false), nil, time.Now()); err != nil {
					t.Fatal(err)
				}
				r, err := registry.New(registry.Config{Self: registry.Node{ID: 1}, ClusterID: "c", Partitions: 1, Logger: slog.New(slog.DiscardHandler)})
				if err != nil {
					t.Fatal(err)
				}
				group.of = r
				if err := r.Attach(group); err != nil {
					t.Fatal(err)
				}
				running, stop := context.WithCancel(t.Context())
				go func() { _ = r.Run(running) }()
				c := New(Config{
					Node: 1, Own: bankBuild(t, "v2", test.broken), Registry: r, Client: &registry.Client{Registry: r}, File: file,
					AcceptBreaking: test.accept, Logger: slog.New(slog.DiscardHandler),
					Census: func(context.Context) (deployment.Census, error) {
						if test.silent {
							return nil, errors.New("partition 1 has no leader")
						}
						return test.kept, nil
					},
				})
				if err := c.Admit(t.Context()); err != nil {
					t.Fatalf("without a leader: %v", err)
				}
				ended := make(chan error, 1)
				go func() { ended <- c.Run(running) }()
				r.Lead(1)
				time.Sleep(time.Minute) // in the bubble, where it takes no time
				synctest.Wait()
				self, _ := r.View().Node(1)
				stop()
				err = <-ended
				switch {
				case test.refused != "":
					if err == nil || !strings.Contains(err.Error(), test.refused) || !strings.Contains(err.Error(), "it was so in deployment v1") || self.Deployment != "" {
						t.Errorf("it goes on with %v, registered %q", err, self.Deployment)
					}
				case test.silent:
					if err != nil || self.Deployment != "" {
						t.Errorf("it ends with %v, registered %q", err, self.Deployment)
					}
				case err != nil || self.Deployment != "v2" || len(r.View().Deployments) != 2:
					t.Errorf("it ends with %v, registered %q of %d", err, self.Deployment, len(r.View().Deployments))
				}
			})
		})
	}
}

// TestCensus: what nodes say is added up, and nothing is known unless all partitions are told of.
func TestCensus(t *testing.T) {
	answers := map[uint64][]byte{}
	for node, partitions := range map[uint64][]uint32{1: {1, 3}, 2: {2}} {
		kept := deployment.Census{}
		of := kept.Of("a.S")
		of.States, of.Signals = node == 1, node == 2
		of.InFlight["H"], of.Schedules["G"], of.Prepared = int(node), 1, 1
		encoded, err := EncodeCensus(partitions, kept)
		if err != nil {
			t.Fatal(err)
		}
		answers[node] = encoded
	}
	ask := func(_ context.Context, node uint64) ([]byte, error) {
		if answers[node] == nil {
			return nil, errors.New("it is down")
		}
		return answers[node], nil
	}
	got, err := Census(t.Context(), []uint64{1, 2, 3}, 3, ask)
	if err != nil {
		t.Fatal(err)
	}
	if kept := got.Of("a.S"); !kept.States || !kept.Signals || kept.Rows || kept.Promises || kept.InFlight["H"] != 3 || kept.Schedules["G"] != 2 || kept.Prepared != 2 {
		t.Errorf("%+v", kept)
	}
	if _, err := Census(t.Context(), []uint64{1, 3}, 3, ask); err == nil || !strings.Contains(err.Error(), "no node that answers leads partition 2: node 0000000000000003: it is down") {
		t.Error(err)
	}
	answers[2] = []byte("noise")
	if _, err := Census(t.Context(), []uint64{1, 2}, 3, ask); err == nil || !strings.Contains(err.Error(), "leads partition 2") {
		t.Error(err)
	}
}
