package chaos

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/perdure/perdure/cluster/membership"
	"github.com/perdure/perdure/internal/certificate/certificatetest"
)

// secrets keep strangers out of a lab. Each node has a folder of its own with them.
type secrets struct {
	l         *lab
	folders   []string
	key       string // of the keyring
	authority *certificatetest.Authority
}

// secure gives the nodes a keyring, and certificates of one authority: what they say to each other is encrypted then.
func (l *lab) secure() *secrets {
	l.t.Helper()
	s := &secrets{l: l, key: newKey(), authority: certificatetest.New(l.t, "authority 1")}
	for i, n := range l.nodes {
		s.folders = append(s.folders, l.t.TempDir())
		s.write(i, "keyring", s.key)
		s.write(i, "authorities", string(s.authority.PEM()))
		s.issue(i, s.authority)
		n.flags = append(n.flags, "--cluster-keyring", s.file(i, "keyring"), "--cluster-ca", s.file(i, "authorities"),
			"--cluster-cert", s.file(i, "certificate"), "--cluster-key", s.file(i, "key"))
	}
	return s
}

// newKey is one for a keyring, as a line.
func newKey() string {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // it never fails
	return base64.StdEncoding.EncodeToString(key) + "\n"
}

func (s *secrets) file(i int, name string) string { return filepath.Join(s.folders[i], name) }

// write changes a file of a node in place, so that the node may find half of it.
func (s *secrets) write(i int, name, content string) {
	s.l.t.Helper()
	if err := os.WriteFile(s.file(i, name), []byte(content), 0o600); err != nil {
		s.l.t.Fatal(err)
	}
}

// issue gives a node a certificate; for a moment it does not fit its key.
func (s *secrets) issue(i int, authority *certificatetest.Authority) {
	s.l.t.Helper()
	certificate, key := authority.Issue("node")
	s.write(i, "certificate", string(certificate))
	s.write(i, "key", string(key))
}

// flag is what a node is given with a flag.
func (n *node) flag(name string) string { return n.flags[slices.Index(n.flags, name)+1] }

// knock connects to a node's transport, and returns who issued the certificate that it shows, and whether it lets in
// who shows own.
func (n *node) knock(own ...tls.Certificate) (issuer string, refused error) {
	n.t.Helper()
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", n.flag("--cluster-transport"),
		&tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}, Certificates: own})
	if err != nil {
		n.t.Fatal(err)
	}
	defer conn.Close()
	shown := conn.ConnectionState().PeerCertificates[0]
	if shown.Subject.CommonName != "node" {
		n.t.Errorf("the transport of %s shows the certificate of %q", n.address, shown.Subject.CommonName)
	}
	// TLS 1.3 tells at the first read who is refused, or there is a reset. Who is let in reads HTTP/2's first frame.
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		n.t.Fatal(err)
	}
	_, err = conn.Read(make([]byte, 1))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		n.t.Fatalf("%s neither lets in nor refuses", n.address)
	}
	return shown.Issuer.CommonName, err
}

// isSecure looks whether nodes that run talk TLS to each other, and let in nobody else.
func (l *lab) isSecure() {
	l.t.Helper()
	for _, n := range l.nodes {
		if _, refused := n.knock(); refused == nil {
			l.t.Errorf("the transport of %s lets in who has no certificate", n.address)
		}
	}
}

// everywhere takes a step at one node after the other: it changes files, and waits until the node does as they say.
func (s *secrets) everywhere(step string, change func(i int), wanting func(i int) string) {
	s.l.t.Helper()
	began := time.Now()
	for i, n := range s.l.nodes {
		change(i)
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) { // polling another process
			missing := wanting(i)
			if missing == "" {
				break
			}
			if time.Now().After(deadline) {
				s.l.t.Fatalf("%s: %s at %s, after 30 s", step, missing, n.address)
			}
		}
	}
	s.l.t.Logf("%s: %s", step, time.Since(began).Round(time.Millisecond))
}

// changeKey takes the steps of docs/guides/cluster.md, "The keyring".
func (s *secrets) changeKey() {
	s.l.t.Helper()
	before, next := s.key, newKey()
	var deaf int // what nodes did not understand of strangers before
	for _, n := range s.l.nodes {
		deaf += n.said.count(cannotDecrypt)
	}
	for _, step := range []struct{ name, keyring string }{
		{"the new key is added", before + next},
		{"the keys are swapped", next + before},
		{"the old key is removed", next},
	} {
		reloaded := make([]int, len(s.l.nodes))
		s.everywhere(step.name, func(i int) {
			reloaded[i] = s.l.nodes[i].said.count("keyring reloaded")
			s.write(i, "keyring", step.keyring)
		}, func(i int) string {
			if s.l.nodes[i].said.count("keyring reloaded") == reloaded[i] {
				return "the keyring is not read"
			}
			return ""
		})
	}
	s.key = next
	for _, n := range s.l.nodes {
		deaf -= n.said.count(cannotDecrypt)
	}
	if deaf != 0 {
		s.l.t.Errorf("while the key was changed there were %d times that a node did not understand another one", -deaf)
	}
}

// cannotDecrypt is what a node says of gossip that is encrypted with a key that it has not.
const cannotDecrypt = "no installed keys could decrypt the message"

// changeAuthority takes the steps of docs/guides/cluster.md, "TLS between nodes".
func (s *secrets) changeAuthority(name string) {
	s.l.t.Helper()
	before, next := s.authority, certificatetest.New(s.l.t, name)
	old, own := before.Pair("node"), next.Pair("node")
	s.everywhere("the new authority is trusted too", func(i int) {
		s.write(i, "authorities", string(before.PEM())+string(next.PEM()))
	}, func(i int) string {
		if _, refused := s.l.nodes[i].knock(own); refused != nil {
			return "the new authority is not trusted: " + refused.Error()
		}
		return ""
	})
	s.everywhere("certificates are new", func(i int) { s.issue(i, next) }, func(i int) string {
		issuer, refused := s.l.nodes[i].knock(old)
		if refused != nil {
			s.l.t.Errorf("%s refuses the old authority while it is trusted: %v", s.l.nodes[i].address, refused)
		}
		if issuer != name {
			return "the certificate shown is still of " + issuer
		}
		return ""
	})
	s.everywhere("the old authority is not trusted", func(i int) { s.write(i, "authorities", string(next.PEM())) }, func(i int) string {
		if _, refused := s.l.nodes[i].knock(old); refused == nil {
			return "the old authority is trusted"
		}
		return ""
	})
	s.authority = next
}

// suffices proves that nodes let in who has the new secrets, and nobody with the old ones.
func (s *secrets) suffices(key string, authority *certificatetest.Authority) {
	s.l.t.Helper()
	for _, n := range s.l.nodes {
		if issuer, refused := n.knock(s.authority.Pair("node")); refused != nil {
			s.l.t.Errorf("%s, with a certificate of %q, refuses another one: %v", n.address, issuer, refused)
		}
		if _, refused := n.knock(authority.Pair("node")); refused == nil {
			s.l.t.Errorf("%s lets in who has a certificate of the old authority", n.address)
		}
	}
	s.gossip(key, false)
	s.gossip(s.key, true)
}

// gossip has a node that has no cluster yet ask one of these for theirs, which answers or does not understand.
func (s *secrets) gossip(key string, answers bool) {
	s.l.t.Helper()
	file := filepath.Join(s.l.t.TempDir(), "keyring")
	if err := os.WriteFile(file, []byte(key), 0o600); err != nil {
		s.l.t.Fatal(err)
	}
	asked := s.l.nodes[0]
	m, err := membership.New(membership.Config{NodeID: 9, Bind: "127.0.0.1:0", Seeds: []string{asked.flag("--cluster")}, KeyringFile: file,
		Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		s.l.t.Fatal(err)
	}
	before := asked.said.count(cannotDecrypt)
	ctx, cancel := context.WithCancel(s.l.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			s.l.t.Error(err)
		}
	}()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) { // polling another process
		answered, refused := m.ClusterID() != "", asked.said.count(cannotDecrypt) > before
		switch {
		case answered && !answers:
			s.l.t.Fatal("who has the old key is told of the cluster")
		case answered, refused && !answers:
			return
		case time.Now().After(deadline):
			s.l.t.Fatalf("it is not told of the cluster, and whether it should be is %t; after 30 s", answers)
		}
	}
}

// TestSecretsAreReplaced replaces, by the steps of the guide and under load, the key that gossip is encrypted with and the
// authority of nodes' certificates; then nodes are killed one after the other, so that all connections are made with
// what is new. That suffices then, and what is old opens nothing.
func TestSecretsAreReplaced(t *testing.T) {
	random := choices(t)
	l := newLab(t, 3, false)
	s := l.secure()
	l.start()
	l.isSecure()
	l.settled(3)
	rounds, began := 0, time.Now()
	// The load ends with the last round; its length is what a machine that is busy is given.
	countUnderLoad(t, random, l.nodes, *chaosFor/20+5*time.Minute, func(ctx context.Context) string {
		for rounds == 0 || time.Since(began) < *chaosFor/20 {
			rounds++
			key, authority := s.key, s.authority
			s.changeKey()
			s.changeAuthority(fmt.Sprint("authority ", rounds+1))
			s.suffices(key, authority) // without a restart
			for i, n := range l.nodes {
				l.kill(i)
				n.start()
				l.settled(3)
			}
			s.suffices(key, authority)
		}
		if ctx.Err() != nil {
			t.Error("the load ended before the secrets were replaced")
		}
		return fmt.Sprintf("secrets were replaced %d times in %s", rounds, time.Since(began).Round(time.Millisecond))
	})
}
