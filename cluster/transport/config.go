package transport

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/perdure/perdure/internal/certificate"
)

// Messenger is what nodes use of each other's network. Transport is the one of real networks,
// package memory has one for simulations; both pass transporttest.Run. Its methods are safe for
// concurrent use.
type Messenger interface {
	// Run carries traffic until ctx ends or the listener fails, and returns after its goroutines.
	// Handlers under way are then cancelled; see Timing.Heed. It runs once.
	Run(ctx context.Context) error
	// SetAddresses says which nodes there are and where. Nodes left out are disconnected.
	SetAddresses(addresses map[uint64]string)
	// Send sends a frame one way and keeps it. It never blocks. A frame is dropped when the node
	// is unknown or can't be reached, when Limits.QueueBytes wait for it, or when it is larger
	// than Limits.FrameBytes.
	Send(to uint64, kind uint8, frame []byte)
	// Call sends a request and waits for the response. It is sent at most once. An error is an
	// *Error from the handler, or else it matches ErrUnreachable (often a *Refused) or ErrUnknown.
	// A call without a deadline lasts as long as the other node answers pings.
	Call(ctx context.Context, to uint64, method string, request []byte) ([]byte, error)
	// Stream sends header and then all that next returns until its io.EOF, as fast as the other
	// node takes it, and waits for the response. next is called by this goroutine; its other
	// errors end the stream, at the other node too, and are in the error that Stream returns.
	// Errors are those of Call.
	Stream(ctx context.Context, to uint64, method string, header []byte, next func() ([]byte, error)) ([]byte, error)
}

// Handler is given what arrives. It is called by many goroutines at once.
type Handler interface {
	// Frame is given frames of one node in their order, one at a time. It keeps frame. While it
	// blocks, that node's frames wait.
	Frame(from uint64, kind uint8, frame []byte)
	// Call answers a request, which it keeps. ctx ends when the caller gives up or is gone.
	Call(ctx context.Context, from uint64, method string, request []byte) ([]byte, error)
	// Stream reads all it wants by next, which returns io.EOF at the end and another error if the
	// stream was cut, and then responds.
	Stream(ctx context.Context, from uint64, method string, header []byte, next func() ([]byte, error)) ([]byte, error)
}

// Versions are the versions of the protocol a node speaks, from Min to Max.
type Versions struct{ Min, Max uint32 }

// Spoken are what this build speaks.
var Spoken = Versions{Min: 1, Max: 1}

// common is the newest version both speak, 0 if there is none.
func (v Versions) common(other Versions) uint32 {
	if newest := min(v.Max, other.Max); newest >= max(v.Min, other.Min) {
		return newest
	}
	return 0
}

// String is the range in words.
func (v Versions) String() string {
	if v.Min == v.Max {
		return fmt.Sprintf("version %d", v.Min)
	}
	return fmt.Sprintf("versions %d to %d", v.Min, v.Max)
}

// Limits bound what one node can make another one hold.
type Limits struct {
	// FrameBytes is the largest frame, and chunk of a stream. Defaults to 32 MiB.
	FrameBytes int
	// RequestBytes is the largest request and response of a call, and response and header of a
	// stream. Defaults to 32 MiB.
	RequestBytes int
	// QueueBytes of frames may wait for one node. Defaults to 64 MiB.
	QueueBytes int
	// Calls is how many may be under way from one node to another; more are refused (ReasonBusy).
	// Defaults to 4,096.
	Calls int
	// Streams is the same for streams. Defaults to 16.
	Streams int
}

// Timing has the times a Transport takes. Defaults are for a network within a region.
type Timing struct {
	// Dial bounds making a connection, TLS included. Defaults to 3 s.
	Dial time.Duration
	// Hello bounds the answer to a hello on a new connection. Defaults to 5 s.
	Hello time.Duration
	// Retry is the first pause before connecting again; it doubles up to RetryMax. Pauses vary by
	// half, so that nodes don't come all at once. Default to 50 ms and 2 s.
	Retry, RetryMax time.Duration
	// RefusedRetry is the first pause after a refusal; it doubles up to RefusedRetryMax. Default to
	// 1 s and 30 s.
	RefusedRetry, RefusedRetryMax time.Duration
	// Ping is after how long a quiet connection is probed, and PingTimeout how long the answer may
	// take; then it is given up, and all calls on it. Default to 5 s and 5 s.
	Ping, PingTimeout time.Duration
	// Stall ends a stream of which the other node took nothing for so long. Defaults to 1 min.
	Stall time.Duration
	// ConnectionAge is when a connection is replaced, so that a certificate that was revoked or
	// an authority that was dropped loses its effect. Defaults to 1 h; peers that don't replace
	// theirs are cut off at twice that.
	ConnectionAge time.Duration
	// Drain is how long Run, when it stops, waits for handlers of calls under way. Defaults to 2 s.
	Drain time.Duration
	// Heed is how long it then waits for handlers, whose contexts have ended: one that does not heed
	// that is left behind. Defaults to 5 s.
	Heed time.Duration
}

// TLS names the files of TLS between nodes: see certificate.MutualFiles.
type TLS struct {
	// CertFile and KeyFile hold this node's certificate, with its chain, and its key.
	CertFile, KeyFile string
	// CAFile holds the authorities of nodes' certificates: whoever has a certificate of theirs is
	// a node of this cluster, so they should sign for nothing else.
	CAFile string
	// Name, if set, is a DNS name that every node's certificate must have, for authorities that do
	// sign for others.
	Name string
}

func (t *TLS) files() certificate.MutualFiles {
	return certificate.MutualFiles{CertFile: t.CertFile, KeyFile: t.KeyFile, CAFile: t.CAFile, Name: t.Name}
}

// Config is what a Messenger needs. The zero value of most fields is their default.
type Config struct {
	// NodeID is this node; not 0.
	NodeID uint64
	// ClusterID is the cluster's. Empty for a node that joins one: it calls nothing but
	// OpenMethods and is called by nobody, until SetClusterID.
	ClusterID string
	// Listen is host:port; port 0 takes a free one, which Addr tells.
	Listen string
	// TLS between nodes. Nil: plain TCP.
	TLS *TLS
	// Handler is given what arrives.
	Handler Handler
	// Admit says whether a node may speak: nil if so, else an error that wraps ErrRemoved or
	// ErrNotMember. It is asked at every call and batch of frames, so it must be quick. Nil lets
	// every node of the cluster in.
	Admit func(node uint64) error
	// OpenMethods are methods of Call that need no Admit, for nodes that want to join.
	OpenMethods []string
	// OnPeer is told when frames can flow to a node, with the version and build it speaks.
	OnPeer func(node uint64, version uint32, build string)
	// OnRefused is told when a node doesn't let this one connect. With ReasonRemoved,
	// ReasonCallerTooOld and ReasonStale this node should stop.
	OnRefused func(refused *Refused)
	// FeatureLevel is up to which level of records this program reads; 0 is 1. WrittenLevel, if set, says up
	// to which they may be written in the cluster as far as this node knows, 0 if it doesn't. Nodes
	// of which either reads less than the other knows to be written refuse each other. WrittenLevel is
	// asked at every call and batch of frames, so it must be quick, and must not go down.
	FeatureLevel uint32
	WrittenLevel func() uint32
	// OnTooOld is told when this node refused another because its own program is too old
	// (ReasonCalleeTooOld): it should stop.
	OnTooOld func(refused *Refused)
	// Log says what this node's disk has, at the time of every call and batch of frames: all that they
	// acknowledge must be counted. Nil says nothing. CheckLog is given what other nodes say, and an error
	// refuses them (ReasonStale). Both must be quick.
	Log      func() LogClaim
	CheckLog func(node uint64, said LogClaim) error
	// Build is this program's version, for people.
	Build string
	// Versions default to Spoken.
	Versions Versions
	// Limits and Timing have defaults of their own.
	Limits Limits
	Timing Timing
	// Logger defaults to slog.Default.
	Logger *slog.Logger
}

// WithDefaults fills in defaults.
func (c Config) WithDefaults() Config {
	c.Versions = cmp.Or(c.Versions, Spoken)
	c.Limits = Limits{
		FrameBytes:   cmp.Or(c.Limits.FrameBytes, 32<<20),
		RequestBytes: cmp.Or(c.Limits.RequestBytes, 32<<20),
		QueueBytes:   cmp.Or(c.Limits.QueueBytes, 64<<20),
		Calls:        cmp.Or(c.Limits.Calls, 4096),
		Streams:      cmp.Or(c.Limits.Streams, 16),
	}
	t := &c.Timing
	for _, field := range []struct {
		value    *time.Duration
		standard time.Duration
	}{
		{&t.Dial, 3 * time.Second}, {&t.Hello, 5 * time.Second}, {&t.Retry, 50 * time.Millisecond}, {&t.RetryMax, 2 * time.Second},
		{&t.RefusedRetry, time.Second}, {&t.RefusedRetryMax, 30 * time.Second}, {&t.Ping, 5 * time.Second}, {&t.PingTimeout, 5 * time.Second},
		{&t.Stall, time.Minute}, {&t.ConnectionAge, time.Hour}, {&t.Drain, 2 * time.Second}, {&t.Heed, 5 * time.Second},
	} {
		*field.value = cmp.Or(*field.value, field.standard)
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// Validate reports all that is wrong, without touching files or network.
func (c Config) Validate() error {
	c = c.WithDefaults()
	var problems []error
	reject := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf("transport: "+format, args...))
	}
	if c.NodeID == 0 {
		reject("the node id is 0; every node needs an id of its own")
	}
	if c.Handler == nil {
		reject("Handler is nil")
	}
	if c.Versions.Min == 0 || c.Versions.Min > c.Versions.Max {
		reject("versions %d to %d are no range; Min is at least 1 and at most Max", c.Versions.Min, c.Versions.Max)
	}
	l := c.Limits
	for _, limit := range []struct {
		name        string
		value, most int
	}{{"FrameBytes", l.FrameBytes, 1 << 30}, {"RequestBytes", l.RequestBytes, 1 << 30}, {"QueueBytes", l.QueueBytes, 1 << 40}, {"Calls", l.Calls, 1 << 20}, {"Streams", l.Streams, 1 << 10}} {
		if limit.value < 1 || limit.value > limit.most {
			reject("Limits.%s is %d; it must be 1 to %d", limit.name, limit.value, limit.most)
		}
	}
	if l.QueueBytes < l.FrameBytes {
		reject("Limits.QueueBytes is %d; it must have room for a frame of Limits.FrameBytes, %d", l.QueueBytes, l.FrameBytes)
	}
	if c.TLS != nil {
		if err := c.TLS.files().Validate(); err != nil {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

func (c Config) validateListen() error {
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return fmt.Errorf("transport: Listen is %q; it must be host:port, such as 127.0.0.1:7375: %w", c.Listen, err)
	}
	return nil
}
