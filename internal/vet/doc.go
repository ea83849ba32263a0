// Package vet finds what handlers must not do, by reading them: it is what cmd/perdurevet runs,
// and go vet with it.
//
// # What it looks at
//
// Handlers, and the functions of their own package that they call. Who is a handler, and in
// which mode it runs, it takes from the generated code: the descriptors there become facts of
// the handler interfaces, and a type that implements one of those has handlers. A function
// that merely has a parameter of a handler's context type is one too, in the mode that the
// type's name says; actor.Context alone is taken for DURABLE.
//
// It does not follow calls into other packages. Temporal's workflowcheck does, and is
// remembered for what it says about log and fmt; a rule that cries wolf is switched off.
//
// # Rules
//
// Each is an analyzer, so that each can be switched off (-clock=false):
//
//	clock      time.Now and its like in a DURABLE or RUN handler: another instant in each replay
//	random     math/rand, crypto/rand, uuid.New
//	goroutine  go statements, also in transactions
//	channel    select, send, receive, range over a channel
//	maprange   a range over a map, or over its collected keys, with steps in its body: another order in each replay
//	global     a package's variable, or a field of the handlers' receiver, is written: by each try, for
//	           all keys, and never undone
//	outerctx   the handler's ctx, or a step, inside the closure of a Run
//	getset     the copy that Get returned is changed, and never Set
//	io         network, files, processes, databases outside of Run, also in transactions
//	mode       a step that a TRANSACTION refuses when it runs
//
// A line with, or below, the comment
//
//	//perdurevet:ignore clock  only for the log
//
// is left out for that rule; the comment needs a reason after the rule's name.
package vet
