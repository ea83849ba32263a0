// Package actor is what handlers and their callers are written with: contexts, state, calls,
// durable steps, futures, errors and the client.
//
// Two things are enough to begin: the context a generated handler interface hands you, whose
// State().Get and State().Set hold the object's data, and [Errorf], whose errors reach the
// caller with their code. [Run] makes a side effect of a DURABLE handler happen once.
//
// Generic operations ([Run], [Sleep], [Select] and so on) are functions over a
// [context.Context] and look the invocation up in it, so that contexts derived with
// context.WithTimeout or by a tracing library keep working. Without an invocation in ctx they
// return an error of code failed_precondition rather than run without durability.
//
// Steps of one handler are made on the goroutine that runs it. For work side by side use
// futures: [InvokeAsync] (through a generated stub), [RunAsync], [After], and [All], [Select]
// or [Race] to wait for them.
package actor

// GeneratedCodeV1 is referred to by generated code. If it does not compile because this name is
// missing, the generated code and this module are of different versions: update
// protoc-gen-go-perdure to the module's version and generate again.
const GeneratedCodeV1 = true
