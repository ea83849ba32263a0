// Package transport carries what nodes of one cluster say to each other: one-way frames, calls
// and streams, by node id, over one TCP port per node.
//
// # Model
//
// A node is known by its id; SetAddresses says where each is. Towards every node it knows an
// address of, a Transport keeps up to three HTTP/2 connections, so that what is urgent never
// waits behind what is large:
//
//   - frames: one stream, opened at once and again for ever, on which Send's frames leave in
//     batches of whatever was waiting;
//   - calls: opened by the first Call, one HTTP/2 stream for each;
//   - streams: opened by the first Stream.
//
// The other direction is the other node's own. A frame is sent at most once: one that was queued
// or under way when the connection broke is lost. Frames from one node to another arrive in the
// order they were sent, over reconnects too.
//
// # Who is let in
//
// Every call and stream begins with a hello: cluster id, node id of either end, and the range of
// protocol versions the caller speaks. The callee refuses (type Refused) a caller of another
// cluster, one that means another node (its address is out of date), one that Config.Admit
// refuses because it is no member or was removed, and one that speaks no common version. A
// refusal is certain not to have reached a Handler. It says what to do, is told to
// Config.OnRefused, and is asked about again after seconds, not milliseconds.
//
// With Config.TLS both ends prove by a certificate of the cluster's own authority that they are
// nodes of this cluster, though not which: any certificate of that authority is good for any node
// id. Without it the hello is only a safeguard against mistakes, and whoever reaches the port is
// a node; Run warns when that is more than this machine.
//
// # Goroutines
//
// Run accepts connections and waits. For each node there is one goroutine that connects and
// writes frames, and one that waits for the end of its stream; for each incoming stream and call
// there is the one of the HTTP server that reads it and runs the Handler. None is made for a frame.
package transport
