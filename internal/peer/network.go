package peer

import (
	"context"
	"errors"
)

// Network reaches other nodes. Its methods are safe for concurrent use.
type Network interface {
	// Call asks a node and waits for its answer, at most as long as ctx, whose end it tells the
	// other side. An error that is ErrUnreachable says that the request certainly was not
	// delivered and will not be; any other one leaves open whether it was. It must notice within
	// seconds that a node does not answer any more, whatever ctx.
	Call(ctx context.Context, to uint64, method string, request []byte) ([]byte, error)
	// Send takes a frame to a node's Server.Frame, or loses it. It does not block, and keeps frame.
	Send(to uint64, frame []byte)
}

// ErrUnreachable says that a request certainly was not delivered.
var ErrUnreachable = errors.New("peer: the node can't be reached")

// Method is the method of Network.Call that Server.Call answers.
const Method = "partition"
