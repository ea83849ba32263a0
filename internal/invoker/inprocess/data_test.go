package inprocess_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/apipb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/invoker"
)

// manyRows is more than a scan takes at a time.
func manyRows(d *double) {
	rows := map[string][]byte{}
	for i := range 300 {
		rows[fmt.Sprintf("%03d", i)] = encode(d.t, wrapperspb.String(fmt.Sprint(i)))
	}
	d.mu.tables["ledger"] = rows
}

// editRows changes rows before, in and after the pages of a scan and says what it then sees.
func editRows(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
	rows := ledger(ctx)
	rows.Put("0000", wrapperspb.String("inserted"))
	rows.Put("127", wrapperspb.String("changed"))
	rows.Delete("128")
	rows.Delete("299")
	rows.Delete("never there")
	rows.Put("999", wrapperspb.String("appended"))
	count, last, changed, deleted := 0, "", "", false
	for key, row := range rows.From("") {
		if key <= last {
			return nil, actor.Errorf(actor.Internal, "%s after %s", key, last)
		}
		count, last = count+1, key
		deleted = deleted || key == "128" || key == "299"
		if key == "127" {
			changed = row.Value
		}
	}
	var tail []string
	for key := range rows.From("2985") {
		tail = append(tail, key)
	}
	for range rows.From("") {
		break
	}
	_, gone := rows.Get("299")
	got, _ := rows.Get("127")
	_, none := rows.Get("nope")
	return reply(fmt.Sprint(count, rows.Len(), last, changed, deleted, tail, gone, got.Value, none)), nil
}

func TestTablesMergeWritesWithWhatWasThere(t *testing.T) {
	const want = "300 300 999 changed false [999] false changed false"
	desc := method("t.Thing", "Do", actor.ModeTransaction, editRows)
	d := newDouble(t, newInvoker(t, quiet(), desc))
	manyRows(d)
	if got := text(t, d.run(desc, "")); strings.ReplaceAll(got, " ", "") != strings.ReplaceAll(want, " ", "") {
		t.Error(got)
	}
	if count := len(d.mu.tables["ledger"]); count != 300 {
		t.Errorf("%d rows were committed", count)
	}
	for name, crash := range map[string]func() bool{"durable": nil, "durable, crash at every entry": always} {
		t.Run(name, func(t *testing.T) {
			durably(t, quiet(), func(d *double) { manyRows(d); d.crash = crash }, editRows, nil, func(t *testing.T, d *double, got string) {
				if strings.ReplaceAll(got, " ", "") != strings.ReplaceAll(want, " ", "") {
					t.Error(got)
				}
				if count := len(d.mu.tables["ledger"]); count != 300 {
					t.Errorf("%d rows were written", count)
				}
			})
		})
	}
}

func TestReadSeesTables(t *testing.T) {
	d := newDouble(t, nil)
	manyRows(d)
	got := read(t, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		rows := actor.TableReaderOf[*wrapperspb.StringValue](ctx, "ledger")
		row, ok := rows.Get("007")
		var tail []string
		for key := range rows.From("298") {
			tail = append(tail, key)
		}
		return reply(fmt.Sprintf("%d %s %t %s", rows.Len(), row.GetValue(), ok, tail)), nil
	}, func(r *invoker.Read) { r.Tables = tables{d} })
	if got != "300 7 true [298 299]" {
		t.Error(got)
	}
}

func TestDamagedRowNamesTheTable(t *testing.T) {
	desc := method("t.Thing", "Do", actor.ModeTransaction, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		ledger(ctx).Get("bad")
		return nil, nil
	})
	d := newDouble(t, newInvoker(t, quiet(), desc))
	d.mu.tables["ledger"] = map[string][]byte{"bad": {0xff}}
	if got := text(t, d.run(desc, "")); !matches(got, "data_loss: row \"bad\" in table ledger of t.Thing/k is not a google.protobuf.StringValue*") {
		t.Error(got)
	}
}

// A DURABLE attempt that cannot read its state is tried again: a deploy can heal it.
func TestDamagedStateOfDurableIsRetried(t *testing.T) {
	durably(t, quiet(), func(d *double) { d.mu.state, d.mu.hasState = []byte{0xff}, true }, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		defer func() { _ = recover() }()
		if ctx.Attempt() < 3 {
			number(ctx).Get()
			t.Error("damaged state was read")
		}
		number(ctx).Clear()
		return reply(fmt.Sprint(number(ctx).Get().Value)), nil
	}, nil, func(t *testing.T, d *double, got string) {
		_, retries := d.attempts()
		if len(retries) != 2 || retries[0].Code != uint32(actor.DataLoss) || got != "0" || d.mu.hasState {
			t.Error(got, retries)
		}
	})
}

func TestTransactionCompletesAndCancels(t *testing.T) {
	id := invocation.DerivedID(invocation.Target{Service: "t.Other"}, "x")
	d, outcome := transaction(t, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		if !ctx.Now().Equal(ctx.Now()) || ctx.Attempt() != 1 || ctx.InvocationID() == "" || ctx.UUID() == ctx.UUID() {
			return nil, errors.New("clock, attempt, id or uuid")
		}
		ctx.Logger().Info("logged")
		for _, err := range []error{
			actor.ResolveAwakeable(ctx, ctx, invocation.AwakeableID{Invocation: id, Entry: 3}.String(), 1),
			actor.PromiseOf[*wrapperspb.StringValue](ctx, "p").Reject(ctx, errors.New("no")),
			actor.Attach[*apipb.Mixin](ctx, id.String()).Cancel(ctx),
		} {
			if err != nil {
				return nil, err
			}
		}
		for _, err := range []error{
			actor.ResolveAwakeable(ctx, ctx, "nope", 1),
			actor.Attach[*apipb.Mixin](ctx, "nope").Cancel(ctx),
		} {
			if actor.CodeOf(err) != actor.InvalidArgument {
				return nil, err
			}
		}
		_, attach := actor.Attach[*apipb.Mixin](ctx, id.String()).Attach(ctx)
		_, receive := actor.InboxOf[*apipb.Mixin](ctx, "s").Receive(ctx)
		_, promise := actor.PromiseOf[*apipb.Mixin](ctx, "s").Await(ctx)
		return reply(fmt.Sprint(actor.CodeOf(attach), actor.CodeOf(receive), actor.CodeOf(promise))), nil
	})
	if got := text(t, outcome); got != "failed_precondition failed_precondition failed_precondition" || len(outcome.Entries) != 3 {
		t.Error(got, len(outcome.Entries))
	}
	if d.mu.promises["p"].GetError().GetMessage() != "no" {
		t.Error(d.mu.promises)
	}
}

// A derived ctx that ends while a closure runs ends the Run, the same on replay.
func TestDerivedContextEndsARun(t *testing.T) {
	for name, crash := range map[string]func() bool{"calm": nil, "crash at every entry": always} {
		t.Run(name, func(t *testing.T) {
			durably(t, quiet(), func(d *double) { d.crash = crash }, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
				timed, cancel := context.WithTimeout(ctx, time.Minute)
				defer cancel()
				err := actor.Do(timed, "flaky", func(ctx context.Context) error {
					if crash == nil {
						return errors.New("never")
					}
					return doze(ctx, time.Hour) // a crash between tries would begin the minute anew
				})
				after := actor.Do(ctx, "next", func(context.Context) error { return nil })
				return reply(fmt.Sprint(errors.Is(err, context.DeadlineExceeded), after)), nil
			}, nil, func(t *testing.T, _ *double, got string) {
				if got != "true <nil>" {
					t.Error(got)
				}
			})
		})
	}
}
