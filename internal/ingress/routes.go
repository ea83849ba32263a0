package ingress

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"connectrpc.com/connect/v2"
)

// routes maps a path to its handler, exactly. http.ServeMux matches patterns we do not have,
// at 0.5 µs and three allocations per call, and its fallback cannot say what exists.
type routes map[string]route

type route struct {
	handler http.Handler
	// unary: the body is one message, so it must arrive in bounded time.
	unary bool
	// get: it may also be called with GET.
	get bool
	// restricted: it is not for everyone, see Ingress.refused.
	restricted bool
}

// Handle implements connecthttp.ServeMux. The subtree patterns that Mount adds for unknown
// methods are never looked up: serveUnknown answers those, with the names of what exists.
func (r routes) Handle(pattern string, handler http.Handler) { r[pattern] = route{handler: handler} }

// understood answers a request to a unary rpc that connect would refuse without a word: a POST
// that does not say what it sends is what curl -d does, and a GET what a browser does.
func understood(w http.ResponseWriter, r *http.Request, to route) bool {
	status, code, message := 0, connect.CodeInvalidArgument, ""
	switch {
	case r.Method == http.MethodPost:
		sent := r.Header.Get("Content-Type")
		if hasPrefixFold(sent, "application/json") || hasPrefixFold(sent, "application/proto") || hasPrefixFold(sent, "application/grpc") {
			return true
		}
		w.Header().Set("Accept-Post", "application/json, application/proto, application/grpc, application/grpc-web")
		status = http.StatusUnsupportedMediaType
		message = fmt.Sprintf("the Content-Type is %q; say application/json (curl: -H 'Content-Type: application/json'), application/proto, or that of gRPC or gRPC-Web", clip(sent))
	case r.Method == http.MethodGet && to.get:
		if query := r.URL.Query(); query.Has("encoding") && query.Has("message") {
			return true
		}
		status, message = http.StatusBadRequest, "a GET needs the request in the URL: ?connect=v1&encoding=json&message={…}, percent-encoded; or use POST"
	case r.Method == http.MethodOptions:
		return true // connect says which methods there are
	default:
		w.Header().Set("Allow", http.MethodPost)
		if to.get {
			w.Header().Set("Allow", "GET, POST")
		}
		status, code = http.StatusMethodNotAllowed, connect.CodeUnimplemented
		message = fmt.Sprintf("%s cannot be called with %s: use POST (GET is for READ handlers whose idempotency_level is NO_SIDE_EFFECTS)", clip(r.URL.Path), r.Method)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// What Connect's clients expect of an error; a string needs no more care than this.
	body, err := json.Marshal(map[string]string{"code": code.String(), "message": message})
	if err == nil {
		_, _ = w.Write(body)
	}
	return false
}

func hasPrefixFold(text, prefix string) bool {
	return len(text) >= len(prefix) && strings.EqualFold(text[:len(prefix)], prefix)
}

func serviceNames(server *connect.Server) []string {
	names := map[string]bool{}
	for spec := range server.Specs() {
		name, _, _ := strings.Cut(strings.TrimPrefix(spec.Procedure, "/"), "/")
		names[name] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// serveUnknown answers what no route is for: an rpc with an error in its own protocol, and
// anything else with plain text.
func (i *Ingress) serveUnknown(w http.ResponseWriter, r *http.Request) {
	err := i.unknown(r.URL.Path)
	if !i.errors.IsSupported(r) || strings.Count(r.URL.Path, "/") != 2 {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprintf(w, "%s\n", err.Message())
		return
	}
	_ = i.errors.Write(w, r, err) // the caller is gone: there is nobody to tell
}

// unknown is unimplemented for a service as for a method, as in gRPC: clients that try one
// version of a service after another (reflection does) rely on it.
func (i *Ingress) unknown(path string) *connect.Error {
	known := i.table.Load()
	name, handler, isProcedure := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if !isProcedure || name == "" || strings.Contains(handler, "/") {
		return connect.Errorf(connect.CodeUnimplemented,
			"there is nothing at %s: calls go to /package.Service/Method; registered: %s", clip(path), list(known.names))
	}
	if s := known.services[name]; s != nil {
		handlers := slices.Sorted(maps.Keys(s.methods))
		return connect.Errorf(connect.CodeUnimplemented, "service %s has no handler %q%s; it has: %s",
			name, clip(handler), suggest(handler, handlers), list(handlers))
	}
	if known.has(name) {
		return connect.Errorf(connect.CodeUnimplemented, "service %s has no method %q", name, clip(handler))
	}
	if i.config.Unknown != nil && !strings.HasPrefix(name, "grpc.") && !strings.HasPrefix(name, "perdure.") { // those no node has alone
		if err := i.config.Unknown(); err != nil {
			return connect.Errorf(connect.CodeUnavailable, "service %s is not registered on this node, and %v: try again", clip(name), err)
		}
	}
	return connect.Errorf(connect.CodeUnimplemented, "service %s is not registered%s; registered: %s",
		clip(name), suggest(name, known.names), list(known.names))
}

// list bounds what an error says of what exists.
func list(names []string) string {
	const most = 20
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

func clip(text string) string {
	const most = 120
	if len(text) > most {
		text = text[:most] + "…"
	}
	return strings.ToValidUTF8(text, "�")
}

// suggest names the candidate that differs from name in a typing mistake or two.
func suggest(name string, candidates []string) string {
	if len(name) > 200 {
		return ""
	}
	best, distance := "", 3
	for _, candidate := range candidates {
		if d := editDistance(strings.ToLower(name), strings.ToLower(candidate)); d < distance {
			best, distance = candidate, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %s?)", best)
}

func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost = 1 + min(diagonal, row[j], row[j-1])
			}
			diagonal, row[j] = row[j], cost
		}
	}
	return row[len(b)]
}
