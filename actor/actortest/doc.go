// Package actortest tests handlers: it runs a whole scenario, in fake time and in one process, the
// way production runs it on its worst days, and says how to see a failure again.
//
//	func TestTransfer(t *testing.T) {
//		actortest.Run(t, func(t *testing.T, node *actortest.Node) {
//			bankv1perdure.RegisterAccountHandler(node, Accounts{})
//			alice := bankv1perdure.Account(node.Client(), "alice")
//			...
//		})
//	}
//
// [Run] is where to begin: the scenario runs undisturbed, with handlers dying after each step,
// with every wait suspended, and with leaders being lost. [Seeds] breaks more, by chance that can
// be repeated. [EveryOrder] tries every order in which a small handler can hear of things.
// [Replay] runs new code on a journal that old code wrote. FailRun, FailCall, DelayCall and
// CrashAttempt of a [Node] inject failures, and [Node.Journal] shows what a handler recorded.
//
// Every one of them fails the test also when a handler does not make the steps of its own journal
// again, and when it changed a copy of its state, or of a row, and did not set it.
//
// # How it works
//
// The engine, the partitions and what runs handlers are those of a node. Between them and the disk,
// the network, the clock and the callers stands an agenda: whatever one tells another is a move on
// it, and one move is made at a time. In between everything runs until all goroutines wait
// (testing/synctest says when), so what happens is a function of the order of the moves, which a
// plan decides: as they come, by a seed, or as a path through a tree.
//
// What a scenario and its handlers share must not be a network or a file: a goroutine that waits
// for those does not count as waiting. Goroutines that the scenario or a closure starts run beside
// each other and may race as always.
package actortest
