package partition

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/internal/deployment"
	"github.com/perdure/perdure/internal/invocation"
	"github.com/perdure/perdure/internal/partition/overlay"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/table"
	"github.com/perdure/perdure/storage"
)

// Census adds what is kept in a partition's rows. It reads all invocations that have not ended,
// messages on their way, schedules and promises to transactions, and of everything else one row
// of each service.
func Census(snapshot storage.Snapshot, into deployment.Census) error {
	v, err := overlay.New(snapshot) // which releases it
	if err != nil {
		return err
	}
	defer v.Close()
	for kind, mark := range map[byte]func(*deployment.Kept){
		table.KindState:   func(k *deployment.Kept) { k.States = true },
		table.KindRow:     func(k *deployment.Kept) { k.Rows = true },
		table.KindPromise: func(k *deployment.Kept) { k.Promises = true },
		table.KindSignal:  func(k *deployment.Kept) { k.Signals = true },
	} {
		if err := services(v, kind, func(service string) { mark(into.Of(service)) }); err != nil {
			return err
		}
	}
	if err := inFlight(v, func(row *recordv1.Invocation) {
		into.Of(row.GetTarget().GetService()).InFlight[row.GetTarget().GetHandler()]++
	}); err != nil {
		return err
	}
	called := func(target *recordv1.Target) {
		into.Of(target.GetService()).InFlight[target.GetHandler()]++
	}
	lower, upper := table.OutboxAll()
	err = each(v, lower, upper, func(message *recordv1.Message) {
		if invoke := message.GetInvoke(); invoke != nil {
			called(invoke.GetTarget())
		}
	})
	if err != nil {
		return err
	}
	lower, upper = table.PreparedAll()
	err = each(v, lower, upper, func(promise *recordv1.Prepared) {
		for _, object := range promise.GetObjects() {
			writes := false
			for _, entry := range object.GetEntries() {
				writes = writes || entry.GetSetState() != nil || entry.GetTablePut() != nil
				if sent := entry.GetSend().GetInvoke(); sent != nil {
					called(sent.GetTarget())
				}
			}
			if writes {
				into.Of(object.GetTarget().GetService()).Prepared++
			}
		}
	})
	if err != nil {
		return err
	}
	lower, upper = table.SchedulesAfter("", "")
	return each(v, lower, upper, func(schedule *recordv1.Schedule) {
		if target := schedule.GetInvoke().GetTarget(); !schedule.GetDeclared() {
			into.Of(target.GetService()).Schedules[target.GetHandler()]++
		}
	})
}

// services calls fn for each service that has rows of a kind.
func services(v *overlay.View, kind byte, fn func(service string)) error {
	from, upper := table.ObjectsOf(kind)
	for from != nil {
		next, parseErr := []byte(nil), error(nil)
		err := v.Scan(from, upper, func(key, _ []byte) bool {
			var service string
			if service, next, parseErr = table.ParseService(key); parseErr == nil {
				fn(service)
			}
			return false
		})
		if err == nil {
			err = parseErr
		}
		if err != nil {
			return fmt.Errorf("rows of kind %q: %w", kind, err)
		}
		from = next
	}
	return nil
}

// inFlight calls fn with the row of each invocation that has not ended.
func inFlight(v *overlay.View, fn func(*recordv1.Invocation)) error {
	// Not read within the scan, which holds an iterator of the store.
	var ids []invocation.ID
	var keyErr error
	lower, upper := table.ActiveAll()
	err := v.Scan(lower, upper, func(key, _ []byte) bool {
		id, err := table.ParseID(key)
		if err != nil {
			keyErr = fmt.Errorf("%s: %w", table.Describe(key), err)
			return false
		}
		ids = append(ids, id)
		return true
	})
	if err = errors.Join(err, keyErr); err != nil {
		return err
	}
	for _, id := range ids {
		row := &recordv1.Invocation{}
		value, found, err := v.Get(table.Invocation(id))
		if err == nil && !found {
			err = errors.New("it has not ended and has no row")
		}
		if err == nil {
			err = proto.Unmarshal(value, row)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", id, err)
		}
		fn(row)
	}
	return nil
}

// each calls fn with each row of a table.
func each[M any, P interface {
	*M
	proto.Message
}](v *overlay.View, lower, upper []byte, fn func(P)) error {
	var rowErr error
	err := v.Scan(lower, upper, func(key, value []byte) bool {
		row := P(new(M))
		if err := proto.Unmarshal(value, row); err != nil {
			rowErr = fmt.Errorf("%s: %w", table.Describe(key), err)
			return false
		}
		fn(row)
		return true
	})
	if err == nil {
		err = rowErr
	}
	return err
}
