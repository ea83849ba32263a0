package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// tlsFlags are for nodes whose certificate is not from a public authority, or that ask for one.
type tlsFlags struct {
	ca, cert, key string
}

// flags calls the key's file --cert-key, for --key is an object's key.
func (f *tlsFlags) flags(root *cobra.Command) {
	flags := root.PersistentFlags()
	flags.StringVar(&f.ca, "ca", "", "PEM `file` of the authorities whose certificates nodes have, instead of the system's")
	flags.StringVar(&f.cert, "cert", "", "PEM `file` of this client's certificate, for nodes that ask for one; needs --cert-key")
	flags.StringVar(&f.key, "cert-key", "", "PEM `file` of the private key of --cert")
	for _, name := range []string{"ca", "cert", "cert-key"} {
		must(root.MarkPersistentFlagFilename(name, "pem", "crt", "key"))
	}
}

func (f *tlsFlags) check(scheme string) error {
	switch {
	case (f.cert == "") != (f.key == ""):
		return usagef("--cert and --cert-key need each other")
	case scheme != "https" && (f.ca != "" || f.cert != ""):
		return usagef("--ca and --cert are for nodes with TLS: --addr must start with https://")
	}
	return nil
}

// config is nil where the defaults will do.
func (f *tlsFlags) config() (*tls.Config, error) {
	if f.ca == "" && f.cert == "" {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.ca != "" {
		text, err := os.ReadFile(f.ca)
		if err != nil {
			return nil, fmt.Errorf("--ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("--ca: %s holds no certificate in PEM form", f.ca)
		}
	}
	if f.cert != "" {
		own, err := tls.LoadX509KeyPair(f.cert, f.key)
		if err != nil {
			return nil, fmt.Errorf("--cert %s and --cert-key %s: %w", f.cert, f.key, err)
		}
		config.Certificates = []tls.Certificate{own}
	}
	return config, nil
}

// untrusted says what to do about a handshake that failed, "" if that is not what err is.
func untrusted(err error) string {
	var record tls.RecordHeaderError
	var verify *tls.CertificateVerificationError
	var remote *net.OpError
	switch {
	case errors.As(err, &record):
		return "what answers there has no TLS: give --addr http://…"
	case errors.As(err, &verify):
		return fmt.Sprintf("its certificate is not trusted (%v): give its authority with --ca", verify.Err)
	case errors.As(err, &remote) && remote.Op == "remote error":
		return fmt.Sprintf("the node refused this client (%v): give a certificate that it accepts with --cert and --cert-key", remote.Err)
	}
	return ""
}

// header is what --header gives.
func (c *cli) header() (http.Header, error) {
	header := http.Header{}
	for _, line := range c.headers {
		name, value, ok := strings.Cut(line, ":")
		value = strings.Trim(value, " \t")
		switch {
		case !ok || !isToken(name):
			return nil, usagef("--header %q is not 'Name: value', such as 'Authorization: Bearer …'", clip(printable(line), 60))
		case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
			return nil, usagef("the value of --header %s has a control character", name)
		case reserved[http.CanonicalHeaderKey(name)]:
			return nil, usagef("--header %s is set by this command itself", name)
		}
		header.Add(name, value)
	}
	return header, nil
}

// reserved are the headers that make a request what it is.
var reserved = map[string]bool{
	"Content-Type": true, "Content-Length": true, "Content-Encoding": true, "Transfer-Encoding": true, "Accept-Encoding": true,
	"Connection": true, "Host": true, "Connect-Protocol-Version": true, "Connect-Timeout-Ms": true,
}

func isToken(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune("\"(),/:;<=>?@[\\]{}", r)
	})
}
