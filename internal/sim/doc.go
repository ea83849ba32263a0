// Package sim runs a whole node in one process on a fake clock, a fake disk and a fake store,
// and breaks it: power cuts, disk errors, full disks, restarts, partitions that lose their
// leader, messages between them that are late, doubled or lost, while callers keep calling. At
// the end it holds what happened against what was promised: counters, money, the due
// times of schedules, and a history of transactions over lists that must be strictly serializable
// (internal/history).
//
// # What a seed fixes
//
// The seed decides what callers ask, when which fault strikes, how long a sync takes, what a
// power cut leaves of unsynced writes, and which attempts fail, suspend or hold on. It does not
// decide which of several goroutines that are ready at the same fake instant runs first: the
// goroutines are real ones (testing/synctest gives them a fake clock, not a fake scheduler). A
// failing seed therefore fails again almost always, not always; run it with -sim.repeat.
//
// Everything is in test files: a seed needs a testing.T.
package sim
