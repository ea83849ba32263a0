// Package certificate makes TLS configurations of files that are read again when they change, so
// that certificates and authorities are renewed without a restart.
//
// It looks when a connection is made, at most once in a second, rather than have the file system
// tell: Kubernetes swaps a symlink some levels up, which watchers miss. Files that can't be used
// leave the old certificate in place, and are looked at again.
package certificate

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/perdure/perdure/internal/telemetry"
)

// Files names the files of a TLS server, in PEM form.
type Files struct {
	// CertFile holds the certificate and its chain, KeyFile its private key.
	CertFile, KeyFile string
	// ClientCAFile, if set, makes callers show a certificate signed by one of its authorities.
	ClientCAFile string
	// MinVersion is tls.VersionTLS12 or tls.VersionTLS13. Defaults to 1.2.
	MinVersion uint16
}

// Validate reports all that is wrong with the settings, without reading the files.
func (f Files) Validate() error {
	var problems []error
	if f.CertFile == "" || f.KeyFile == "" {
		problems = append(problems, fmt.Errorf("tls: certificate file %q and key file %q must both be set", f.CertFile, f.KeyFile))
	}
	if f.MinVersion != 0 && f.MinVersion != tls.VersionTLS12 && f.MinVersion != tls.VersionTLS13 {
		problems = append(problems, fmt.Errorf("tls: minimum version is %s; it must be TLS 1.2 or TLS 1.3", tls.VersionName(f.MinVersion)))
	}
	return errors.Join(problems...)
}

// NewServer reads files and makes a configuration for a server that speaks HTTP.
func NewServer(files Files, log *slog.Logger) (*tls.Config, error) {
	if err := files.Validate(); err != nil {
		return nil, err
	}
	if files.MinVersion == 0 {
		files.MinVersion = tls.VersionTLS12
	}
	r, err := newReloader([]string{files.CertFile, files.KeyFile, files.ClientCAFile}, log, func() (*tls.Config, error) {
		certificate, err := loadPair(files.CertFile, files.KeyFile)
		if err != nil {
			return nil, err
		}
		config := &tls.Config{
			MinVersion:   files.MinVersion,
			Certificates: []tls.Certificate{certificate},
			NextProtos:   []string{"h2", "http/1.1"},
		}
		if files.ClientCAFile != "" {
			if config.ClientCAs, err = loadAuthorities("client authorities", files.ClientCAFile); err != nil {
				return nil, err
			}
			config.ClientAuth = tls.RequireAndVerifyClientCert
		}
		return config, nil
	})
	if err != nil {
		return nil, err
	}
	return r.server(files.MinVersion, []string{"h2", "http/1.1"}), nil
}

// reloader keeps what was made of files, as long as they are the same.
type reloader struct {
	paths []string
	log   *slog.Logger
	every time.Duration
	load  func() (*tls.Config, error)
	mu    struct {
		sync.Mutex
		config *tls.Config
		stamp  string
		looked time.Time
	}
}

func newReloader(paths []string, log *slog.Logger, load func() (*tls.Config, error)) (*reloader, error) {
	r := &reloader{paths: paths, log: log, every: time.Second, load: load}
	// The stamp is taken first: what changes while it is read is then read again.
	r.mu.stamp, r.mu.looked = r.stamp(), time.Now()
	loaded, err := load()
	if err != nil {
		return nil, err
	}
	r.mu.config = loaded
	return r, nil
}

// server is a configuration that asks the reloader at every connection.
func (r *reloader) server(minVersion uint16, protocols []string) *tls.Config {
	return &tls.Config{
		MinVersion:         minVersion,
		NextProtos:         protocols,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return r.current(), nil },
		// Not used once GetConfigForClient answers, but net/http insists on a certificate.
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return &r.current().Certificates[0], nil
		},
	}
}

func (r *reloader) current() *tls.Config {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.mu.looked) < r.every {
		return r.mu.config
	}
	r.mu.looked = time.Now()
	stamp := r.stamp()
	if stamp == r.mu.stamp {
		return r.mu.config
	}
	loaded, err := r.load()
	if err != nil {
		// Half-written files are the common case: the old certificate still works, and the
		// next look tries again, since the stamp is not taken over.
		r.log.Error("the new certificate cannot be used; the old one stays", telemetry.KeyPath, r.paths[0], telemetry.KeyError, err)
		return r.mu.config
	}
	r.log.Info("certificate reloaded", telemetry.KeyPath, r.paths[0])
	r.mu.config, r.mu.stamp = loaded, stamp
	return loaded
}

// stamp changes when one of the files does.
func (r *reloader) stamp() string {
	var stamp string
	for _, path := range r.paths {
		if info, err := os.Stat(path); err == nil {
			stamp += fmt.Sprintf("%d/%d ", info.ModTime().UnixNano(), info.Size())
		}
	}
	return stamp
}

func loadPair(certFile, keyFile string) (tls.Certificate, error) {
	certificate, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("tls: certificate %s with key %s: %w", certFile, keyFile, err)
	}
	return certificate, nil
}

func loadAuthorities(what, path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("tls: %s: %w", what, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("tls: %s: %s holds no certificate in PEM form", what, path)
	}
	return pool, nil
}
