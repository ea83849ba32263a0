// Package flow is a workflow library of somebody else.
package flow

// Context is its handlers' context.
type Context = context

type context interface{ Sleep() }

// SideEffect runs f outside of the journal.
func SideEffect(ctx Context, f func() any) any { return f() }

// Step makes a step.
func Step(ctx Context, name string) {}
