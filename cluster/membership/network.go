package membership

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// Network is a network inside one process, for simulations; it runs under testing/synctest. Nodes
// of it have a Bind with an IP address and a port, which mean nothing outside of it.
type Network struct {
	cut func(from, to string) bool
	// packets, packetBytes and streamBytes were sent.
	packets, packetBytes, streamBytes atomic.Uint64
	mu                                struct {
		sync.Mutex
		wires map[string]*wire
	}
}

// NewNetwork makes a network. cut says whether nothing passes from one address to another, and is
// called by many goroutines; nil passes all.
func NewNetwork(cut func(from, to string) bool) *Network {
	if cut == nil {
		cut = func(string, string) bool { return false }
	}
	n := &Network{cut: cut}
	n.mu.wires = map[string]*wire{}
	return n
}

// Traffic is what all nodes have sent: packets with the bytes in them, and bytes in streams.
// Headers of a real network come on top.
func (n *Network) Traffic() (packets, packetBytes, streamBytes uint64) {
	return n.packets.Load(), n.packetBytes.Load(), n.streamBytes.Load()
}

// Crash makes the node at an address silent, as if it had lost its power.
func (n *Network) Crash(address string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.mu.wires, address)
}

func (n *Network) open(at netip.AddrPort) (*wire, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.wires[at.String()] != nil {
		return nil, errors.New("the address is in use")
	}
	w := &wire{network: n, at: at, packets: make(chan *memberlist.Packet, 1024), streams: make(chan net.Conn, 64)}
	n.mu.wires[at.String()] = w
	return w, nil
}

// reach finds the node at an address, if it is reached.
func (n *Network) reach(from *wire, to string) *wire {
	n.mu.Lock()
	there, sends := n.mu.wires[to], n.mu.wires[from.at.String()] == from
	n.mu.Unlock()
	if there == nil || !sends || n.cut(from.at.String(), to) {
		return nil
	}
	return there
}

// wire is one node's end.
type wire struct {
	network *Network
	at      netip.AddrPort
	// Both drop what does not fit: nobody reads them after the library has stopped.
	packets chan *memberlist.Packet
	streams chan net.Conn
}

// FinalAdvertiseAddr, and the methods below, are the library's idea of a network.
func (w *wire) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return w.at.Addr().AsSlice(), int(w.at.Port()), nil
}

func (w *wire) WriteTo(packet []byte, to string) (time.Time, error) {
	now := time.Now()
	w.network.packets.Add(1)
	w.network.packetBytes.Add(uint64(len(packet)))
	if there := w.network.reach(w, to); there != nil {
		select {
		case there.packets <- &memberlist.Packet{Buf: slices.Clone(packet), From: net.UDPAddrFromAddrPort(w.at), Timestamp: now}:
		default:
		}
	}
	return now, nil
}

func (w *wire) PacketCh() <-chan *memberlist.Packet { return w.packets }

func (w *wire) DialTimeout(to string, timeout time.Duration) (net.Conn, error) {
	there := w.network.reach(w, to)
	// Both ways: without an answer there is no connection.
	if there == nil || w.network.cut(to, w.at.String()) {
		time.Sleep(timeout)
		return nil, fmt.Errorf("dial %s: no answer within %v", to, timeout)
	}
	ours, theirs := net.Pipe()
	select {
	case there.streams <- addressed{theirs, w.at, w.network}:
		return addressed{ours, there.at, w.network}, nil
	default:
		return nil, fmt.Errorf("dial %s: refused", to)
	}
}

func (w *wire) StreamCh() <-chan net.Conn { return w.streams }

func (w *wire) Shutdown() error {
	w.network.mu.Lock()
	defer w.network.mu.Unlock()
	if w.network.mu.wires[w.at.String()] == w {
		delete(w.network.mu.wires, w.at.String())
	}
	return nil
}

// addressed is a connection that knows whom it leads to.
type addressed struct {
	net.Conn
	to      netip.AddrPort
	network *Network
}

func (a addressed) Write(data []byte) (int, error) {
	n, err := a.Conn.Write(data)
	a.network.streamBytes.Add(uint64(n))
	return n, err
}

func (a addressed) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(a.to) }
