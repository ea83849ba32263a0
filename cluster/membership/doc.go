// Package membership finds the other nodes of a cluster and says which of them seem to be alive,
// by gossip (SWIM, hashicorp/memberlist). It informs and never decides: what it says may be late,
// differ between nodes, or be wrong, and nothing that owns anything may rest on it.
//
// # Model
//
// Each node gossips its Meta: cluster, addresses, version. Each process of a node is a member of
// its own for the library (its name has the time it started), so that a node that restarts, with
// whatever address, is there at once, and its former process is forgotten when it is found dead.
// Members has one entry for each node: its newest process that seems alive, or else the newest.
//
// Nodes also share facts: small values by key, of which the newest of each node and key reaches
// every node, by gossip if they are small, by direct messages if they are not, and by the
// exchanges that nodes make every few seconds in any case.
//
// # Who belongs together
//
// A node takes part in one cluster: what it hears of members of another is ignored, and an
// exchange with one is refused. A node without a cluster, one that joins, takes the first that
// it finds. With a keyring all traffic is encrypted and authenticated by a shared key; a node
// with another one is not heard at all.
//
// # Failure handling
//
// A node that answers neither directly nor through others is dead after a few seconds. The library
// forgets the dead and never looks for them again, so that two halves of a network would stay apart
// for ever after half a minute. Therefore a loop asks, for ever: the seeds, their names resolved
// anew each time, the nodes that were found dead in the last day, and those of a file that was
// written by earlier processes. Whoever of them answers is merged again.
//
// # Goroutines
//
// Run has one that tells changes, one that rejoins, and one that does the rest: what this node
// says of itself, the keyring's file, the file of known members, large facts. They end before Run
// returns. The library has its own, of which some end up to Timing.Timeout later: those that wait
// for an answer.
package membership
