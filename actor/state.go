package actor

import "google.golang.org/protobuf/proto"

// StateReader reads the state message of an object.
type StateReader[S proto.Message] interface {
	// Get returns a copy, empty if there is no state. Changing it changes nothing until it is Set.
	Get() S
}

// State reads and writes the state message of an object. In a TRANSACTION writes take effect
// with the handler's success and, if other transactions called it, with that of the first of
// them; in a DURABLE handler each is visible to READ handlers once it is recorded.
type State[S proto.Message] interface {
	StateReader[S]
	// Set replaces the state with what value is now; later changes to value do nothing.
	Set(value S)
	// Update calls change with a copy of the state and sets what it made of it.
	Update(change func(S))
	// Clear removes the state: Get returns an empty message again.
	Clear()
}

// StateOf is the state of the object whose handler runs. Generated contexts call it.
func StateOf[S proto.Message](ctx Context) State[S] { return stateHandle[S]{ctx.handler()} }

// StateReaderOf is [StateOf] for READ handlers.
func StateReaderOf[S proto.Message](ctx Context) StateReader[S] { return stateHandle[S]{ctx.handler()} }

// stateHandle is one pointer wide, so that making one for each call of State allocates nothing.
type stateHandle[S proto.Message] struct{ handler *handlerContext }

func (s stateHandle[S]) Get() S {
	state := newMessage[S]()
	data, ok := s.handler.runtime.State()
	if !ok {
		gave(s.handler.runtime, "", "", state)
		return state
	}
	if err := proto.Unmarshal(data, state); err != nil {
		described := s.handler.runtime.Invocation()
		s.handler.runtime.Fail(Errorf(DataLoss, "the state of %s/%s is not a %s: %w", described.Method.Service, described.Key, state.ProtoReflect().Descriptor().FullName(), err))
	}
	gave(s.handler.runtime, "", "", state)
	return state
}

// copyWatcher is a runtime that wants to know which copies of state and rows a handler has, to find
// those it changed and did not set: actor/actortest has one.
type copyWatcher interface {
	GaveCopy(table, key string, message proto.Message)
}

// gave tells the runtime, if it wants to know, of a copy of the state, table being "", or of a row.
func gave(runtime Runtime, table, key string, message proto.Message) {
	if watcher, ok := runtime.(copyWatcher); ok {
		watcher.GaveCopy(table, key, message)
	}
}

func (s stateHandle[S]) Set(value S) {
	runtime := s.handler.runtime
	if !value.ProtoReflect().IsValid() {
		runtime.Fail(Errorf(Internal, "State().Set(nil): use Clear to remove the state"))
	}
	data, err := marshal(value)
	if err != nil {
		described := runtime.Invocation()
		runtime.Fail(Errorf(Internal, "the new state of %s/%s cannot be encoded: %w", described.Method.Service, described.Key, err))
	}
	runtime.SetState(data, false)
}

func (s stateHandle[S]) Update(change func(S)) {
	state := s.Get()
	change(state)
	s.Set(state)
}

func (s stateHandle[S]) Clear() { s.handler.runtime.SetState(nil, true) }

// newMessage makes an empty message of a generated type.
func newMessage[M proto.Message]() M {
	var none M
	return none.ProtoReflect().New().Interface().(M)
}

// marshal is deterministic so that a replayed step encodes as the recorded one did, except
// across versions of the program; those are compared as messages.
func marshal(message proto.Message) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(message)
}
