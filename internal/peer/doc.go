// Package peer takes requests, and messages between partitions, to partitions that other nodes
// lead.
//
// # Model
//
//	caller ──► Router ──► partition.Router             led here: as if there were no others
//	                 └──► Network.Call ──► Server ──► partition.Router of the leader
//	partition ──► Router.Post ──► Network.Send ──► Server.Frame ──► partition of the leader
//
// Leaders is what this node believes about who leads. It may be wrong at any time: only the leader
// decides, and a node that does not lead says so, with what it believes.
//
// # What is tried again
//
// A request that certainly was not accepted (its node could not be reached, or does not lead) is
// tried again, at whoever leads then, for as long as its ctx allows and about three seconds without
// any leader. A request whose outcome is unknown (the connection broke, the leadership ended
// while it waited) is tried again only if two of it are as good as one; the methods of Router say
// why that holds for each. All others are answered with unavailable, which says that the request
// may have been accepted.
//
// # Goroutines
//
//   - Every method of Router and Server runs on its caller's. One that may be repeated has another
//     one while it waits for a node, which watches whether the leader changes.
//   - Lists ask the nodes at the same time, each on a goroutine that ends with the call.
package peer
