package certificate

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
)

// MutualFiles names the files of a node that calls other nodes and is called by them, in PEM form.
type MutualFiles struct {
	// CertFile holds the node's certificate and its chain, KeyFile its private key.
	CertFile, KeyFile string
	// CAFile holds the authorities that sign nodes' certificates. Whoever has a certificate of one
	// of them is a node, so they must sign nothing else, or Name must tell.
	CAFile string
	// Name, if set, is a DNS name that every node's certificate must have, whatever the address it
	// is reached by.
	Name string
}

// Validate reports all that is wrong with the settings, without reading the files.
func (f MutualFiles) Validate() error {
	if f.CertFile == "" || f.KeyFile == "" || f.CAFile == "" {
		return fmt.Errorf("tls between nodes: certificate file %q, key file %q and authorities' file %q must all be set", f.CertFile, f.KeyFile, f.CAFile)
	}
	return nil
}

// Mutual is TLS 1.3 with certificates on both ends. Its methods are safe for concurrent use.
type Mutual struct{ reloader *reloader }

// NewMutual reads files.
func NewMutual(files MutualFiles, log *slog.Logger) (*Mutual, error) {
	if err := files.Validate(); err != nil {
		return nil, err
	}
	r, err := newReloader([]string{files.CertFile, files.KeyFile, files.CAFile}, log, func() (*tls.Config, error) {
		certificate, err := loadPair(files.CertFile, files.KeyFile)
		if err != nil {
			return nil, err
		}
		authorities, err := loadAuthorities("nodes' authorities", files.CAFile)
		if err != nil {
			return nil, err
		}
		verify := func(state tls.ConnectionState) error { return verifyNode(state, authorities, files) }
		// A node that its own peers would refuse should hear so when it starts.
		leaf, err := x509.ParseCertificate(certificate.Certificate[0])
		if err != nil {
			return nil, fmt.Errorf("tls: certificate %s: %w", files.CertFile, err)
		}
		own := tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}
		for _, der := range certificate.Certificate[1:] {
			if above, err := x509.ParseCertificate(der); err == nil {
				own.PeerCertificates = append(own.PeerCertificates, above)
			}
		}
		if err := verify(own); err != nil {
			return nil, fmt.Errorf("tls: other nodes would refuse the certificate %s: %w", files.CertFile, err)
		}
		return &tls.Config{
			MinVersion:   tls.VersionTLS13,
			Certificates: []tls.Certificate{certificate},
			NextProtos:   []string{"h2"},
			ClientAuth:   tls.RequireAnyClientCert,
			// Connections last: a resumed session would save nothing, and outlive its certificate.
			SessionTicketsDisabled: true,
			// The address a node is reached by changes, its certificate doesn't: chain and Name are
			// verified instead of the host's name.
			InsecureSkipVerify: true,
			VerifyConnection:   verify,
		}, nil
	})
	if err != nil {
		return nil, err
	}
	return &Mutual{r}, nil
}

// Server is a configuration for a listener.
func (m *Mutual) Server() *tls.Config {
	return m.reloader.server(tls.VersionTLS13, []string{"h2"})
}

// Client is the configuration for one connection that is made now. The caller must not change it.
func (m *Mutual) Client() *tls.Config { return m.reloader.current() }

func verifyNode(state tls.ConnectionState, authorities *x509.CertPool, files MutualFiles) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("the peer showed no certificate: set its certificate for TLS between nodes")
	}
	leaf := state.PeerCertificates[0]
	options := x509.VerifyOptions{
		Roots:         authorities,
		Intermediates: x509.NewCertPool(),
		DNSName:       files.Name,
		// A node is both a server and a client: which of the two its certificate names doesn't matter.
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}
	for _, above := range state.PeerCertificates[1:] {
		options.Intermediates.AddCert(above)
	}
	if _, err := leaf.Verify(options); err != nil {
		return fmt.Errorf("certificate %q, issued by %q, against the authorities in %s: %w", leaf.Subject, leaf.Issuer, files.CAFile, err)
	}
	return nil
}
