package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/perdure/perdure/internal/certificate"
	"github.com/perdure/perdure/internal/telemetry"
)

// Transport is the Messenger of real networks. Make it with New, then Run.
type Transport struct {
	config    Config
	clusterID atomic.Pointer[string]
	tls       *certificate.Mutual // nil: plain
	http      *http.Transport     // dials; keeps no connections
	service   *service
	// peers is replaced as a whole, so that Send takes no lock of all peers.
	peers atomic.Pointer[map[uint64]*peer]
	ready chan struct{}
	mu    struct {
		sync.Mutex
		listener net.Listener
		running  context.Context // nil before Run, done after
		started  bool
	}
	goroutines sync.WaitGroup
}

var _ Messenger = (*Transport)(nil)

// New makes a Transport of a valid configuration, and reads the files of its TLS.
func New(config Config) (*Transport, error) {
	config = config.WithDefaults()
	if err := errors.Join(config.Validate(), config.validateListen()); err != nil {
		return nil, err
	}
	t := &Transport{config: config, ready: make(chan struct{})}
	t.SetClusterID(config.ClusterID)
	if config.TLS != nil {
		var err error
		if t.tls, err = certificate.NewMutual(config.TLS.files(), config.Logger); err != nil {
			return nil, err
		}
	}
	t.peers.Store(&map[uint64]*peer{})
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	t.http = &http.Transport{
		Protocols:          protocols,
		DisableCompression: true,
		DialContext:        t.dialPlain,
		DialTLSContext:     t.dialTLS,
		HTTP2: &http.HTTP2Config{
			MaxReadFrameSize:              1 << 20,
			MaxReceiveBufferPerConnection: maxWindow,
			MaxReceiveBufferPerStream:     maxWindow,
			SendPingTimeout:               config.Timing.Ping,
			PingTimeout:                   config.Timing.PingTimeout,
			WriteByteTimeout:              config.Timing.Ping + config.Timing.PingTimeout,
		},
	}
	t.service = newService(t)
	return t, nil
}

// maxWindow is what may be under way unread: the largest that net/http takes.
const maxWindow = 4<<20 - 1

// SetClusterID tells the id of the cluster that this node has joined.
func (t *Transport) SetClusterID(id string) { t.clusterID.Store(&id) }

// Listen takes the port, so that Addr is known before Run. Run does it otherwise.
func (t *Transport) Listen(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.listener != nil {
		return nil
	}
	var listening net.ListenConfig
	listener, err := listening.Listen(ctx, "tcp", t.config.Listen)
	if err != nil {
		return fmt.Errorf("transport: listen on %s: %w", t.config.Listen, err)
	}
	t.mu.listener = listener
	return nil
}

// Close lets go of the port of a Transport that is never Run.
func (t *Transport) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.started || t.mu.listener == nil {
		return nil
	}
	t.mu.started = true
	return t.mu.listener.Close()
}

// Addr is where the Transport listens; nil before Listen or Run.
func (t *Transport) Addr() net.Addr {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.listener == nil {
		return nil
	}
	return t.mu.listener.Addr()
}

// Ready is closed once Run carries traffic.
func (t *Transport) Ready() <-chan struct{} { return t.ready }

// Run implements Messenger.
func (t *Transport) Run(ctx context.Context) error {
	if err := t.Listen(ctx); err != nil {
		return err
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	t.mu.Lock()
	if t.mu.started {
		t.mu.Unlock()
		return errors.New("transport: run: it was run before; make a new one")
	}
	t.mu.started, t.mu.running = true, running
	listener := t.mu.listener
	for _, p := range *t.peers.Load() {
		t.startLocked(p)
	}
	close(t.ready)
	t.mu.Unlock()
	t.warnOfReach(listener.Addr())

	server := t.service.server(running)
	served := make(chan error, 1)
	go func() {
		if t.tls != nil {
			served <- server.ServeTLS(listener, "", "")
		} else {
			served <- server.Serve(listener)
		}
	}()
	var err error
	select {
	case <-ctx.Done():
		// Those who call now are told for certain that they were not heard.
		t.service.drain(server, t.config.Timing.Drain)
	case err = <-served:
		err = fmt.Errorf("transport: accept on %s: %w", listener.Addr(), err)
		served <- nil
	}
	stop()
	t.mu.Lock()
	peers := *t.peers.Load()
	t.peers.Store(&map[uint64]*peer{})
	t.mu.Unlock()
	for _, p := range peers {
		p.stop()
	}
	_ = server.Close() // closes listener and connections, whose errors matter to nobody now
	<-served
	t.service.wait(t.config.Timing.Heed)
	t.goroutines.Wait()
	t.http.CloseIdleConnections()
	return err
}

func (t *Transport) warnOfReach(at net.Addr) {
	tcp, ok := at.(*net.TCPAddr)
	if t.tls != nil || !ok || tcp.IP.IsLoopback() {
		return
	}
	t.config.Logger.Warn("whoever can reach the transport address is a node of the cluster: keep others away from the port, or set TLS between nodes", telemetry.KeyAddress, at.String())
}

// start runs f as one of the goroutines that Run waits for; it reports whether it did.
func (t *Transport) start(f func(ctx context.Context)) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.running == nil || t.mu.running.Err() != nil {
		return false
	}
	running := t.mu.running
	t.goroutines.Go(func() { f(running) })
	return true
}

func (t *Transport) startLocked(p *peer) {
	running := t.mu.running
	if running != nil && running.Err() == nil {
		t.goroutines.Go(func() { p.run(running) })
	}
}

// SetAddresses implements Messenger.
func (t *Transport) SetAddresses(addresses map[uint64]string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.started && t.mu.running != nil && t.mu.running.Err() != nil {
		return
	}
	before := *t.peers.Load()
	after := make(map[uint64]*peer, len(addresses))
	for id, address := range addresses {
		if id == t.config.NodeID || address == "" {
			continue
		}
		if p := before[id]; p != nil {
			p.move(address)
			after[id] = p
			continue
		}
		p := newPeer(t, id, address)
		after[id] = p
		t.startLocked(p)
	}
	t.peers.Store(&after)
	for id, p := range before {
		if after[id] == nil {
			p.stop()
		}
	}
}

// PeerStatus is what a Transport knows of another node.
type PeerStatus struct {
	// NodeID and Address are what SetAddresses said.
	NodeID  uint64
	Address string
	// Connected says that frames can flow to the node, since Since.
	Connected bool
	Since     time.Time
	// Version and Build are what the node said when it was last connected.
	Version uint32
	Build   string
	// QueuedBytes of frames wait, and DroppedFrames is how many were dropped since the node is known.
	QueuedBytes   int
	DroppedFrames uint64
	// Trouble is why the node is not connected.
	Trouble error
}

// Peers has the status of every node with an address, by id.
func (t *Transport) Peers() []PeerStatus {
	peers := *t.peers.Load()
	var list []PeerStatus
	for _, id := range slices.Sorted(maps.Keys(peers)) {
		list = append(list, peers[id].status())
	}
	return list
}

// Send implements Messenger.
func (t *Transport) Send(to uint64, kind uint8, frame []byte) {
	if p := (*t.peers.Load())[to]; p != nil {
		p.push(kind, frame)
	}
}

func (t *Transport) dialPlain(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := net.Dialer{KeepAlive: -1} // HTTP/2 pings do that
	return dialer.DialContext(ctx, network, address)
}

func (t *Transport) dialTLS(ctx context.Context, network, address string) (net.Conn, error) {
	raw, err := t.dialPlain(ctx, network, address)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, t.tls.Client())
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, err
	}
	return conn, nil
}
