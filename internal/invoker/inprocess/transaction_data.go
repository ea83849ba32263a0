package inprocess

import "github.com/perdure/perdure/internal/invocation"

func (t *transaction) State() ([]byte, bool) {
	t.mustEnter("State().Get", "")
	state, has, err := t.state, t.hasState, error(nil)
	if has {
		state, err = t.migrated.of(t.method.service, t.attempt.Target.Key, t.state)
	}
	t.leave()
	if err != nil {
		t.Fail(err)
	}
	return state, has
}

func (t *transaction) SetState(value []byte, clear bool) {
	t.mustEnterWrite("State().Set", "")
	defer t.leave()
	t.migrated = migrated{!clear, value}
	if !clear {
		value = t.method.service.state.stored(value)
	}
	t.state, t.hasState, t.wrote = value, !clear, true
}

func (t *transaction) TableGet(table, key string) ([]byte, bool) {
	t.mustEnter("Get of table ", table)
	value, ok, err := t.rows.get(table, key)
	t.leave()
	if err != nil {
		t.Fail(errTable(table, err))
	}
	if ok {
		if value, err = t.method.service.row(t.attempt.Target.Key, table, key, value); err != nil {
			t.Fail(err)
		}
	}
	return value, ok
}

func (t *transaction) TableLen(table string) int {
	t.mustEnter("Len of table ", table)
	count, err := t.rows.len(table)
	t.leave()
	if err != nil {
		t.Fail(errTable(table, err))
	}
	return count
}

func (t *transaction) TableScan(table, from string, yield func(string, []byte) bool) {
	// Not within the guard: the loop's body makes steps.
	t.mustEnter("From of table ", table)
	t.leave()
	migrating, err := t.method.service.rows(&t.rows, t.attempt.Target.Key, table, from, yield)
	if migrating != nil {
		t.Fail(migrating)
	}
	if err != nil {
		t.Fail(errTable(table, err))
	}
}

func (t *transaction) TablePut(table, key string, value []byte, remove bool) {
	t.mustEnterWrite("Put of table ", table)
	defer t.leave()
	if !remove {
		value = t.method.service.tableShape(table).stored(value)
	}
	t.rows.put(table, key, value, remove)
}

// mustEnterWrite is mustEnter for steps that a READ handler does not have.
func (t *transaction) mustEnterWrite(step, name string) {
	t.mustEnter(step, name)
	if t.attempt.Mode == invocation.ModeRead {
		t.leave()
		t.Fail(refuseInRead(t.method, step+name))
	}
}
