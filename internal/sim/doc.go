// Package sim runs a whole node in one process on a fake clock, a fake disk and a fake store,
// and breaks it: power cuts, disk errors, full disks, restarts, partitions that lose their
// leader, messages between them that are late, doubled, lost or overtaken, while callers keep calling. A cluster
// of four nodes is cut in any shape besides, has slow disks, nodes that stand still, and wall clocks that jump.
// In the middle of all that nodes drain, and one is removed, with its disks or because it has lost them,
// and another joins. Some handlers don't heed the end of their attempt, and
// speak when the next one runs; and whenever two nodes believe that they lead a partition, the old one is asked for
// what the new one has acknowledged. At
// the end it holds what happened against what was promised: counters, money, the due
// times of schedules, what transfers that were restarted as new have kept, and a history of transactions over lists that must be strictly serializable
// (internal/history). All replicas of a partition must have the same rows then, and no
// closure has ever run whose journal entry was lost.
//
// # What a seed fixes
//
// Under the command internal/sim/replay, which `make sim` and CI use, all of that and the order of goroutines: a runtime with a few
// lines changed asks the seed which of several that are ready runs next. Each seed is run twice there, and some in all processes, and must
// be the same: each message, write, sync, commit, attempt and answer is compared, its fake time, and how often a goroutine
// was chosen before it. See docs/decisions/0038-seeds-replay.md.
//
// Under plain go test, with the race detector for one, the seed decides which calls each caller makes, and in a cluster which
// fault strikes when and where: TestSeedDecides holds two runs of a seed against each other. How long a sync takes, what
// a power cut leaves of unsynced writes, which message is late, and the numbers that are appended
// to lists follow from the seed and from how often such a choice was made before. Which of several goroutines that are ready at the
// same fake instant runs first does not: they are real ones (testing/synctest gives them a fake clock, not a fake
// scheduler). A seed that failed so does often fail again, not always; run it with -sim.repeat.
//
// # What a seed costs
//
// The more seeds there are in a minute, the more is found, and most by TestFew. What profiles of it have said:
//
//   - With two processors each seed costs twice as much, without being over sooner: a bubble has hardly ever two things to do in
//     one fake instant, and wakes the second processor for a moment each time. Planted bugs are noticed after as many seeds with one.
//     So a seed has one processor, as under internal/sim/replay, but one in eight has all, and a run that is long enough has a process for each.
//   - Fake time in which nothing is left to do costs 6 ms a second: followers are told every 20 ms that their leader is there. The end of a seed therefore
//     looks whether all is done, and does not wait as long as a late message could take.
//   - What is asked one after the other costs a heartbeat's round each. Accounts are funded, and what there is at the end is asked for, all at once.
//   - A goroutine for each frame grew a stack for each, for an eighth of the time: see postman.
//   - The tail in which a few callers wait for faults to end is long, and costs little. To end it early saved nothing.
//   - Of the rest nothing is large: Raft's loops a fifth, partitions an eighth, protobuf a seventh, memory a sixth, and collecting it a fiftieth.
//
// `-sim.seeds 100 -test.cpuprofile FILE` profiles as many.
//
// Everything is in test files: a seed needs a testing.T.
package sim
