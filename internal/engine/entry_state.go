package engine

import (
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
)

func (e *Engine) setState(l *live, set *recordv1.SetState) {
	key := table.State(l.target.Object())
	if set.GetClear() {
		e.delete(key)
		return
	}
	// An empty message is a state too: nil would read as "no value".
	value := set.GetValue()
	if value == nil {
		value = []byte{}
	}
	e.put(key, value)
}

// putRow writes or deletes a row of a table and keeps the number of rows.
func (e *Engine) putRow(l *live, put *recordv1.TablePut) error {
	o := l.target.Object()
	key, counter := table.Row(o, put.Table, put.Key), table.RowCount(o, put.Table)
	_, existed, err := e.get(key)
	if err != nil {
		return err
	}
	if !put.Delete {
		value := put.Value
		if value == nil {
			value = []byte{}
		}
		e.put(key, value)
	} else if existed {
		e.delete(key)
	}
	if existed != put.Delete {
		return nil
	}
	rows, err := e.getNumber(counter)
	if err != nil {
		return err
	}
	if put.Delete {
		rows--
	} else {
		rows++
	}
	e.put(counter, table.AppendNumber(nil, rows))
	return nil
}
