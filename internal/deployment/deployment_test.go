package deployment

import (
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/storage/vfs"
)

var (
	timestamps = Service{"a.Timestamps", timestamppb.File_google_protobuf_timestamp_proto}
	durations  = Service{"a.Durations", durationpb.File_google_protobuf_duration_proto}
	structs    = Service{"a.Structs", structpb.File_google_protobuf_struct_proto}
)

func describe(t *testing.T, name, build string, services ...Service) *Build {
	t.Helper()
	b, err := Describe(name, build, "devel", services)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDescribe(t *testing.T) {
	one := describe(t, "", "git 1", timestamps, durations)
	same := describe(t, "", "git 1", durations, timestamps)
	if one.ID() != same.ID() || !strings.HasPrefix(one.ID(), "dep_") || len(one.ID()) != 20 {
		t.Error(one.ID(), same.ID())
	}
	for name, other := range map[string]*Build{
		"another build":       describe(t, "", "git 2", timestamps, durations),
		"another service":     describe(t, "", "git 1", timestamps, durations, Service{Name: "a.More"}),
		"another file":        describe(t, "", "git 1", timestamps, Service{durations.Name, structs.File}),
		"a service that left": describe(t, "", "git 1", timestamps),
	} {
		if other.ID() == one.ID() {
			t.Errorf("%s: the same id", name)
		}
	}
	if named := describe(t, "v7", "git 1", timestamps, durations); named.ID() != "v7" || named.record.GetFingerprint() != one.record.GetFingerprint() {
		t.Error(named.record)
	}
	for name, fine := range map[string]bool{"": true, "v1.2-rc_1": true, "-v": false, "a b": false, "ü": false, strings.Repeat("x", 64): false} {
		if err := CheckName(name); (err == nil) != fine {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func ids(c *Catalog) string {
	var list []string
	for _, d := range c.List() {
		list = append(list, d.GetId()+" "+strings.TrimPrefix(d.GetStatus().String(), "DEPLOYMENT_STATUS_"))
	}
	return strings.Join(list, ", ")
}

// TestCatalog: what was acknowledged is there after a power cut, and what wasn't leaves it whole.
func TestCatalog(t *testing.T) {
	disk := vfs.NewMem()
	if err := disk.MkdirAll("/d"); err != nil {
		t.Fatal(err)
	}
	open := func() *Catalog {
		t.Helper()
		c, err := Open(disk, "/d/deployments")
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	at := time.UnixMilli(1000)
	c := open()
	one, two := describe(t, "one", "", timestamps), describe(t, "two", "", durations)
	for _, b := range []*Build{one, two} {
		if err := c.Started(b, []string{"accepted by " + b.ID()}, at); err != nil { // the clock stands still
			t.Fatal(err)
		}
	}
	if err := c.SetStatus("two", recordv1.DeploymentStatus_DEPLOYMENT_STATUS_DRAINING); err != nil {
		t.Fatal(err)
	}
	disk = disk.PowerCut(1)
	c = open()
	if got := ids(c); got != "two DRAINING, one ACTIVE" {
		t.Error(got)
	}
	if schema, err := c.Schema("one"); err != nil || len(schema.GetFile()) != 1 || schema.GetFile()[0].GetName() != "google/protobuf/timestamp.proto" {
		t.Error(schema, err)
	}
	// A restart of what drains goes on draining; what comes back after another is active.
	for _, step := range []struct {
		started *Build
		want    string
	}{{two, "two DRAINING, one ACTIVE"}, {one, "one ACTIVE, two DRAINING"}, {two, "two ACTIVE, one ACTIVE"}} {
		if err := c.Started(step.started, nil, at); err != nil {
			t.Fatal(err)
		}
		if got := ids(c); got != step.want {
			t.Errorf("%s, want %s", got, step.want)
		}
	}
	if d, err := c.Get("one"); err != nil || len(d.GetAccepted()) != 1 {
		t.Error(d, err)
	}
	if err := c.SetStatus("three", 1); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
	if err := c.Started(describe(t, "one", "", structs), nil, at); err == nil || !strings.Contains(err.Error(), "name of another build") {
		t.Error(err)
	}
	if before := c.Before("two"); before.GetId() != "one" || c.Before("one") != nil {
		t.Error(before)
	}
}

// TestCatalogUnderPowerCuts cuts the power at every write: what is found is what was before or
// after.
func TestCatalogUnderPowerCuts(t *testing.T) {
	for cut := 0; ; cut++ {
		disk := vfs.NewMem()
		c, err := Open(disk, "/d/deployments")
		if err == nil {
			err = c.Started(describe(t, "one", "", timestamps), nil, time.UnixMilli(1))
		}
		if err != nil {
			t.Fatal(err)
		}
		disk.CutPowerAfter(cut)
		err = c.Started(describe(t, "two", "", durations), nil, time.UnixMilli(2))
		if got := ids(c); (err != nil) == strings.Contains(got, "two") {
			t.Errorf("cut %d: %v, and in memory %s", cut, err, got)
		}
		after, openErr := Open(disk.PowerCut(uint64(cut)), "/d/deployments")
		if openErr != nil {
			t.Fatalf("cut %d: %v", cut, openErr)
		}
		if got := ids(after); got != "two ACTIVE, one ACTIVE" && (err == nil || got != "one ACTIVE") {
			t.Errorf("cut %d: %v, and then %s", cut, err, got)
		}
		if err == nil {
			return
		}
	}
}
