package inprocess_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/apipb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/perdure/perdure/actor"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// tablePut is a row of an earlier call; "" removes it.
func tablePut(t testing.TB, key, text string) *recordv1.Entry {
	put := &recordv1.TablePut{Table: "ledger", Key: key, Delete: text == ""}
	if text != "" {
		put.Value = encode(t, wrapperspb.String(text))
	}
	return &recordv1.Entry{Entry: &recordv1.Entry_TablePut{TablePut: put}}
}

// edit is a write to a row; "" removes it.
type edit struct{ key, text string }

func (e edit) apply(to map[string]string) {
	if e.text == "" {
		delete(to, e.key)
	} else {
		to[e.key] = e.text
	}
}

// TestRowsOfEarlierCalls goes through every history of one row: stored or not, then up to two
// writes by earlier calls, then up to two by the attempt itself.
func TestRowsOfEarlierCalls(t *testing.T) {
	writes := [][]string{{}, {"x"}, {""}, {"x", "y"}, {"x", ""}, {"", "x"}, {"", ""}}
	var stored, earlier, own []edit
	for _, was := range []string{"", "s"} {
		for _, before := range writes {
			for _, now := range writes {
				key := fmt.Sprintf("%03d", len(stored))
				stored = append(stored, edit{key, was})
				for _, text := range before {
					earlier = append(earlier, edit{key, text})
				}
				for _, text := range now {
					own = append(own, edit{key, text})
				}
			}
		}
	}
	checkRows(t, stored, earlier, own)
}

func TestRowsOfEarlierCallsAtRandom(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			some := func(count int) (edits []edit) {
				for range count {
					text := ""
					if random.IntN(3) > 0 {
						text = fmt.Sprint("v", random.IntN(1000))
					}
					edits = append(edits, edit{fmt.Sprintf("%03d", random.IntN(400)), text})
				}
				return edits
			}
			checkRows(t, some(600), some(random.IntN(300)), some(random.IntN(300))) // more than a page
		})
	}
}

func checkRows(t *testing.T, stored, earlier, own []edit) {
	t.Helper()
	want := map[string]string{}
	for _, e := range stored {
		e.apply(want)
	}
	rowsBefore := maps.Clone(want)
	for _, e := range earlier {
		e.apply(want)
	}
	desc := method("t.Thing", "Do", actor.ModeTransaction, func(ctx actor.Context, _ *apipb.Mixin) (*apipb.Mixin, error) {
		rows := ledger(ctx)
		compare(t, "before it writes", rows, want)
		for _, e := range own {
			if e.text == "" {
				rows.Delete(e.key)
			} else {
				rows.Put(e.key, wrapperspb.String(e.text))
			}
			e.apply(want)
			if rows.Len() != len(want) {
				t.Errorf("after %v it has %d rows, want %d", e, rows.Len(), len(want))
			}
		}
		compare(t, "after it wrote", rows, want)
		return nil, nil
	})
	d := newDouble(t, newInvoker(t, quiet(), desc))
	d.mu.tables["ledger"] = map[string][]byte{}
	for key, text := range rowsBefore {
		d.mu.tables["ledger"][key] = encode(t, wrapperspb.String(text))
	}
	for _, e := range earlier {
		d.writes = append(d.writes, tablePut(t, e.key, e.text))
	}
	outcome := d.run(desc, "")
	if got := text(t, outcome); got != "" {
		t.Fatal(got)
	}
	// The outcome has the attempt's own rows, each once and as it left it.
	last := map[string]string{}
	for _, e := range own {
		last[e.key] = e.text
	}
	for _, entry := range outcome.Entries {
		put := entry.GetTablePut()
		text, written := last[put.GetKey()]
		if !written || put.GetDelete() != (text == "") || !put.GetDelete() && decode(t, put.GetValue(), new(wrapperspb.StringValue)).Value != text {
			t.Errorf("the outcome has %v", put)
		}
		delete(last, put.GetKey())
	}
	if len(last) > 0 {
		t.Errorf("the outcome lacks %v", last)
	}
}

func compare(t *testing.T, when string, rows actor.Table[*wrapperspb.StringValue], want map[string]string) {
	t.Helper()
	if rows.Len() != len(want) {
		t.Errorf("%s: %d rows, want %d", when, rows.Len(), len(want))
	}
	for _, from := range []string{"", "050", "0505", "399"} {
		var got, wanted []string
		for key, row := range rows.From(from) {
			got = append(got, key+"="+row.Value)
		}
		for _, key := range slices.Sorted(maps.Keys(want)) {
			if key >= from {
				wanted = append(wanted, key+"="+want[key])
			}
		}
		if strings.Join(got, " ") != strings.Join(wanted, " ") {
			t.Errorf("%s, from %q:\ngot  %v\nwant %v", when, from, got, wanted)
		}
	}
	for number := range 400 {
		key := fmt.Sprintf("%03d", number)
		row, ok := rows.Get(key)
		if text, there := want[key]; ok != there || ok && row.Value != text {
			t.Errorf("%s: row %s is %q, %t; want %q, %t", when, key, row.GetValue(), ok, text, there)
		}
	}
}
