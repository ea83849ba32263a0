package ingress

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"connectrpc.com/connect/v2"
)

// connection is what a Server knows of the connection that a request came by. Request.RemoteAddr
// would do for the address, but middleware is fond of putting there what a header says.
type connection struct {
	remote net.Addr
	// certified: callers without a certificate of one of our authorities get no connection.
	certified bool
}

type connectionKey struct{}

// remember makes every request know its connection.
func (c ServerConfig) remember(ctx context.Context, accepted net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, connection{remote: accepted.RemoteAddr(), certified: c.ClientCertificates})
}

// refused is why the caller may not use the rpcs of Config.Others; nil if it may.
func (i *Ingress) refused(r *http.Request) *connect.Error {
	if i.config.RemoteOthers || certified(r) || local(r) {
		return nil
	}
	return connect.NewError(connect.CodePermissionDenied,
		"the admin service shows all data and ends invocations, so it answers only callers on the node's own machine, "+
			"by localhost or a loopback address and not through a proxy: call it from there; or start the node with "+
			"Config.TLS.ClientCAFile and call it with a certificate; or open it to everyone with --remote-admin (Config.RemoteAdmin)")
}

// certified holds only for our own listener: a server that a program mounts the handler in may
// take certificates of any authority.
func certified(r *http.Request) bool {
	by, ok := r.Context().Value(connectionKey{}).(connection)
	return ok && by.certified && r.TLS != nil && len(r.TLS.VerifiedChains) > 0
}

// local reports whether a program on this machine sent the request, and not on behalf of another.
func local(r *http.Request) bool {
	address := r.RemoteAddr
	if by, ok := r.Context().Value(connectionKey{}).(connection); ok {
		address = by.remote.String()
	}
	if from, err := netip.ParseAddrPort(address); err != nil || !from.Addr().Unmap().IsLoopback() {
		return false
	}
	// A proxy on this machine speaks for who knows whom. Headers can't make a caller local, only
	// the opposite.
	for _, header := range []string{"Forwarded", "X-Forwarded-For", "X-Real-Ip", "Via"} {
		if r.Header.Get(header) != "" {
			return false
		}
	}
	return hereByName(r.Host)
}

// hereByName refuses names that anybody can have point at 127.0.0.1: a page in a browser on this
// machine would then be at home here.
func hereByName(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil
}
