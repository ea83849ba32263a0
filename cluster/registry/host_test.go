package registry

import (
	"context"
	"encoding/hex"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/cluster/placement"
	"github.com/perdure/perdure/cluster/replica"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/storage/memstore"
	"github.com/perdure/perdure/storage/nodelog"
	"github.com/perdure/perdure/storage/vfs"
)

// TestHost keeps a registry in a real group with one voter, and starts it again.
func TestHost(t *testing.T) {
	disk, store := vfs.NewMem(), memstore.New(memstore.Options{})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	run := func(self Node, before, with func(*Registry)) {
		t.Helper()
		log, err := nodelog.Open(nodelog.Options{Dir: "log", FS: disk, SegmentBytes: 256 << 10, MinFreeBytes: -1})
		if err != nil {
			t.Fatal(err)
		}
		defer log.Close()
		host, err := replica.Open(replica.Config{
			Log: log, Store: store, NodeID: self.ID, Groups: []replica.GroupID{0, 1}, Found: true, Logger: slog.New(slog.DiscardHandler), MaxApplyDelay: time.Millisecond,
		})
		if err != nil {
			t.Fatal(err)
		}
		r, err := New(Config{Self: self, ClusterID: "c", Partitions: 1, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Attach(host.Attach(0, r)); err != nil {
			t.Fatal(err)
		}
		before(r)
		running, stop := context.WithCancel(ctx)
		ended := make(chan error, 2)
		go func() { ended <- host.Run(running) }()
		go func() { ended <- r.Run(running) }()
		defer func() {
			stop()
			for range 2 {
				if err := <-ended; err != nil {
					t.Error(err)
				}
			}
		}()
		with(r)
	}
	wait := func(r *Registry, what string, ok func(*View) bool) {
		t.Helper()
		for {
			view, changed := r.Changed()
			if ok(view) {
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				t.Fatalf("%s: %+v", what, view)
			}
		}
	}
	self := Node{ID: 7, Transport: "a:1", Version: "v1"}
	run(self, func(*Registry) {}, func(r *Registry) {
		client := &Client{Registry: r}
		if err := client.Announce(ctx); err != nil {
			t.Fatal(err)
		}
		if err := client.Admit(ctx, Node{ID: 8, Transport: "b:1", Version: "v1"}); err != nil {
			t.Fatal(err)
		}
		if err := client.SetNodeState(ctx, 8, placement.Draining); err != nil {
			t.Fatal(err)
		}
		wait(r, "three changes", func(v *View) bool { return v.Version == 3 })
	})
	// It comes back with another address.
	self.Transport = "c:1"
	run(self, func(r *Registry) {
		if view := r.View(); view.Version != 3 || len(view.Nodes) != 2 || view.Epoch != 0 {
			t.Errorf("before it runs: %+v", view)
		}
	}, func(r *Registry) {
		wait(r, "the new address", func(v *View) bool { node, _ := v.Node(7); return v.Version == 4 && node.Transport == "c:1" })
		if node, _ := r.View().Node(8); node.State != placement.Draining || node.Transport != "b:1" || node.FeatureLevel != FeatureLevel {
			t.Errorf("the other node: %+v", node)
		}
	})
}

// TestRowsAreFrozen compares rows with what is on disks already.
func TestRowsAreFrozen(t *testing.T) {
	marshal := func(m proto.Message) string {
		data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return hex.EncodeToString(data)
	}
	for _, test := range []struct{ name, got, want string }{
		{"key of a node", hex.EncodeToString(nodeKey(0x0102030405060708)), "4e0102030405060708"},
		{"key of the settings", hex.EncodeToString(settingsKey), "53"},
		{
			"node", marshal(&recordv1.ClusterNode{
				Id: 1, TransportAddress: "t", IngressAddress: "i", Zone: "z", Version: "v", FeatureLevel: 2, State: recordv1.NodeState_NODE_STATE_REMOVED, AdmittedAt: 3, StateAt: 4,
			}), "080112017" + "41a01692201" + "7a2a0176300238034003" + "4804",
		},
		{
			"settings", marshal(&recordv1.ClusterSettings{
				ClusterId: "c", Partitions: 1, FoundedAt: 2, ReplicationFactor: 3, FeatureLevel: 4, FeatureLevelLimit: 5, Version: 6,
			}), "0a016310011802200328043005" + "3806",
		},
	} {
		if test.got != test.want {
			t.Errorf("%s: %s, on disks it is %s", test.name, test.got, test.want)
		}
	}
}

// TestUnknownFields: what a newer version wrote stays when an older one changes the row.
func TestUnknownFields(t *testing.T) {
	newer := []byte{0xa2, 0x06, 0x01, 'x'} // field 100
	row := &recordv1.ClusterNode{Id: 1, State: recordv1.NodeState_NODE_STATE_ACTIVE}
	row.ProtoReflect().SetUnknown(newer)
	s := newState()
	s.settings = &recordv1.ClusterSettings{FeatureLevel: 1}
	s.settings.ProtoReflect().SetUnknown(newer)
	s.nodes[1], s.nodes[2] = row, &recordv1.ClusterNode{Id: 2, State: recordv1.NodeState_NODE_STATE_ACTIVE}
	for _, change := range []*recordv1.ClusterChange{
		Admission(Node{ID: 1, Transport: "a:1"}), StateChange(1, placement.Draining), SettingChange(SettingReplicationFactor, "5"),
	} {
		if err := s.change(change, 1); err != nil {
			t.Fatal(err)
		}
	}
	if string(s.nodes[1].ProtoReflect().GetUnknown()) != string(newer) || string(s.settings.ProtoReflect().GetUnknown()) != string(newer) {
		t.Error("unknown fields are lost")
	}
}
