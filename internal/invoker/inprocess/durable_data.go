package inprocess

import (
	"github.com/perdure/perdure/internal/invoker"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
)

// durableData is the object's state and tables as a DURABLE handler sees them. An attempt that
// replays begins with what was there before the invocation's first write, which the journal has
// kept, and makes the recorded writes again as it passes them.
type durableData struct {
	state           []byte
	hasState, wrote bool
	// migrated is the state as the handler sees it, once it has asked.
	migrated migrated
	rows     rows
	// had: of the rows written, those that were there before the invocation.
	had map[rowName]bool
	// present: of the rows written, those that are there after the entries looked at.
	present map[rowName]bool
	// grown is by how much the recorded entries have changed the length of tables.
	grown map[string]int
	// before is the length of tables before the invocation, of those that were asked for.
	before map[string]int
}

func (s *durableData) begin(attempt *invoker.Attempt) {
	s.state, s.hasState = attempt.State, attempt.HasState
	s.rows.base = attempt.Tables
	s.look(attempt.Journal)
}

// look finds the first writes among entries that are to be replayed; it is called with all of
// them, in order, before the first is.
func (s *durableData) look(entries []*recordv1.Entry) {
	for _, entry := range entries {
		if set := entry.GetSetState(); set != nil && set.GetFirst() {
			s.state, s.hasState = set.GetPrevious(), set.GetHadPrevious()
		}
		put := entry.GetTablePut()
		if put == nil {
			continue
		}
		if s.present == nil {
			s.present, s.had, s.grown = make(map[rowName]bool), make(map[rowName]bool), make(map[string]int)
		}
		name := rowName{put.GetTable(), put.GetKey()}
		if put.GetFirst() {
			s.had[name], s.present[name] = put.GetHadPrevious(), put.GetHadPrevious()
			s.rows.put(name.table, name.key, put.GetPrevious(), !put.GetHadPrevious()).untouched = true
		}
		s.grown[name.table] += difference(s.present[name], !put.GetDelete())
		s.present[name] = !put.GetDelete()
	}
}

// lengthBefore must be called before this attempt's first write to the table is appended: from
// then on base may have it or not.
func (s *durableData) lengthBefore(table string) (int, error) {
	if count, known := s.before[table]; known {
		return count, nil
	}
	count := 0
	if s.rows.base != nil {
		var err error
		if count, err = s.rows.base.Len(table); err != nil {
			return 0, err
		}
	}
	if s.before == nil {
		s.before = make(map[string]int)
	}
	s.before[table] = count - s.grown[table]
	return s.before[table], nil
}

func (s *durableData) length(table string) (int, error) {
	count, err := s.lengthBefore(table)
	if err != nil {
		return 0, err
	}
	for _, written := range s.rows.order {
		if written.table == table {
			count += difference(s.had[written.rowName], !written.deleted)
		}
	}
	return count, nil
}

func (d *durable) State() ([]byte, bool) {
	d.mustEnter("State().Get", "")
	if !d.data.hasState {
		return nil, false
	}
	state, err := d.data.migrated.of(d.method.service, d.attempt.Target.Key, d.data.state)
	if err != nil {
		d.failToMigrate(err)
	}
	return state, true
}

func (d *durable) SetState(value []byte, clear bool) {
	d.mustEnter("State().Set", "")
	if !clear {
		value = d.method.service.state.stored(value)
	}
	set := &recordv1.SetState{Value: value, Clear: clear}
	if !d.data.wrote {
		set.First, set.Previous, set.HadPrevious = true, d.data.state, d.data.hasState
	}
	_, entry := d.record(&recordv1.Entry{Entry: &recordv1.Entry_SetState{SetState: set}}, d.method.service.state.same())
	recorded := entry.GetSetState()
	d.data.state, d.data.hasState, d.data.wrote = recorded.GetValue(), !recorded.GetClear(), true
	d.data.migrated = migrated{}
}

func (d *durable) TableGet(table, key string) ([]byte, bool) {
	d.mustEnter("Get of table ", table)
	value, ok, err := d.data.rows.get(table, key)
	if err != nil {
		d.Fail(errTable(table, err))
	}
	if ok {
		if value, err = d.method.service.row(d.attempt.Target.Key, table, key, value); err != nil {
			d.failToMigrate(err)
		}
	}
	return value, ok
}

func (d *durable) TableLen(table string) int {
	d.mustEnter("Len of table ", table)
	count, err := d.data.length(table)
	if err != nil {
		d.Fail(errTable(table, err))
	}
	return count
}

func (d *durable) TableScan(table, from string, yield func(string, []byte) bool) {
	d.mustEnter("From of table ", table)
	migrating, err := d.method.service.rows(&d.data.rows, d.attempt.Target.Key, table, from, yield)
	if migrating != nil {
		d.failToMigrate(migrating)
	}
	if err != nil {
		d.Fail(errTable(table, err))
	}
}

func (d *durable) TablePut(table, key string, value []byte, remove bool) {
	d.mustEnter("Put of table ", table)
	to := d.method.service.tableShape(table)
	if !remove {
		value = to.stored(value)
	}
	put := &recordv1.TablePut{Table: table, Key: key, Value: value, Delete: remove}
	if d.next() == nil {
		if _, err := d.data.lengthBefore(table); err != nil {
			d.Fail(errTable(table, err))
		}
		if d.data.rows.find(table, key) == nil {
			previous, had, err := d.data.rows.get(table, key)
			if err != nil {
				d.Fail(errTable(table, err))
			}
			put.First, put.Previous, put.HadPrevious = true, previous, had
			if d.data.had == nil {
				d.data.had = make(map[rowName]bool)
			}
			d.data.had[rowName{table, key}] = had
		}
	}
	_, entry := d.record(&recordv1.Entry{Entry: &recordv1.Entry_TablePut{TablePut: put}}, to.same())
	recorded := entry.GetTablePut()
	d.data.rows.put(table, key, recorded.GetValue(), recorded.GetDelete())
}
