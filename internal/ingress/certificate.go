package ingress

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

// TLSFiles names the files of a TLS server, in PEM form.
type TLSFiles struct {
	// CertFile holds the certificate and its chain, KeyFile its private key.
	CertFile, KeyFile string
	// ClientCAFile, if set, makes callers show a certificate signed by one of its authorities.
	ClientCAFile string
	// MinVersion is tls.VersionTLS12 or tls.VersionTLS13. Defaults to 1.2.
	MinVersion uint16
}

// Validate reports all that is wrong with the settings, without reading the files.
func (f TLSFiles) Validate() error {
	var problems []error
	if f.CertFile == "" || f.KeyFile == "" {
		problems = append(problems, fmt.Errorf("tls: certificate file %q and key file %q must both be set", f.CertFile, f.KeyFile))
	}
	if f.MinVersion != 0 && f.MinVersion != tls.VersionTLS12 && f.MinVersion != tls.VersionTLS13 {
		problems = append(problems, fmt.Errorf("tls: minimum version is %s; it must be TLS 1.2 or TLS 1.3", tls.VersionName(f.MinVersion)))
	}
	return errors.Join(problems...)
}

// NewTLSConfig reads files, and reads them again when they change: certificates are renewed
// without a restart. It looks when a caller connects, at most once in a second, rather than
// have the file system tell: Kubernetes swaps a symlink some levels up, which watchers miss.
func NewTLSConfig(files TLSFiles, log *slog.Logger) (*tls.Config, error) {
	if err := files.Validate(); err != nil {
		return nil, err
	}
	if files.MinVersion == 0 {
		files.MinVersion = tls.VersionTLS12
	}
	r := &reloader{files: files, log: log, every: time.Second}
	loaded, err := r.load()
	if err != nil {
		return nil, err
	}
	r.mu.config, r.mu.stamp, r.mu.looked = loaded, r.stamp(), time.Now()
	return &tls.Config{
		MinVersion:         files.MinVersion,
		NextProtos:         []string{"h2", "http/1.1"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return r.current(), nil },
		// Not used once GetConfigForClient answers, but net/http insists on a certificate.
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return &r.current().Certificates[0], nil
		},
	}, nil
}

type reloader struct {
	files TLSFiles
	log   *slog.Logger
	every time.Duration
	mu    struct {
		sync.Mutex
		config *tls.Config
		stamp  string
		looked time.Time
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
		r.log.Error("the new certificate cannot be used; the old one stays", telemetry.KeyPath, r.files.CertFile, telemetry.KeyError, err)
		return r.mu.config
	}
	r.log.Info("certificate reloaded", telemetry.KeyPath, r.files.CertFile)
	r.mu.config, r.mu.stamp = loaded, stamp
	return loaded
}

// stamp changes when one of the files does.
func (r *reloader) stamp() string {
	var stamp string
	for _, path := range []string{r.files.CertFile, r.files.KeyFile, r.files.ClientCAFile} {
		if info, err := os.Stat(path); err == nil {
			stamp += fmt.Sprintf("%d/%d ", info.ModTime().UnixNano(), info.Size())
		}
	}
	return stamp
}

func (r *reloader) load() (*tls.Config, error) {
	certificate, err := tls.LoadX509KeyPair(r.files.CertFile, r.files.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("tls: certificate %s with key %s: %w", r.files.CertFile, r.files.KeyFile, err)
	}
	config := &tls.Config{
		MinVersion:   r.files.MinVersion,
		Certificates: []tls.Certificate{certificate},
		NextProtos:   []string{"h2", "http/1.1"},
	}
	if r.files.ClientCAFile != "" {
		pem, err := os.ReadFile(r.files.ClientCAFile)
		if err != nil {
			return nil, fmt.Errorf("tls: client authorities: %w", err)
		}
		config.ClientCAs = x509.NewCertPool()
		if !config.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls: client authorities: %s holds no certificate in PEM form", r.files.ClientCAFile)
		}
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return config, nil
}
