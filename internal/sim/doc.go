// Package sim runs a whole node in one process on a fake clock, a fake disk and a fake store,
// and breaks it: power cuts, disk errors, full disks, restarts, partitions that lose their
// leader, messages between them that are late, doubled or lost, while callers keep calling. A cluster
// of four nodes is cut in any shape besides, has slow disks and wall clocks that jump, and
// a node that comes back without its disks, as another. Some handlers don't heed the end of their attempt, and
// speak when the next one runs; and whenever two nodes believe that they lead a partition, the old one is asked for
// what the new one has acknowledged. At
// the end it holds what happened against what was promised: counters, money, the due
// times of schedules, and a history of transactions over lists that must be strictly serializable
// (internal/history).
//
// # What a seed fixes
//
// The seed decides which calls each caller makes, and in a cluster which fault strikes when and
// where: TestSeedDecides holds two runs of a seed against each other. How long a sync takes, what
// a power cut leaves of unsynced writes, which message is late, and the numbers that are appended
// to lists follow from the seed and from how often such a choice was made before. A seed does not
// decide which of several goroutines that are ready at the same fake instant runs first: the
// goroutines are real ones (testing/synctest gives them a fake clock, not a fake scheduler). A
// failing seed therefore fails again almost always, not always; run it with -sim.repeat.
//
// Everything is in test files: a seed needs a testing.T.
package sim
