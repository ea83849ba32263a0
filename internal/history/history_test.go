package history

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// at makes a transaction of process id that ran from began to ended.
func at(id int, began, ended int64, ops ...Op) Txn {
	return Txn{ID: id, Process: id, Began: began, Ended: ended, Ops: ops}
}

// tx makes one that overlaps all others.
func tx(id int, ops ...Op) Txn { return at(id, 0, 1000, ops...) }

func aborted(t Txn) Txn { t.Outcome = Aborted; return t }
func unknown(t Txn) Txn { t.Outcome = Unknown; return t }

func l(values ...int64) []int64 { return values }

func kindsOf(anomalies []Anomaly) []Kind {
	var out []Kind
	for _, a := range anomalies {
		out = append(out, a.Kind)
	}
	return out
}

// TestAnomalies has each anomaly in its smallest form, and beside it what is nearly the same
// and fine.
func TestAnomalies(t *testing.T) {
	rt := Options{Realtime: true}
	ends := func(key string, list ...int64) Options {
		return Options{Realtime: true, Final: map[string][]int64{key: list}}
	}
	tests := []struct {
		name string
		// want is empty for what is fine.
		want []Kind
		opts Options
		txns []Txn
	}{
		{"nothing", nil, rt, nil},
		{"a final list of nothing", nil, ends("x"), nil},

		{"an ID twice", []Kind{Malformed}, rt, []Txn{tx(1, Append("x", 1)), tx(1, Append("x", 2))}},
		{"a value appended twice", []Kind{Malformed}, rt, []Txn{tx(1, Append("x", 1)), tx(2, Append("x", 1)), tx(3, Read("x", l(1, 1)))}},
		{"a value appended to two keys", nil, rt, []Txn{tx(1, Append("x", 1)), tx(2, Append("y", 1))}},
		{"an end before its beginning", []Kind{Malformed}, rt, []Txn{at(1, 5, 4, Append("x", 1))}},
		{"an end before its beginning that nobody asked for", nil, Options{}, []Txn{at(1, 5, 4, Append("x", 1))}},

		{"a doubled append, read", []Kind{DuplicateAppend}, rt, []Txn{tx(1, Append("x", 1)), tx(2, Read("x", l(1, 1)))}},
		{"a doubled append in the end", []Kind{DuplicateAppend}, ends("x", 1, 2, 1), []Txn{tx(1, Append("x", 1)), tx(2, Append("x", 2))}},
		{"a doubled append seen by itself", []Kind{DuplicateAppend}, rt, []Txn{tx(1, Append("x", 1), Read("x", l(1, 1)))}},
		{"a doubled append without an answer", []Kind{DuplicateAppend}, ends("x", 1, 1), []Txn{unknown(tx(1, Append("x", 1)))}},
		{"two appends", nil, ends("x", 1, 2), []Txn{tx(1, Append("x", 1)), tx(2, Append("x", 2))}},

		{"a lost append", []Kind{LostAppend}, ends("x", 2), []Txn{tx(1, Append("x", 1)), tx(2, Append("x", 2))}},
		{"a lost append that was read", []Kind{LostAppend}, ends("x"), []Txn{tx(1, Append("x", 1)), tx(2, Read("x", l(1)))}},
		{"half of what had no answer", []Kind{LostAppend}, Options{Final: map[string][]int64{"x": {1}, "y": nil}},
			[]Txn{unknown(tx(1, Append("x", 1), Append("y", 1)))}},
		{"all of what had no answer", nil, Options{Final: map[string][]int64{"x": {1}, "y": {1}}},
			[]Txn{unknown(tx(1, Append("x", 1), Append("y", 1)))}},
		{"nothing of what had no answer", nil, Options{Final: map[string][]int64{"x": nil, "y": nil}},
			[]Txn{unknown(tx(1, Append("x", 1), Append("y", 1)))}},
		{"an aborted append that is not there", nil, ends("x", 2), []Txn{aborted(tx(1, Append("x", 1))), tx(2, Append("x", 2))}},
		{"a lost append, later", []Kind{LostAppend}, rt, []Txn{at(1, 0, 1, Append("x", 1)), at(2, 2, 3, Read("x", nil))}},
		{"an append nobody read yet", nil, rt, []Txn{at(1, 0, 2, Append("x", 1)), at(2, 1, 3, Read("x", nil))}},
		{"a lost append, later, in any order", nil, Options{}, []Txn{at(1, 0, 1, Append("x", 1)), at(2, 2, 3, Read("x", nil))}},
		{"an append without a final list", nil, ends("y"), []Txn{tx(1, Append("x", 1))}},

		{"garbage", []Kind{UnwrittenRead}, rt, []Txn{tx(1, Read("x", l(7)))}},
		{"garbage in the end", []Kind{UnwrittenRead}, ends("x", 7), nil},
		{"a value of another key", []Kind{UnwrittenRead}, rt, []Txn{tx(1, Append("y", 7)), tx(2, Read("x", l(7)))}},

		{"own append not read", []Kind{Internal}, rt, []Txn{tx(1, Append("x", 1), Read("x", nil))}},
		{"own append read", nil, rt, []Txn{tx(1, Append("x", 1), Read("x", l(1)))}},
		{"own append not last", []Kind{Internal}, rt, []Txn{tx(1, Append("x", 1), Read("x", l(1, 2))), tx(2, Append("x", 2))}},
		{"own append after another's", nil, rt, []Txn{tx(1, Append("x", 1), Read("x", l(2, 1))), tx(2, Append("x", 2))}},
		{"two reads that differ", []Kind{Internal}, rt, []Txn{tx(1, Read("x", nil), Read("x", l(2))), tx(2, Append("x", 2))}},
		{"two reads that differ by its own append", nil, rt, []Txn{tx(1, Read("x", l(2)), Append("x", 1), Read("x", l(2, 1))), tx(2, Append("x", 2))}},
		{"two reads and an unknown one", nil, rt, []Txn{tx(1, Read("x", l(2)), ReadUnknown("x"), Read("x", l(2))), tx(2, Append("x", 2))}},
		{"a read of what it appends later", []Kind{Internal}, rt, []Txn{tx(1, Read("x", l(1)), Append("x", 1))}},
		{"own appends in another order", []Kind{Internal}, ends("x", 2, 1), []Txn{tx(1, Append("x", 1), Append("x", 2))}},
		{"own appends in order", nil, ends("x", 1, 2), []Txn{tx(1, Append("x", 1), Append("x", 2))}},
		{"an aborted one that contradicts itself", nil, rt, []Txn{aborted(tx(1, Append("x", 1), Read("x", nil)))}},
		{"an unknown one nobody saw that contradicts itself", nil, rt, []Txn{unknown(tx(1, Append("x", 1), Read("x", nil)))}},
		{"an unknown one that contradicts itself", []Kind{Internal}, ends("x", 1), []Txn{unknown(tx(1, Append("x", 1), Read("x", nil)))}},

		{"two orders", []Kind{IncompatibleOrder}, rt, []Txn{tx(1, Append("x", 1)), tx(2, Append("x", 2)), tx(3, Read("x", l(1, 2))), tx(4, Read("x", l(2, 1)))}},
		{"two orders, one in the end", []Kind{IncompatibleOrder}, ends("x", 1, 2), []Txn{tx(1, Append("x", 1)), tx(2, Append("x", 2)), tx(3, Read("x", l(2)))}},
		{"a beginning", nil, ends("x", 1, 2), []Txn{tx(1, Append("x", 1)), tx(2, Append("x", 2)), tx(3, Read("x", l(1)))}},

		{"an aborted append, read", []Kind{G1a}, rt, []Txn{aborted(tx(1, Append("x", 1))), tx(2, Read("x", l(1)))}},
		{"an aborted append in the end", []Kind{G1a}, ends("x", 1, 2), []Txn{aborted(tx(1, Append("x", 1))), tx(2, Append("x", 2))}},
		{"an aborted append, read by an aborted one", nil, rt, []Txn{aborted(tx(1, Append("x", 1))), aborted(tx(2, Read("x", l(1))))}},
		{"an aborted append, read by an unknown one nobody saw", nil, rt, []Txn{aborted(tx(1, Append("x", 1))), unknown(tx(2, Append("y", 1), Read("x", l(1))))}},
		{"an aborted append, read by an unknown one", []Kind{G1a}, rt, []Txn{aborted(tx(1, Append("x", 1))), unknown(tx(2, Append("y", 1), Read("x", l(1)))), tx(3, Read("y", l(1)))}},
		{"an append without an answer, read", nil, rt, []Txn{unknown(tx(1, Append("x", 1))), tx(2, Read("x", l(1)))}},

		{"a read between two appends", []Kind{G1b}, ends("x", 1, 2), []Txn{tx(1, Append("x", 1), Append("x", 2)), tx(2, Read("x", l(1)))}},
		{"a read between two appends, nothing else known", []Kind{G1b}, Options{}, []Txn{tx(1, Append("x", 1), Append("x", 2)), tx(2, Read("x", l(1)))}},
		{"a read and append between two appends", []Kind{G1b, G0}, ends("x", 1, 3, 2), []Txn{tx(1, Append("x", 1), Append("x", 2)), tx(2, Append("x", 3), Read("x", l(1, 3)))}},
		{"a read after two appends", nil, ends("x", 1, 2), []Txn{tx(1, Append("x", 1), Append("x", 2)), tx(2, Read("x", l(1, 2)))}},
		{"a read between its own two appends", nil, ends("x", 1, 2), []Txn{tx(1, Append("x", 1), Read("x", l(1)), Append("x", 2))}},

		{"interleaved appends to a key", []Kind{G0}, ends("x", 1, 2, 3), []Txn{tx(1, Append("x", 1), Append("x", 3)), tx(2, Append("x", 2))}},
		{"appends to two keys in two orders", []Kind{G0}, rt, []Txn{
			tx(1, Append("x", 1), Append("y", 1)), tx(2, Append("x", 2), Append("y", 2)),
			tx(3, Read("x", l(1, 2))), tx(4, Read("y", l(2, 1)))}},
		{"appends to two keys in one order", nil, rt, []Txn{
			tx(1, Append("x", 1), Append("y", 1)), tx(2, Append("x", 2), Append("y", 2)),
			tx(3, Read("x", l(1, 2))), tx(4, Read("y", l(1, 2)))}},
		{"a circle of three appends", []Kind{G0}, rt, []Txn{
			tx(1, Append("x", 1), Append("z", 1)), tx(2, Append("x", 2), Append("y", 2)), tx(3, Append("y", 3), Append("z", 3)),
			tx(4, Read("x", l(1, 2))), tx(5, Read("y", l(2, 3))), tx(6, Read("z", l(3, 1)))}},

		{"two that read each other", []Kind{G1c}, rt, []Txn{tx(1, Append("x", 1), Read("y", l(1))), tx(2, Append("y", 1), Read("x", l(1)))}},
		{"one that reads the other", nil, rt, []Txn{tx(1, Append("x", 1), Read("y", nil)), tx(2, Append("y", 1), Read("x", l(1)))}},
		{"append after and read before", []Kind{G1c}, ends("x", 1, 2), []Txn{
			tx(1, Append("x", 1), Read("y", l(2))), tx(2, Append("x", 2), Append("y", 2))}},

		{"a lost update", []Kind{GSingle}, ends("x", 1, 2), []Txn{tx(1, Read("x", nil), Append("x", 1)), tx(2, Read("x", nil), Append("x", 2))}},
		{"an update after another", nil, ends("x", 1, 2), []Txn{tx(1, Read("x", nil), Append("x", 1)), tx(2, Read("x", l(1)), Append("x", 2))}},
		{"half a transaction", []Kind{GSingle}, ends("y", 1), []Txn{tx(1, Append("x", 1), Append("y", 1)), tx(2, Read("x", l(1)), Read("y", nil))}},
		{"half a transaction, the rest never read", []Kind{GSingle}, Options{}, []Txn{tx(1, Append("x", 1), Append("y", 1)), tx(2, Read("x", l(1)), Read("y", nil))}},
		{"half a transaction without an answer", []Kind{GSingle}, Options{}, []Txn{unknown(tx(1, Append("x", 1), Append("y", 1))), tx(2, Read("x", l(1)), Read("y", nil))}},
		{"none of a transaction", nil, ends("y", 1), []Txn{tx(1, Append("x", 1), Append("y", 1)), tx(2, Read("x", nil), Read("y", nil))}},
		{"a read of an unknown one that another unknown one shows", []Kind{GSingle}, rt, []Txn{
			unknown(tx(1, Append("x", 1), Append("y", 1))), unknown(tx(2, Append("z", 1), Read("x", l(1)), Read("y", nil))), tx(3, Read("z", l(1)))}},

		{"write skew", []Kind{G2}, Options{Final: map[string][]int64{"x": {1}, "y": {1}}},
			[]Txn{tx(1, Read("x", nil), Append("y", 1)), tx(2, Read("y", nil), Append("x", 1))}},
		{"write skew that nobody read", []Kind{G2}, Options{}, []Txn{tx(1, Read("x", nil), Append("y", 1)), tx(2, Read("y", nil), Append("x", 1))}},
		{"lost updates that nobody read", []Kind{G2}, Options{}, []Txn{tx(1, Read("x", nil), Append("x", 1)), tx(2, Read("x", nil), Append("x", 2))}},
		{"an update that nobody read", nil, Options{}, []Txn{tx(1, Read("x", nil), Append("x", 1)), tx(2, Append("x", 2))}},
		{"no write skew", nil, Options{}, []Txn{tx(1, Read("x", nil), Append("y", 1)), tx(2, Read("y", l(1)), Append("x", 1))}},
		{"write skew where one aborted", nil, Options{}, []Txn{tx(1, Read("x", nil), Append("y", 1)), aborted(tx(2, Read("y", nil), Append("x", 1)))}},
		{"two readers, two orders", []Kind{G2}, Options{Final: map[string][]int64{"x": {1}, "y": {2}}}, []Txn{
			tx(1, Append("x", 1)), tx(2, Append("y", 2)),
			tx(3, Read("x", l(1)), Read("y", nil)), tx(4, Read("x", nil), Read("y", l(2)))}},

		{"appends against time", []Kind{G0Realtime}, ends("x", 2, 1), []Txn{at(1, 0, 1, Append("x", 1)), at(2, 2, 3, Append("x", 2))}},
		{"appends at one time", nil, ends("x", 2, 1), []Txn{at(1, 0, 2, Append("x", 1)), at(2, 2, 3, Append("x", 2))}},
		{"appends against time, any order asked for", nil, Options{Final: map[string][]int64{"x": {2, 1}}}, []Txn{at(1, 0, 1, Append("x", 1)), at(2, 2, 3, Append("x", 2))}},
		{"an append without an answer that took long", nil, ends("x", 2, 1), []Txn{unknown(at(1, 0, 1, Append("x", 1))), at(2, 2, 3, Append("x", 2))}},
		{"a read of the future", []Kind{G1cRealtime}, rt, []Txn{at(1, 0, 1, Read("x", l(1))), at(2, 2, 3, Append("x", 1))}},
		{"a read of the future of an unknown one", []Kind{G1cRealtime}, rt, []Txn{at(1, 0, 1, Read("x", l(1))), unknown(at(2, 2, 3, Append("x", 1)))}},
		{"a read of the present", nil, rt, []Txn{at(1, 0, 2, Read("x", l(1))), at(2, 2, 3, Append("x", 1))}},
		{"a stale read", []Kind{GSingleRealtime}, ends("x", 1), []Txn{at(1, 0, 1, Append("x", 1)), at(2, 2, 3, Read("x", nil))}},
		{"a stale read, any order asked for", nil, Options{Final: map[string][]int64{"x": {1}}}, []Txn{at(1, 0, 1, Append("x", 1)), at(2, 2, 3, Read("x", nil))}},
		{"a read in time", nil, ends("x", 1), []Txn{at(1, 0, 2, Append("x", 1)), at(2, 2, 3, Read("x", nil))}},
		// 1 before 2 before 3, which ended before 4 began, which is before 1.
		{"time in the middle of a circle", []Kind{GSingleRealtime}, ends("x", 1), []Txn{
			at(1, 0, 200, Read("x", nil), Read("y", l(1))), at(2, 0, 100, Append("x", 1)),
			at(3, 5, 10, Read("x", l(1))), at(4, 20, 200, Append("y", 1))}},
		{"no time in the middle of a circle", nil, ends("x", 1), []Txn{
			at(1, 0, 200, Read("x", nil), Read("y", l(1))), at(2, 0, 100, Append("x", 1)),
			at(3, 5, 20, Read("x", l(1))), at(4, 20, 200, Append("y", 1))}},
		// 1 before 2, which it does not see, before 3, which 2 does not see; but 3 ended before 1 began.
		{"write skew against time", []Kind{G2Realtime}, Options{Realtime: true, Final: map[string][]int64{"x": {1}, "y": {1}}}, []Txn{
			at(1, 5, 10, Read("x", nil)), at(2, 0, 20, Append("x", 1), Read("y", nil)), at(3, 0, 4, Append("y", 1))}},
		{"the same in time", nil, Options{Realtime: true, Final: map[string][]int64{"x": {1}, "y": {1}}}, []Txn{
			at(1, 5, 10, Read("x", nil)), at(2, 0, 20, Append("x", 1), Read("y", nil)), at(3, 0, 5, Append("y", 1))}},
	}
	named := map[Kind]bool{}
	for _, test := range tests {
		for _, kind := range test.want {
			named[kind] = true
		}
		t.Run(test.name, func(t *testing.T) {
			got := Check(test.txns, test.opts)
			if !reflect.DeepEqual(kindsOf(got), test.want) {
				t.Errorf("found %v, want %v\n%s", kindsOf(got), test.want, Format(got))
			}
			for _, a := range got {
				complete(t, a)
			}
		})
	}
	for _, kind := range kinds {
		if !named[kind] {
			t.Errorf("no test has a %s", kind)
		}
	}
}

// complete checks that an anomaly says all that it must.
func complete(t *testing.T, a Anomaly) {
	t.Helper()
	if a.Text == "" || a.Cycle == nil && a.Key == "" && a.Kind != Malformed {
		t.Errorf("%s says too little: %#v", a.Kind, a)
	}
	for i, e := range a.Cycle {
		if next := a.Cycle[(i+1)%len(a.Cycle)]; e.To != next.From || e.From != a.Txns[i] {
			t.Errorf("the circle of %s is not closed: %+v", a.Kind, a.Cycle)
		}
		if e.Why == "" || (e.Key == "") != (e.Kind == RT) {
			t.Errorf("an edge says too little: %+v", e)
		}
		if i < shownSteps && !strings.Contains(a.Text, e.Why) {
			t.Errorf("the text lacks %q:\n%s", e.Why, a.Text)
		}
	}
}

func TestCircleIsExplained(t *testing.T) {
	got := Format(Check([]Txn{
		{ID: 1, Process: 8, Began: 0, Ended: 2e6, Ops: []Op{Append("x", 1), Append("y", 1)}},
		{ID: 2, Process: 9, Began: 1e6, Ended: 3e6, Ops: []Op{Read("x", l(1)), Read("y", nil)}},
	}, Options{Realtime: true, Final: map[string][]int64{"x": {1}, "y": {1}}}))
	want := `G-single: 2 transactions in a circle
  T2 → T1 (rw): T2 read y with 0 values, without 1, the next, appended by T1
  T1 → T2 (wr): T2 read x with 1 value, of which T1 appended 1
  T2 (process 9, committed, 1ms to 3ms): read x [1]; read y []
  T1 (process 8, committed, 0s to 2ms): append x 1; append y 1
`
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestLimit(t *testing.T) {
	var txns []Txn
	for i := range 20 {
		x, y := fmt.Sprint("x", i), fmt.Sprint("y", i)
		txns = append(txns, tx(2*i, Append(x, 1), Read(y, l(1))), tx(2*i+1, Append(y, 1), Read(x, l(1))))
		txns = append(txns, tx(100+i, Read("garbage", l(int64(i)))))
	}
	got := Check(txns, Options{Limit: 3})
	counts := map[Kind]int{}
	for _, a := range got {
		counts[a.Kind]++
	}
	if counts[G1c] != 3 || counts[UnwrittenRead] != 3 {
		t.Errorf("found %v, want 3 of G1c and of unwritten-read", counts)
	}
	if last := got[2]; last.Kind != UnwrittenRead || !strings.HasSuffix(last.Text, "and 17 more findings of this kind") {
		t.Errorf("the last finding does not say how many more there are: %s", last)
	}
}

// The shortest circle is reported, and others that share nothing with it.
func TestCirclesAreShortAndApart(t *testing.T) {
	var txns []Txn
	// A ring of ten that read each other, with a short cut, and a pair elsewhere.
	for i := range 10 {
		txns = append(txns, tx(i, Append(fmt.Sprint("ring", i), 1), Read(fmt.Sprint("ring", (i+1)%10), l(1))))
	}
	txns[6].Ops = append(txns[6].Ops, Append("cut", 1))
	txns[8].Ops = append(txns[8].Ops, Append("back", 1))
	txns[7].Ops = append(txns[7].Ops, Read("cut", l(1)))
	txns = append(txns, tx(20, Append("a", 1), Read("b", l(1))), tx(21, Append("b", 1), Read("a", l(1))))
	got := Check(txns, Options{})
	var circles [][]int
	for _, a := range got {
		slices.Sort(a.Txns)
		circles = append(circles, a.Txns)
	}
	slices.SortFunc(circles, slices.Compare)
	if want := [][]int{{6, 7}, {20, 21}}; !reflect.DeepEqual(circles, want) {
		t.Errorf("circles %v, want %v\n%s", circles, want, Format(got))
	}
}

// A circle of 20,000 must not take a deep stack, nor print a book.
func TestLongCircle(t *testing.T) {
	const n = 20_000
	txns := make([]Txn, n)
	for i := range txns {
		txns[i] = tx(i, Append(fmt.Sprint("ring", i), 1), Read(fmt.Sprint("ring", (i+1)%n), l(1)))
	}
	got := Check(txns, Options{Realtime: true})
	if len(got) != 1 || got[0].Kind != G1c || len(got[0].Cycle) != n {
		t.Fatalf("found %v, want a G1c of %d", kindsOf(got), n)
	}
	complete(t, got[0])
	if len(got[0].Text) > 10_000 {
		t.Errorf("its text has %d bytes", len(got[0].Text))
	}
}
