// Package replica runs every Raft group of a node in one process, over one node log and one
// store.
//
// # Model
//
// A group replicates one partition. Its leader proposes records; a record is opaque mutations
// (the encoding of storage.Batch, keys without the partition's prefix) under a header of
// (epoch, sequence). The epoch is the Raft term in which this node became leader and applied
// everything before it; the sequence counts from 1 within it. Every replica applies a record
// only if its epoch is the term of its log entry and its sequence is the next one, so a record
// that was evaluated on top of one that never made it into the log is void everywhere.
//
// A record passes four points: proposed (in memory), appended (on this node's disk), committed
// (on the disks of a majority: Listener.Committed), applied (in the store: Listener.Applied).
// Acknowledging needs the third, so the store is off the acknowledging path. The store holds,
// in the same batch as the mutations, how far each group is applied, under which epoch and
// sequence, and the group's Raft configuration. What the store lacks is replayed from the log.
//
// A group starts as follower, campaigns (at once if this node has the only vote, else when no leader is
// heard), and leads once its own term's first entry, and with it
// everything before, is in the store:
//
//	follower ──campaign──► elected ──first entry of the term in the store──► leading (Lead)
//	    ▲                     │                                                │
//	    └──── restarted ◄─────┴── append refused, sequence gap, lost term ─────┘ (StepDown)
//
// A new group is written as one log entry that adds this node as its only voter, so the store
// is a pure function of the log from the first entry on.
//
// # Goroutines
//
//   - The loop (the goroutine of Run) owns all RawNodes and everything in Group below "loop".
//     It is fed by the intake: proposals, finished appends, finished applies. It never blocks on
//     a disk, except when it reads back entries that memory no longer holds (start, restart).
//
//   - The appender owns Log.Append. The loop adds what all groups have ready to one pending
//     batch; each time a sync returns, the appender takes whatever has gathered.
//
//   - The applier owns Store.Commit and the merge of committed records of all groups into one
//     batch, and calls Listener.Applied and Log.TruncatePrefix, in this order, once it returned.
//
//   - The cleaner deletes rows that nothing refers to any more. It runs only with Config.Peers.
//
//   - Receivers are goroutines of the transport's, in ReceiveSnapshot: they write a snapshot's rows. Each
//     snapshot that is sent has a goroutine that begins its streams, until it got there (package stream).
//
// Groups that are on this node alone need no ticks: nothing happens in them that a proposal or
// a disk did not cause, so an idle host without Config.Peers has no timers.
//
// # Failures
//
// A log without space (ErrNoSpace) took nothing: the groups of that append step down, restart
// from the log, and campaign again about once a second. A log that is fenced, or a store commit
// of unknown outcome, ends Run: the node must be opened again. A store without space is retried;
// meanwhile the backlog bound makes Propose refuse. A log entry that cannot be decoded halts its
// partition: it steps down, applies nothing more, and Health names partition and index; the
// other partitions go on. A store that is behind the start of the log refuses to open
// (ErrDataLoss). An append or a commit that hangs is reported by Health and logged, and does not
// end the process.
//
// # More than one voter
//
// With Config.Peers the groups have members on other nodes: messages of a round go out as one frame
// for each node, ticks make followers campaign, and what a Ready says to other nodes waits for the append
// if term or vote changed in it: the library hands a candidate's requests out at once, and one
// that asks for votes before its own is durable could, after a crash, lead the same term twice.
//
// Groups in which nothing happens sleep: no ticks, no messages, but one beat for all of them between two
// nodes (quiet.go).
//
// A group without a replica on this node is absent. Its replica comes into being, empty, when
// a leader that has it in its configuration speaks to it, and gets the log or a snapshot
// (install.go). A node that is no member any more drops its replica once a leader says so, and keeps
// its term and vote (removal.go). The log keeps for members that lag what RetainBytes allows
// (retain.go).
package replica
