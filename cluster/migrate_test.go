package cluster_test

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/cluster"
	adminv1 "github.com/perdure/perdure/proto/perdure/admin/v1"
)

// wrapped makes "v2(x)" of "x" in version 1, and so on; "bad" can't be migrated, "worse" panics.
func wrapped(from uint32, runs *atomic.Int32) actor.StateMigration {
	return actor.MigrateState(from, func(old *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
		if runs != nil {
			runs.Add(1)
		}
		switch old.GetValue() {
		case "bad":
			return nil, errors.New("on purpose")
		case "worse":
			panic("on purpose too")
		}
		return wrapperspb.String(fmt.Sprintf("v%d(%s)", from+1, old.GetValue())), nil
	})
}

// versioned is a program whose Thing has a state of a version; Wait changes the state twice.
func versioned(t *testing.T, version int, migrations ...actor.StateMigration) *program {
	t.Helper()
	get := func(ctx actor.Context, _ string) (string, error) {
		return actor.StateReaderOf[*wrapperspb.StringValue](ctx).Get().GetValue(), nil
	}
	text := builtA
	if version > 1 {
		text = strings.Replace(text, `state: "St"`, fmt.Sprintf(`state: "St" state_version: %d`, version), 1)
	}
	p := newProgram(t, text, handlers{
		"Thing/Set": func(ctx actor.Context, root string) (string, error) {
			was := textState(ctx).Get().GetValue()
			textState(ctx).Set(wrapperspb.String(root))
			if now := textState(ctx).Get().GetValue(); now != root {
				return "", fmt.Errorf("set %q and got %q", root, now)
			}
			return was, nil
		},
		"Thing/Get": get,
		"Thing/Wait": func(ctx actor.Context, root string) (string, error) {
			was := textState(ctx).Get().GetValue()
			if err := textDo(ctx, "one"); err != nil {
				return "", err
			}
			textState(ctx).Set(wrapperspb.String(was + "+" + root))
			if root == "sleeps" {
				if err := actor.Sleep(ctx, 500*time.Millisecond); err != nil {
					return "", err
				}
			}
			between := textState(ctx).Get().GetValue()
			textState(ctx).Set(wrapperspb.String(between + "+done"))
			return was + " " + textState(ctx).Get().GetValue(), textDo(ctx, "two")
		},
	})
	p.migrations["Thing"] = migrations
	return p
}

func storedState(t *testing.T, node *cluster.Node, key string) string {
	t.Helper()
	found := &adminv1.GetStateResponse{}
	adminCall(t, node, "GetState", &adminv1.GetStateRequest{Service: "t.v1.Thing", Key: key}, found)
	return found.GetStateJson() + found.GetNote()
}

// TestMigratesLazilyAndOnce: a state is migrated when a handler looks at it, by each that does until
// one writes it, and never again.
func TestMigratesLazilyAndOnce(t *testing.T) {
	for name, opts := range waysOnDisk {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			must := func(got string, err error) string {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
				return got
			}
			one := versioned(t, 1)
			node := one.node(dir, opts...)
			mustStart(t, node)
			for _, key := range []string{"a", "b", "d"} {
				must(one.call(t, node, "Thing/Set", key, "x"))
			}
			stopNode(t, node)

			var runs atomic.Int32
			two := versioned(t, 2, wrapped(1, &runs))
			node = two.node(dir, opts...)
			mustStart(t, node)
			if runs.Load() != 0 {
				t.Error("not lazy")
			}
			for range 2 {
				if got := must(two.call(t, node, "Thing/Get", "a", "")); got != "v2(x)" {
					t.Error(got)
				}
			}
			if runs.Load() != 2 || !strings.Contains(storedState(t, node, "a"), "of version 1: handlers see it migrated to version 2") {
				t.Error(runs.Load(), storedState(t, node, "a"))
			}
			if got := must(two.call(t, node, "Thing/Set", "a", "y")); got != "v2(x)" {
				t.Error(got)
			}
			after := runs.Load()
			if got := must(two.call(t, node, "Thing/Get", "a", "")); got != "y" || runs.Load() != after || storedState(t, node, "a") != `"y"` {
				t.Error(got, runs.Load(), storedState(t, node, "a"))
			}
			if got := must(two.call(t, node, "Thing/Wait", "d", "z")); got != "v2(x) v2(x)+z+done" {
				t.Error(got)
			}
			after = runs.Load()
			if got := must(two.call(t, node, "Thing/Get", "d", "")); got != "v2(x)+z+done" || runs.Load() != after {
				t.Error(got)
			}
			stopNode(t, node)

			three := versioned(t, 3, wrapped(2, nil), wrapped(1, nil))
			node = three.node(dir, opts...)
			mustStart(t, node)
			for key, want := range map[string]string{"a": "v3(y)", "b": "v3(v2(x))", "none": ""} {
				if got := must(three.call(t, node, "Thing/Get", key, "")); got != want {
					t.Errorf("%s: %q, want %q", key, got, want)
				}
			}
			must(three.call(t, node, "Thing/Set", "b", "new"))
			stopNode(t, node)

			// A build that knows less is refused, and if it must, refuses the states alone.
			if err := two.node(dir, opts...).Start(t.Context()); err == nil || !strings.Contains(err.Error(), "state_version was 3 and is 2") {
				t.Error(err)
			}
			node = two.node(dir, append(opts, cluster.WithBreakingChanges())...)
			mustStart(t, node)
			_, err := two.call(t, node, "Thing/Get", "b", "")
			if actor.CodeOf(err) != actor.FailedPrecondition || !strings.Contains(err.Error(), "has version 3, and this build knows up to 2") {
				t.Error(err)
			}
			if got := must(two.call(t, node, "Thing/Get", "a", "")); got != "y" {
				t.Error(got)
			}
			stopNode(t, node)
		})
	}
}

// TestMigratesUnderWay: a handler that wrote the state as one version goes on with the next.
func TestMigratesUnderWay(t *testing.T) {
	for name, opts := range waysOnDisk {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			one := versioned(t, 1)
			node := one.node(dir, opts...)
			mustStart(t, node)
			if _, err := one.call(t, node, "Thing/Set", "k", "x"); err != nil {
				t.Fatal(err)
			}
			waits := one.send(t, node, "Thing/Wait", "k", "sleeps")
			awaitInvocation(t, node, waits.ID(), func(i *adminv1.Invocation) bool { return i.GetEntries() >= 3 })
			stopNode(t, node)
			two := versioned(t, 2, wrapped(1, nil))
			node = two.node(dir, opts...)
			mustStart(t, node)
			defer stopNode(t, node)
			awaitInvocation(t, node, waits.ID(), func(i *adminv1.Invocation) bool { return i.GetCompletedAt() != nil })
			// What was recorded counts: "x+sleeps", migrated.
			if got, err := two.call(t, node, "Thing/Get", "k", ""); err != nil || got != "v2(x+sleeps)+done" {
				t.Error(got, err)
			}
		})
	}
}

// TestMigrationFails: only who looks at that state is concerned.
func TestMigrationFails(t *testing.T) {
	dir := t.TempDir()
	one := versioned(t, 1)
	node := one.node(dir)
	mustStart(t, node)
	for _, key := range []string{"bad", "worse", "good"} {
		if _, err := one.call(t, node, "Thing/Set", key, key); err != nil {
			t.Fatal(err)
		}
	}
	stopNode(t, node)
	two := versioned(t, 2, wrapped(1, nil))
	node = two.node(dir, cluster.WithPartitions(2))
	mustStart(t, node)
	for key, want := range map[string]string{"bad": ": on purpose", "worse": "the migration panicked: on purpose too"} {
		for _, handler := range []string{"Thing/Set", "Thing/Get"} {
			_, err := two.call(t, node, handler, key, "y")
			if actor.CodeOf(err) != actor.Internal || !strings.Contains(err.Error(), "the state of t.v1.Thing/"+key+" can't be migrated from version 1 to 2: ") || !strings.Contains(err.Error(), want) {
				t.Errorf("%s %s: %v", handler, key, err)
			}
		}
	}
	waits := two.send(t, node, "Thing/Wait", "bad", "y")
	paused := awaitInvocation(t, node, waits.ID(), func(i *adminv1.Invocation) bool {
		return i.GetStatus() == adminv1.InvocationStatus_INVOCATION_STATUS_PAUSED
	})
	if !strings.Contains(paused.GetLastFailure().GetMessage(), "can't be migrated from version 1 to 2: on purpose") {
		t.Error(paused)
	}
	if got, err := two.call(t, node, "Thing/Set", "good", "y"); err != nil || got != "v2(good)" {
		t.Error(got, err)
	}
	stopNode(t, node)
}

// TestMigrationsAreChecked: what can't lead to the current version is refused at start.
func TestMigrationsAreChecked(t *testing.T) {
	other := actor.MigrateState(1, func(*wrapperspb.StringValue) (*wrapperspb.Int64Value, error) { return nil, nil })
	for want, p := range map[string]*program{
		"state_version is 2, and StateMigrations has none":                       versioned(t, 2),
		"there is no migration from version 2, but one from version 1":           versioned(t, 3, wrapped(1, nil)),
		"there is a migration from version 2, and state_version is 2":            versioned(t, 2, wrapped(1, nil), wrapped(2, nil)),
		"there is a migration from version 1, and state_version is 1":            versioned(t, 1, wrapped(1, nil)),
		"there are two migrations from version 1":                                versioned(t, 2, wrapped(1, nil), wrapped(1, nil)),
		"makes a google.protobuf.Int64Value, and version 2 is a google.protobuf": versioned(t, 2, other),
		"from version 0": versioned(t, 2, wrapped(0, nil), wrapped(1, nil)),
	} {
		if err := p.node(t.TempDir()).Start(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %s: %v", want, err)
		}
	}
	node := versioned(t, 3, wrapped(2, nil)).node(t.TempDir()) // states of version 1 are known not to be there any more
	mustStart(t, node)
	stopNode(t, node)
}

// wrappedRows is wrapped for the rows of "lines".
func wrappedRows(from uint32, runs *atomic.Int32) actor.StateMigration {
	migration := wrapped(from, runs)
	migration.Table = "lines"
	return migration
}

// withRows is a program whose Thing has rows of a version. Set puts a row, Get lists all of them, and
// Wait changes those that a loop and a Get give it.
func withRows(t *testing.T, version int, migrations ...actor.StateMigration) *program {
	t.Helper()
	text := builtA
	if version > 1 {
		text = strings.Replace(text, `value: "Line"}]`, fmt.Sprintf(`value: "Line" version: %d}]`, version), 1)
	}
	p := newProgram(t, text, handlers{
		"Thing/Set": func(ctx actor.Context, root string) (string, error) {
			key, value, _ := strings.Cut(root, "=")
			was, _ := textLines(ctx).Get(key)
			textLines(ctx).Put(key, wrapperspb.String(value))
			if now, ok := textLines(ctx).Get(key); !ok || now.GetValue() != value {
				return "", fmt.Errorf("put %q and got %v", value, now)
			}
			return was.GetValue(), nil
		},
		"Thing/Get": func(ctx actor.Context, _ string) (string, error) {
			var all []string
			for key, row := range actor.TableReaderOf[*wrapperspb.StringValue](ctx, "lines").From("") {
				all = append(all, key+"="+row.GetValue())
			}
			return strings.Join(all, " "), nil
		},
		"Thing/Wait": func(ctx actor.Context, root string) (string, error) {
			for key, row := range textLines(ctx).From("") {
				textLines(ctx).Put(key, wrapperspb.String(row.GetValue()+"+"+root))
			}
			if root == "sleeps" {
				if err := actor.Sleep(ctx, 500*time.Millisecond); err != nil {
					return "", err
				}
			}
			first, _ := textLines(ctx).Get("a")
			textLines(ctx).Put("a", wrapperspb.String(first.GetValue()+"+done"))
			textLines(ctx).Delete("gone")
			return first.GetValue(), textDo(ctx, "two")
		},
	})
	p.migrations["Thing"] = migrations
	return p
}

// TestMigratesRows: each row by itself, when a handler comes to it, until it is put.
func TestMigratesRows(t *testing.T) {
	for name, opts := range waysOnDisk {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			must := func(want, got string, err error) {
				t.Helper()
				if err != nil || got != want {
					t.Errorf("got %q, %v, want %q", got, err, want)
				}
			}
			one := withRows(t, 1)
			node := one.node(dir, opts...)
			mustStart(t, node)
			for _, row := range []string{"a=x", "b=y", "gone=z"} {
				got, err := one.call(t, node, "Thing/Set", "k", row)
				must("", got, err)
				got, err = one.call(t, node, "Thing/Set", "sleeper", row)
				must("", got, err)
			}
			waits := one.send(t, node, "Thing/Wait", "sleeper", "sleeps")
			awaitInvocation(t, node, waits.ID(), func(i *adminv1.Invocation) bool { return i.GetEntries() >= 4 })
			stopNode(t, node)

			var runs atomic.Int32
			two := withRows(t, 2, wrappedRows(1, &runs))
			node = two.node(dir, opts...)
			mustStart(t, node)
			awaitInvocation(t, node, waits.ID(), func(i *adminv1.Invocation) bool { return i.GetCompletedAt() != nil })
			got, err := two.call(t, node, "Thing/Get", "sleeper", "")
			must("a=v2(x+sleeps)+done b=v2(y+sleeps)", got, err)

			got, err = two.call(t, node, "Thing/Get", "k", "")
			must("a=v2(x) b=v2(y) gone=v2(z)", got, err)
			got, err = two.call(t, node, "Thing/Set", "k", "a=new")
			must("v2(x)", got, err)
			runs.Store(0)
			got, err = two.call(t, node, "Thing/Get", "k", "")
			must("a=new b=v2(y) gone=v2(z)", got, err)
			if runs.Load() != 2 {
				t.Errorf("%d migrations, want those of b and gone", runs.Load())
			}
			state := &adminv1.GetStateResponse{}
			adminCall(t, node, "GetState", &adminv1.GetStateRequest{Service: "t.v1.Thing", Key: "k"}, state)
			if rows := state.GetTables()[0].GetRows(); rows[0].GetValueJson() != `"new"` || !strings.Contains(rows[1].GetNote(), "of version 1: handlers see it migrated to version 2") {
				t.Error(rows)
			}
			got, err = two.call(t, node, "Thing/Wait", "k", "w")
			must("new+w", got, err)
			got, err = two.call(t, node, "Thing/Set", "k", "bad=1")
			must("", got, err)
			stopNode(t, node)

			three := withRows(t, 3, wrappedRows(2, nil))
			node = three.node(dir, opts...)
			mustStart(t, node)
			got, err = three.call(t, node, "Thing/Get", "k", "")
			must("a=v3(new+w+done) b=v3(v2(y)+w) bad=v3(1)", got, err)
			got, err = three.call(t, node, "Thing/Set", "k", "bad=2")
			must("v3(1)", got, err)
			stopNode(t, node)
			if err := two.node(dir, opts...).Start(t.Context()); err == nil || !strings.Contains(err.Error(), `table "lines" had version 3 and has 2`) {
				t.Error(err)
			}
			node = two.node(dir, append(opts, cluster.WithBreakingChanges())...)
			mustStart(t, node)
			_, err = two.call(t, node, "Thing/Get", "k", "")
			if actor.CodeOf(err) != actor.FailedPrecondition || !strings.Contains(err.Error(), `row "bad" in table lines of t.v1.Thing/k has version 3, and this build knows up to 2`) {
				t.Error(err)
			}
			stopNode(t, node)
		})
	}
}

// TestRowMigrationFails: a row that can't be migrated concerns those that come to it.
func TestRowMigrationFails(t *testing.T) {
	dir := t.TempDir()
	one := withRows(t, 1)
	node := one.node(dir)
	mustStart(t, node)
	for _, row := range []string{"a=fine", "b=bad"} {
		if _, err := one.call(t, node, "Thing/Set", "k", row); err != nil {
			t.Fatal(err)
		}
	}
	stopNode(t, node)
	two := withRows(t, 2, wrappedRows(1, nil))
	node = two.node(dir)
	mustStart(t, node)
	defer stopNode(t, node)
	const want = `row "b" in table lines of t.v1.Thing/k can't be migrated from version 1 to 2: on purpose`
	for _, call := range []struct{ handler, root string }{{"Thing/Get", ""}, {"Thing/Set", "b=new"}} {
		if _, err := two.call(t, node, call.handler, "k", call.root); actor.CodeOf(err) != actor.Internal || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", call.handler, err)
		}
	}
	if got, err := two.call(t, node, "Thing/Set", "k", "a=new"); err != nil || got != "v2(fine)" {
		t.Error(got, err)
	}
	waits := two.send(t, node, "Thing/Wait", "k", "w")
	awaitInvocation(t, node, waits.ID(), func(i *adminv1.Invocation) bool {
		return i.GetStatus() == adminv1.InvocationStatus_INVOCATION_STATUS_PAUSED && strings.Contains(i.GetLastFailure().GetMessage(), want)
	})
}

// TestRowMigrationsAreChecked: as those of states.
func TestRowMigrationsAreChecked(t *testing.T) {
	elsewhere := wrappedRows(1, nil)
	elsewhere.Table = "nowhere"
	for want, p := range map[string]*program{
		`table "lines": its version is 2, and StateMigrations has none: return actor.MigrateRows("lines", 1, …)`: withRows(t, 2),
		`table "lines": there is no migration from version 2, but one from version 1`:                            withRows(t, 3, wrappedRows(1, nil)),
		`from version 1, and table "lines": its version is 1: raise it to 2`:                                     withRows(t, 1, wrappedRows(1, nil)),
		`a migration of table "nowhere", and there is no such table`:                                             withRows(t, 2, elsewhere),
	} {
		if err := p.node(t.TempDir()).Start(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %s: %v", want, err)
		}
	}
}

// TestLoopOverStoredRows: what a loop yields from the disk is not overwritten by what it reads on.
func TestLoopOverStoredRows(t *testing.T) {
	dir := t.TempDir()
	p := withRows(t, 1)
	node := p.node(dir)
	mustStart(t, node)
	var want []string
	for i := range 300 {
		row := fmt.Sprintf("%03d=%d", i, i*i)
		want = append(want, row)
		if _, err := p.call(t, node, "Thing/Set", "k", row); err != nil {
			t.Fatal(err)
		}
	}
	stopNode(t, node)
	node = p.node(dir)
	mustStart(t, node)
	defer stopNode(t, node)
	if got, err := p.call(t, node, "Thing/Get", "k", ""); err != nil || got != strings.Join(want, " ") {
		t.Errorf("%v\n%.400s", err, got)
	}
}
