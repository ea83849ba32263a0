package transport_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/perdure/perdure/cluster/transport"
	. "github.com/perdure/perdure/cluster/transport/transporttest"
	"github.com/perdure/perdure/internal/certificate/certificatetest"
)

// authority signs certificates of nodes.
type authority struct {
	*certificatetest.Authority
	t    *testing.T
	path string
}

func newAuthority(t *testing.T, name string) *authority {
	a := certificatetest.New(t, name)
	return &authority{a, t, a.File()}
}

// issue writes a certificate, with key, that has the DNS name. That it is for servers alone must not matter.
func (a *authority) issue(path, name string) { a.IssueFile(path, name, x509.ExtKeyUsageServerAuth) }

// node is the TLS of a node of the authority.
func (a *authority) node(name string) *transport.TLS {
	path := filepath.Join(a.t.TempDir(), "node.pem")
	a.issue(path, name)
	return &transport.TLS{CertFile: path, KeyFile: path, CAFile: a.path}
}

func with(tls *transport.TLS) func(n *Node) { return func(n *Node) { n.Config.TLS = tls } }

func TestTLSConformance(t *testing.T) {
	ca := newAuthority(t, "ours")
	Run(t, Suite{Bubble: func(t *testing.T, test func(*testing.T)) { test(t) },
		Make: func(t *testing.T, config transport.Config) (transport.Messenger, string) {
			config.TLS = ca.node("node")
			return tcp(t, config)
		}})
}

func TestTLSKeepsStrangersOut(t *testing.T) {
	ours, theirs := newAuthority(t, "ours"), newAuthority(t, "theirs")
	b := Start(t, tcp, 2, with(ours.node("b")))
	friend := Start(t, tcp, 1, with(ours.node("a")))
	friend.SetAddresses(map[uint64]string{2: b.Address})
	Reach(t, friend, b)
	named := ours.node("node.example")
	named.Name = "node.example"
	strict := Start(t, tcp, 3, with(named))
	for _, test := range []struct {
		name   string
		to     *Node
		change func(n *Node)
	}{
		{"another authority", b, with(theirs.node("a"))},
		{"no TLS", b, nil},
		{"another name", strict, with(ours.node("a"))},
		{"a node that wants another name", b, func(n *Node) {
			tls := ours.node("other.example")
			tls.Name = "other.example"
			n.Config.TLS = tls
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := len(test.to.Frames())
			stranger := Start(t, tcp, 9, test.change)
			Connect(stranger, test.to)
			if _, err := stranger.Call(t.Context(), test.to.Config.NodeID, "m", nil); err == nil {
				t.Error("a call was answered")
			}
			Eventually(t, "a failed attempt", func() bool {
				stranger.Send(test.to.Config.NodeID, 1, nil)
				peers := stranger.Messenger.(*transport.Transport).Peers()
				return peers[0].Trouble != nil && peers[0].Trouble.Error() != "not connected yet" && !peers[0].Connected
			})
			if len(stranger.Met()) != 0 || len(test.to.Met()) != 0 || len(test.to.Frames()) != before {
				t.Errorf("they met: %v %v", stranger.Met(), test.to.Met())
			}
		})
	}
	// Without any certificate.
	conn, err := tls.Dial("tcp", b.Address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err == nil {
		defer conn.Close()
		_, err = conn.Read(make([]byte, 1)) // TLS 1.3 tells at the first read
	}
	if err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("without a certificate: %v", err)
	}
}

func TestTLSReload(t *testing.T) {
	first, second := newAuthority(t, "first"), newAuthority(t, "second")
	shared := filepath.Join(t.TempDir(), "authorities.pem")
	trust := func(authorities ...*authority) {
		var content []byte
		for _, a := range authorities {
			content = append(content, a.PEM()...)
		}
		if err := os.WriteFile(shared, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	trust(first)
	node := func(id uint64) *Node {
		files := first.node("n")
		files.CAFile = shared
		return Start(t, tcp, id, with(files))
	}
	a, b := node(1), node(2)
	Connect(a, b)
	Reach(t, a, b)
	// Both authorities are trusted, then the new one's certificates are used, then the old one is
	// not trusted any more: the order in which an authority is replaced.
	trust(first, second)
	for _, n := range []*Node{a, b} {
		second.issue(n.Config.TLS.CertFile, "n")
	}
	old := first.node("n")
	old.CAFile = shared
	Eventually(t, "the new certificate is shown", func() bool {
		pair, err := tls.LoadX509KeyPair(old.CertFile, old.KeyFile)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := tls.Dial("tcp", b.Address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}, Certificates: []tls.Certificate{pair}})
		if err != nil {
			t.Fatalf("with the old certificate, while both are trusted: %v", err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].Issuer.CommonName == "second"
	})
	trust(second)
	Eventually(t, "the old authority is not trusted any more", func() bool {
		pair, err := tls.LoadX509KeyPair(old.CertFile, old.KeyFile)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := tls.Dial("tcp", b.Address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}, Certificates: []tls.Certificate{pair}})
		if err != nil {
			return true
		}
		defer conn.Close()
		_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond)) // TLS 1.3 tells at the first read
		_, err = conn.Read(make([]byte, 1))
		return err != nil && strings.Contains(err.Error(), "certificate")
	})
	// The nodes still talk, over old connections and new ones.
	Reach(t, a, b)
	address := b.Address
	files := b.Config.TLS
	b.Stop()
	b = Start(t, tcp, 2, func(n *Node) { n.Config.TLS, n.Config.Listen = files, address })
	Reach(t, a, b)
	if _, err := a.Call(t.Context(), 2, "m", nil); err != nil {
		t.Error(err)
	}
}

func TestTLSMistakesAreToldAtStart(t *testing.T) {
	ours, theirs := newAuthority(t, "ours"), newAuthority(t, "theirs")
	config := transport.Config{NodeID: 1, ClusterID: "c", Listen: "127.0.0.1:0", Handler: noHandler{}, Logger: slog.New(slog.DiscardHandler)}
	foreign := theirs.node("a")
	foreign.CAFile = ours.path
	unnamed := ours.node("a")
	unnamed.Name = "b"
	for _, test := range []struct {
		name string
		tls  *transport.TLS
		want string
	}{
		{"no authorities", &transport.TLS{CertFile: "c", KeyFile: "k"}, "authorities"},
		{"no such file", &transport.TLS{CertFile: "/nowhere/c", KeyFile: "/nowhere/k", CAFile: "/nowhere/ca"}, "/nowhere/c"},
		{"of another authority", foreign, "other nodes would refuse"},
		{"without the name", unnamed, "other nodes would refuse"},
	} {
		config.TLS = test.tls
		if _, err := transport.New(config); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want an error with %q", test.name, err, test.want)
		}
	}
}

func TestHTTP1IsToldWhatThePortIs(t *testing.T) {
	n := Start(t, tcp, 1, nil)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+n.Address+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, _ := io.ReadAll(response.Body); !strings.Contains(string(body), "transport port") {
		t.Errorf("%s: %q", response.Status, body)
	}
}
