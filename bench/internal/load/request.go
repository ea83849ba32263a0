// Package load calls an HTTP/1.1 server in a closed loop and checks what it answers. It speaks the protocol itself over
// raw sockets, because it shares the machine with the server it measures and net/http's client would take several times
// the processor time.
package load

import (
	"bytes"
	"strconv"
	"strings"
)

// Call is what one caller asks for at once: complete HTTP requests, sent one after the other, each when the one before
// was answered. Most calls are one request.
type Call [][]byte

// Single makes each request a call of its own.
func Single(requests ...[]byte) []Call {
	calls := make([]Call, len(requests))
	for i, request := range requests {
		calls[i] = Call{request}
	}
	return calls
}

// KeyHeader is the header with a caller's idempotency key. AnyKey as its value stands for another key each time a
// Generator sends the request.
const (
	KeyHeader = "Idempotency-Key"
	AnyKey    = "any-key-------------"
)

var keyLine = []byte("\r\n" + KeyHeader + ": ")

// keyAt finds where the idempotency key of a request begins.
func keyAt(request []byte) (at int, found bool) {
	line := bytes.Index(request, keyLine)
	return line + len(keyLine), line >= 0
}

// Post is a complete HTTP/1.1 POST request with a JSON body for a keep-alive connection. headers are name, value pairs.
func Post(host, path, body string, headers ...string) []byte {
	var b strings.Builder
	b.WriteString("POST " + path + " HTTP/1.1\r\nHost: " + host + "\r\nContent-Type: application/json\r\nContent-Length: ")
	b.WriteString(strconv.Itoa(len(body)))
	b.WriteString("\r\n")
	for i := 0; i+1 < len(headers); i += 2 {
		b.WriteString(headers[i] + ": " + headers[i+1] + "\r\n")
	}
	b.WriteString("\r\n")
	b.WriteString(body)
	return []byte(b.String())
}
