package actor

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// StateMigrator is what the handler of a service implements whose state_version is above 1.
type StateMigrator interface {
	// StateMigrations are one for each version of the state that may still be stored, without a
	// gap up to the current one.
	StateMigrations() []StateMigration
}

// StateMigration turns a state of one version into one of the next. [MigrateState] makes it.
type StateMigration struct {
	// From is the version of the states that it takes.
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
	return StateMigration{
		From: from,
		Old:  newMessage[Old]().ProtoReflect().Descriptor().FullName(),
		New:  newMessage[New]().ProtoReflect().Descriptor().FullName(),
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
				return nil, fmt.Errorf("the migration returned nil: return an empty message for an empty state")
			}
			return marshal(migrated)
		},
	}
}
