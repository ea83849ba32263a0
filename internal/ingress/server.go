package ingress

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/perdure/perdure/internal/telemetry"
)

// ServerConfig says where and how a Server listens. The zero value of a field is its default.
type ServerConfig struct {
	// Address is host:port; port 0 takes a free one.
	Address string
	// TLS, if not nil, makes the server speak nothing but TLS.
	TLS *tls.Config
	// ClientCertificates says that TLS lets in only callers with a certificate of an authority
	// chosen for this server; Config.Others are then for all of them.
	ClientCertificates bool
	// MaxHeaderBytes of one request. Defaults to 64 KiB.
	MaxHeaderBytes int
	// ReadHeaderTimeout is how long a request's headers may take. Defaults to 10 s.
	ReadHeaderTimeout time.Duration
	// IdleTimeout ends a connection without calls. Defaults to 2 min.
	IdleTimeout time.Duration
	// MaxStreams is how many calls one HTTP/2 connection may have under way. Defaults to 1,000.
	MaxStreams int
	Logger     *slog.Logger
}

// Server is one listening port. Listen, then Shutdown.
type Server struct {
	config ServerConfig
	http   *http.Server
	mu     struct {
		sync.Mutex
		listener net.Listener
		failed   error
	}
	served chan struct{} // closed when the goroutine that accepts connections has ended
}

// NewServer makes a server for handler; it does not listen yet.
func NewServer(handler http.Handler, config ServerConfig) *Server {
	if config.MaxHeaderBytes == 0 {
		config.MaxHeaderBytes = 64 << 10
	}
	if config.ReadHeaderTimeout == 0 {
		config.ReadHeaderTimeout = 10 * time.Second
	}
	if config.IdleTimeout == 0 {
		config.IdleTimeout = 2 * time.Minute
	}
	if config.MaxStreams == 0 {
		config.MaxStreams = 1000
	}
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(config.TLS == nil)
	return &Server{
		config: config,
		served: make(chan struct{}),
		http: &http.Server{
			Handler:           handler,
			Protocols:         protocols,
			TLSConfig:         config.TLS,
			ConnContext:       config.remember,
			MaxHeaderBytes:    config.MaxHeaderBytes,
			ReadHeaderTimeout: config.ReadHeaderTimeout,
			IdleTimeout:       config.IdleTimeout,
			HTTP2: &http.HTTP2Config{
				MaxConcurrentStreams: config.MaxStreams,
				// A peer that vanished without a word would keep its calls waiting for ever.
				SendPingTimeout:  30 * time.Second,
				PingTimeout:      15 * time.Second,
				WriteByteTimeout: 30 * time.Second,
			},
			// What net/http logs are mistakes of callers: bad handshakes, broken requests.
			ErrorLog: slog.NewLogLogger(config.Logger.Handler(), slog.LevelDebug),
		},
	}
}

// Listen takes the port and serves it until Shutdown, on a goroutine of its own.
func (s *Server) Listen(ctx context.Context) error {
	var listening net.ListenConfig
	listener, err := listening.Listen(ctx, "tcp", s.config.Address)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", s.config.Address, err)
	}
	s.mu.Lock()
	s.mu.listener = listener
	s.mu.Unlock()
	go func() {
		defer close(s.served)
		var err error
		if s.config.TLS != nil {
			err = s.http.ServeTLS(listener, "", "")
		} else {
			err = s.http.Serve(listener)
		}
		if !errors.Is(err, http.ErrServerClosed) {
			s.config.Logger.Error("the listener failed", telemetry.KeyAddress, s.config.Address, telemetry.KeyError, err)
			s.mu.Lock()
			s.mu.failed = err
			s.mu.Unlock()
		}
	}()
	return nil
}

// Addr is where the server listens; nil before Listen.
func (s *Server) Addr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.listener == nil {
		return nil
	}
	return s.mu.listener.Addr()
}

// Failed is closed when the server accepts no more connections, be it because of Shutdown.
func (s *Server) Failed() <-chan struct{} { return s.served }

// Err is why the server stopped, nil after Shutdown.
func (s *Server) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.failed
}

// Shutdown stops accepting, waits for the calls under way as long as ctx allows, then cuts the
// rest off.
func (s *Server) Shutdown(ctx context.Context) error {
	if s.Addr() == nil {
		return nil
	}
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	<-s.served
	return err
}
