package actor

import "context"

// Unversioned is the [Version] of an invocation that passed the place before it asked.
const Unversioned = -1

// Version says which variant of a piece of code an invocation runs with, so that the code can be
// changed while invocations run:
//
//	if actor.Version(ctx, "check fraud first", actor.Unversioned, 1) >= 1 {
//		err = actor.Do(ctx, "check fraud", check)
//	}
//
// An invocation that comes here for the first time takes highest, which is recorded: every later
// attempt, and every later call with the same change, returns it. One whose journal goes on behind
// this place without a record was here before the call was in the code and gets [Unversioned].
// What is recorded must be within lowest and highest: if it is not, the code no longer has the
// variant, and the attempt fails and is retried until code that has it is deployed.
//
// A further change at the same place raises highest; when no invocation of a variant runs any more,
// raise lowest and remove its code. When all run with highest the call itself may go: a record that
// nobody asks for is passed over.
//
// In a TRANSACTION or READ handler, which is never replayed, it is highest. It panics without the
// ctx of a handler and in the closure of a [Run].
func Version(ctx context.Context, change string, lowest, highest int) int {
	runtime, err := runtimeOf(ctx, "Version "+change)
	if err != nil {
		panic(err)
	}
	if lowest < Unversioned || highest < lowest || highest < 0 || highest > 1<<30 {
		runtime.Fail(Errorf(InvalidArgument, "Version %q: lowest is %d and highest %d; they must be at least %d and 0, and lowest not above highest", change, lowest, highest, Unversioned))
	}
	return runtime.Version(ctx, change, lowest, highest)
}
