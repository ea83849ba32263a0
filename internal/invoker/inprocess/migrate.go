package inprocess

import (
	"cmp"
	"fmt"
	"runtime"
	"slices"

	"github.com/perdure/perdure/actor"
	"github.com/perdure/perdure/internal/invoker"
	"github.com/perdure/perdure/internal/journal"
	"github.com/perdure/perdure/internal/table"
)

// stateVersion is that of the states that a service's handlers see and write.
func (s *service) stateVersion() uint32 { return max(s.desc.StateVersion, 1) }

// checkMigrations takes over the migrations of the handler, which must lead from some version to the
// current one without a gap.
func (s *service) checkMigrations() error {
	migrator, ok := s.handler.(actor.StateMigrator)
	version := s.stateVersion()
	if !ok {
		if version > 1 {
			return fmt.Errorf("register %s: state_version is %d, and the handler has no method StateMigrations: return actor.MigrateState(%d, …) from it", s.desc.Name, version, version-1)
		}
		return nil
	}
	if s.desc.StateType == nil {
		if len(migrator.StateMigrations()) > 0 {
			return fmt.Errorf("register %s: the handler has StateMigrations, and the service no state", s.desc.Name)
		}
		return nil
	}
	s.migrations = slices.Clone(migrator.StateMigrations())
	slices.SortFunc(s.migrations, func(a, b actor.StateMigration) int { return cmp.Compare(a.From, b.From) })
	if len(s.migrations) == 0 && version > 1 {
		return fmt.Errorf("register %s: state_version is %d, and StateMigrations has none: return actor.MigrateState(%d, …) from it", s.desc.Name, version, version-1)
	}
	for i, migration := range s.migrations {
		next, want := version, s.desc.StateType().ProtoReflect().Descriptor().FullName()
		if i+1 < len(s.migrations) {
			next, want = s.migrations[i+1].From, s.migrations[i+1].Old
		}
		switch {
		case migration.Migrate == nil || migration.From == 0:
			return fmt.Errorf("register %s: a migration from version %d was not made by actor.MigrateState, or from version 0; versions count from 1", s.desc.Name, migration.From)
		case migration.From >= version:
			return fmt.Errorf("register %s: there is a migration from version %d, and state_version is %d: raise it to %d", s.desc.Name, migration.From, version, migration.From+1)
		case migration.From == next:
			return fmt.Errorf("register %s: there are two migrations from version %d", s.desc.Name, migration.From)
		case migration.From+1 != next:
			return fmt.Errorf("register %s: there is no migration from version %d, but one from version %d", s.desc.Name, migration.From+1, migration.From)
		case migration.New != want:
			return fmt.Errorf("register %s: the migration from version %d makes a %s, and version %d is a %s", s.desc.Name, migration.From, migration.New, next, want)
		}
	}
	return nil
}

// current is a stored state in the version that handlers see.
func (s *service) current(key string, stored []byte) ([]byte, error) {
	version, message, err := table.ParseState(stored)
	if err != nil {
		return nil, actor.Errorf(actor.DataLoss, "the state of %s/%s: %v", s.desc.Name, key, err)
	}
	own := s.stateVersion()
	if version > own {
		return nil, actor.Errorf(actor.FailedPrecondition, "the state of %s/%s has version %d, and this build knows up to %d: start a build that knows it", s.desc.Name, key, version, own)
	}
	for ; version < own; version++ {
		at := slices.IndexFunc(s.migrations, func(m actor.StateMigration) bool { return m.From == version })
		if at < 0 {
			return nil, actor.Errorf(actor.FailedPrecondition, "the state of %s/%s has version %d, and there is no migration from it: add one to StateMigrations", s.desc.Name, key, version)
		}
		if message, err = s.migrations[at].Migrate(message); err != nil {
			return nil, actor.Errorf(actor.Internal, "the state of %s/%s can't be migrated from version %d to %d: %v", s.desc.Name, key, version, version+1, err)
		}
	}
	return message, nil
}

// stored is a state as it is kept.
func (s *service) stored(message []byte) []byte {
	if s.stateVersion() == 1 {
		return message
	}
	return table.AppendState(make([]byte, 0, 6+len(message)), s.stateVersion(), message)
}

// sameState compares a state that the code sets with the recorded one. Of another version it says
// nothing: what was recorded counts, and is migrated.
func (s *service) sameState() journal.SameValue {
	same := sameMessage(s.desc.StateType)
	if same == nil {
		return nil
	}
	return func(recorded, made []byte) bool {
		recordedVersion, recordedState, err := table.ParseState(recorded)
		if err != nil {
			return false
		}
		madeVersion, madeState, err := table.ParseState(made)
		if err != nil || recordedVersion != madeVersion {
			return err == nil
		}
		return same(recordedState, madeState)
	}
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
	state, err := s.current(key, stored)
	if err == nil {
		m.known, m.state = true, state
	}
	return state, err
}

// failToMigrate pauses the invocation: another attempt of this build would fail too.
func (d *durable) failToMigrate(err error) {
	d.invoker.config.Logger.Error("state can't be read", d.attributes(err)...)
	d.stop(err, &invoker.Outcome{Retry: errorRecord(err), Pause: true})
	runtime.Goexit()
}
