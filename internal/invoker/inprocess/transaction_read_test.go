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
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// A READ handler that is part of a transaction can do what it can do by itself.
func TestReadInATransaction(t *testing.T) {
	look := method("t.Other", "Look", actor.ModeRead, nil)
	trial{mode: actor.ModeRead, prepare: func(d *double) {
		answers(d)
		d.mu.state, d.mu.hasState = encode(d.t, wrapperspb.Int64(40)), true
		d.mu.tables["ledger"] = map[string][]byte{"a": encode(d.t, wrapperspb.String("A"))}
		d.writes = []*recordv1.Entry{tablePut(d.t, "b", "B")}
		d.peek = func(name string) (*recordv1.Result, error) {
			switch name {
			case "done":
				return value(d.t, wrapperspb.String("dave")), nil
			case "damaged":
				return nil, errors.New("cannot read")
			}
			return nil, nil
		}
	}, run: func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		other, err := actor.Invoke[*apipb.Mixin](ctx, ctx, look, "o", nil, nil)
		if err != nil {
			return nil, err
		}
		rows := actor.TableReaderOf[*wrapperspb.StringValue](ctx, "ledger")
		row, _ := rows.Get("b")
		promise := func(name string) actor.Promise[*wrapperspb.StringValue] {
			return actor.PromiseOf[*wrapperspb.StringValue](ctx, name)
		}
		if err := promise("open").Resolve(ctx, wrapperspb.String("me")); err != nil {
			return nil, err
		}
		if err := actor.ResolveAwakeable(ctx, ctx, invocation.AwakeableID{Entry: 1}.String(), 1); err != nil {
			return nil, err
		}
		done, isDone, err := promise("done").Peek(ctx)
		if err != nil {
			return nil, err
		}
		_, isOpen, err := promise("open").Peek(ctx)
		if err != nil {
			return nil, err
		}
		_, _, damaged := promise("damaged").Peek(ctx)
		return reply(fmt.Sprint(number(ctx).Get().Value, " ", other.Root, " ", row.Value, rows.Len(), done.Value, isDone, isOpen, " ", damaged)), nil
	}, check: func(t *testing.T, d *double, got string) {
		entries := d.ending().Entries
		if got != "40 o: B2davetrue false cannot read" || len(entries) != 2 || entries[0].GetCompletePromise().GetName() != "open" || entries[1].GetCompleteAwakeable() == nil {
			t.Error(got, entries)
		}
	}}.test(t)
}

// What a READ handler can't do it is told in the same words in a transaction and outside one.
func TestReadInATransactionIsRefusedTheSame(t *testing.T) {
	id := invocation.DerivedID(invocation.Target{Service: "t.Other"}, "x").String()
	for name, run := range map[string]func(actor.Context) error{
		"state":     func(ctx actor.Context) error { number(ctx).Set(wrapperspb.Int64(1)); return nil },
		"clear":     func(ctx actor.Context) error { number(ctx).Clear(); return nil },
		"row":       func(ctx actor.Context) error { ledger(ctx).Put("a", wrapperspb.String("x")); return nil },
		"delete":    func(ctx actor.Context) error { ledger(ctx).Delete("a"); return nil },
		"cancel":    func(ctx actor.Context) error { return actor.Attach[*apipb.Mixin](ctx, id).Cancel(ctx) },
		"run":       func(ctx actor.Context) error { return actor.Do(ctx, "x", func(context.Context) error { return nil }) },
		"sleep":     func(ctx actor.Context) error { return actor.Sleep(ctx, time.Second) },
		"awakeable": func(ctx actor.Context) error { _, err := actor.NewAwakeable[int](ctx).Await(ctx); return err },
		"await": func(ctx actor.Context) error {
			_, err := actor.PromiseOf[*wrapperspb.StringValue](ctx, "p").Await(ctx)
			return err
		},
		"receive": func(ctx actor.Context) error {
			_, err := actor.InboxOf[*apipb.Mixin](ctx, "s").Receive(ctx)
			return err
		},
		"send": func(ctx actor.Context) error {
			_, err := actor.InvokeSend[*apipb.Mixin](ctx, ctx, called, "o", nil, nil)
			return err
		},
		"call": func(ctx actor.Context) error { _, err := ask(ctx, ctx, "o", "q"); return err },
	} {
		t.Run(name, func(t *testing.T) {
			refused := func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) { return nil, run(ctx) }
			alone := strings.ReplaceAll(read(t, refused, nil), "t.Thing/Look", "t.Thing/Do")
			trial{mode: actor.ModeRead, run: refused, check: func(t *testing.T, d *double, got string) {
				if !strings.HasPrefix(got, "failed_precondition: ") || got != alone || len(d.ending().Entries) != 0 {
					t.Errorf("got  %s\nwant %s", got, alone)
				}
			}}.test(t)
		})
	}
}
