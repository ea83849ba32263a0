package actor

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// StateMigrator is what the handler of a service implements whose state_version, or the version of
// one of its tables, is above 1.
type StateMigrator interface {
	// StateMigrations are one for each version of the state and of each table's rows that may still
	// be stored, without a gap up to the current one, in any order.
	StateMigrations() []StateMigration
}

// StateMigration turns a state, or a row of a table, of one version into one of the next.
// [MigrateState] and [MigrateRows] make it.
type StateMigration struct {
	// Table whose rows it takes; empty for the state.
	Table string
	// From is the version of what it takes.
	From uint32
	// Old and New are the names of the two messages.
	Old, New protoreflect.FullName
	// Migrate takes and returns encoded messages.
	Migrate func(old []byte) ([]byte, error)
}

// MigrateState is the migration of states of version from to version from+1. It runs when a handler
// looks at a state that was written as from or before, and not again once a handler has written
// that object's state: until then each handler, READ ones too, migrates for itself. So migrate must
// depend on old alone, and it must not call anything. States written before state_version was set
// have version 1.
//
// A handler whose state can't be migrated, because migrate fails or panics, fails if it is a
// TRANSACTION or READ and pauses if it is DURABLE or RUN; other objects are not concerned.
func MigrateState[Old, New proto.Message](from uint32, migrate func(old Old) (New, error)) StateMigration {
	return migration("", from, migrate)
}

// MigrateRows is [MigrateState] for the rows of a table. Each row has a version of its own: it is
// migrated when a handler gets it or comes to it in a loop, and not again once it was put.
func MigrateRows[Old, New proto.Message](table string, from uint32, migrate func(old Old) (New, error)) StateMigration {
	return migration(table, from, migrate)
}

func migration[Old, New proto.Message](table string, from uint32, migrate func(old Old) (New, error)) StateMigration {
	return StateMigration{
		Table: table, From: from,
		Old: newMessage[Old]().ProtoReflect().Descriptor().FullName(),
		New: newMessage[New]().ProtoReflect().Descriptor().FullName(),
		Migrate: func(data []byte) (encoded []byte, err error) {
			defer func() {
				if panicked := recover(); panicked != nil {
					err = fmt.Errorf("the migration panicked: %v", panicked)
				}
			}()
			old := newMessage[Old]()
			if err := proto.Unmarshal(data, old); err != nil {
				return nil, fmt.Errorf("it is not a %s: %w", old.ProtoReflect().Descriptor().FullName(), err)
			}
			migrated, err := migrate(old)
			if err != nil {
				return nil, err
			}
			if !migrated.ProtoReflect().IsValid() {
				return nil, fmt.Errorf("the migration returned nil: return an empty message for an empty one")
			}
			return marshal(migrated)
		},
	}
}
