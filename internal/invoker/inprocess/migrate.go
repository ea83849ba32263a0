package inprocess

import (
	"cmp"
	"fmt"
	"runtime"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invoker"
	"github.com/perdure/perdure/internal/journal"
	"github.com/perdure/perdure/internal/table"
)

// shape is a state or a table's rows as this build has them.
type shape struct {
	service string
	table   string // empty: the state
	version uint32 // at least 1
	empty   func() proto.Message
	// migrations by the version they start from, without a gap up to the current one.
	migrations []actor.StateMigration
}

// shapes of the service, with the state's first. Only the state's may have no message: then there
// is none.
func (s *service) takeShapes() error {
	s.state = &shape{service: s.desc.Name, version: max(s.desc.StateVersion, 1), empty: s.desc.StateType}
	all := []*shape{s.state}
	s.tables = make(map[string]*shape, len(s.desc.Tables))
	for _, described := range s.desc.Tables {
		table := &shape{service: s.desc.Name, table: described.Name, version: max(described.Version, 1), empty: described.New}
		s.tables[table.table], all = table, append(all, table)
	}
	migrator, ok := s.handler.(actor.StateMigrator)
	var migrations []actor.StateMigration
	if ok {
		migrations = migrator.StateMigrations()
	}
	for _, migration := range migrations {
		at := slices.IndexFunc(all, func(to *shape) bool { return to.table == migration.Table })
		switch {
		case at < 0:
			return fmt.Errorf("register %s: StateMigrations has a migration of table %q, and there is no such table", s.desc.Name, migration.Table)
		case all[at].empty == nil:
			return fmt.Errorf("register %s: the handler has StateMigrations, and the service no state", s.desc.Name)
		}
		all[at].migrations = append(all[at].migrations, migration)
	}
	for _, to := range all {
		if err := to.check(ok); err != nil {
			return fmt.Errorf("register %s: %w", s.desc.Name, err)
		}
	}
	return nil
}

// check sees that the migrations lead from some version to the current one without a gap.
func (to *shape) check(isMigrator bool) error {
	option, maker := "state_version", "MigrateState("
	if to.table != "" {
		option, maker = fmt.Sprintf("table %q: its version", to.table), fmt.Sprintf("MigrateRows(%q, ", to.table)
	}
	switch {
	case len(to.migrations) > 0 || to.version == 1:
	case isMigrator:
		return fmt.Errorf("%s is %d, and StateMigrations has none: return actor.%s%d, …) from it", option, to.version, maker, to.version-1)
	default:
		return fmt.Errorf("%s is %d, and the handler has no method StateMigrations: return actor.%s%d, …) from it", option, to.version, maker, to.version-1)
	}
	slices.SortStableFunc(to.migrations, func(a, b actor.StateMigration) int { return cmp.Compare(a.From, b.From) })
	in := ""
	if to.table != "" {
		in = fmt.Sprintf("table %q: ", to.table)
	}
	for i, migration := range to.migrations {
		next, want := to.version, to.empty().ProtoReflect().Descriptor().FullName()
		if i+1 < len(to.migrations) {
			next, want = to.migrations[i+1].From, to.migrations[i+1].Old
		}
		switch {
		case migration.Migrate == nil || migration.From == 0:
			return fmt.Errorf("%sa migration from version %d was not made by actor.MigrateState or MigrateRows, or from version 0; versions count from 1", in, migration.From)
		case migration.From >= to.version:
			return fmt.Errorf("there is a migration from version %d, and %s is %d: raise it to %d", migration.From, option, to.version, migration.From+1)
		case migration.From == next:
			return fmt.Errorf("%sthere are two migrations from version %d", in, migration.From)
		case migration.From+1 != next:
			return fmt.Errorf("%sthere is no migration from version %d, but one from version %d", in, migration.From+1, migration.From)
		case migration.New != want:
			return fmt.Errorf("%sthe migration from version %d makes a %s, and version %d is a %s", in, migration.From, migration.New, next, want)
		}
	}
	return nil
}

// current is a stored state of the object key, or its stored row, in the version that handlers see.
func (to *shape) current(key, row string, stored []byte) ([]byte, error) {
	version, message, err := table.ParseState(stored)
	if err == nil && version == to.version {
		return message, nil
	}
	what := fmt.Sprintf("the state of %s/%s", to.service, key)
	if to.table != "" {
		what = fmt.Sprintf("row %q in table %s of %s/%s", row, to.table, to.service, key)
	}
	switch {
	case err != nil:
		return nil, actor.Errorf(actor.DataLoss, "%s: %v", what, err)
	case version > to.version:
		return nil, actor.Errorf(actor.FailedPrecondition, "%s has version %d, and this build knows up to %d: start a build that knows it", what, version, to.version)
	}
	for ; version < to.version; version++ {
		at := slices.IndexFunc(to.migrations, func(m actor.StateMigration) bool { return m.From == version })
		if at < 0 {
			return nil, actor.Errorf(actor.FailedPrecondition, "%s has version %d, and there is no migration from it: add one to StateMigrations", what, version)
		}
		if message, err = to.migrations[at].Migrate(message); err != nil {
			return nil, actor.Errorf(actor.Internal, "%s can't be migrated from version %d to %d: %v", what, version, version+1, err)
		}
	}
	return message, nil
}

// stored is a message as it is kept.
func (to *shape) stored(message []byte) []byte {
	if to.version == 1 {
		return message
	}
	return table.AppendState(make([]byte, 0, 6+len(message)), to.version, message)
}

// same compares what the code writes with what is recorded. Of another version it says nothing: what
// was recorded counts, and is migrated.
func (to *shape) same() journal.SameValue {
	same := sameMessage(to.empty)
	if same == nil {
		return nil
	}
	return func(recorded, made []byte) bool {
		recordedVersion, recordedMessage, err := table.ParseState(recorded)
		if err != nil {
			return false
		}
		madeVersion, madeMessage, err := table.ParseState(made)
		if err != nil || recordedVersion != madeVersion {
			return err == nil
		}
		return same(recordedMessage, madeMessage)
	}
}

// shown is a message without its version, and its type; nil if that is of another version.
func (to *shape) shown(stored []byte) (empty func() proto.Message, message []byte) {
	version, message, err := table.ParseState(stored)
	if err != nil || version != to.version {
		return nil, stored
	}
	return to.empty, message
}

// tableShape is never nil: a table that is not described has rows of version 1.
func (s *service) tableShape(name string) *shape {
	if found := s.tables[name]; found != nil {
		return found
	}
	return &shape{service: s.desc.Name, table: name, version: 1}
}

// row is what a handler sees of a stored row.
func (s *service) row(object, table, key string, stored []byte) ([]byte, error) {
	return s.tableShape(table).current(object, key, stored)
}

// rows is scan for handlers: yield is given rows as they see them. It ends at the first that can't
// be migrated.
func (s *service) rows(r *rows, object, table, from string, yield func(string, []byte) bool) (migrating, reading error) {
	to := s.tableShape(table)
	reading = r.scan(table, from, func(key string, stored []byte) bool {
		var value []byte
		if value, migrating = to.current(object, key, stored); migrating != nil {
			return false
		}
		return yield(key, value)
	})
	return migrating, reading
}

// migrated is a state once it was asked for.
type migrated struct {
	known bool
	state []byte
}

func (m *migrated) of(s *service, key string, stored []byte) ([]byte, error) {
	if m.known {
		return m.state, nil
	}
	state, err := s.state.current(key, "", stored)
	if err == nil {
		m.known, m.state = true, state
	}
	return state, err
}

// failToMigrate pauses the invocation: another attempt of this build would fail too.
func (d *durable) failToMigrate(err error) {
	d.invoker.config.Logger.Error("state or row can't be read", d.attributes(err)...)
	d.stop(err, &invoker.Outcome{Retry: errorRecord(err), Pause: true})
	runtime.Goexit()
}
