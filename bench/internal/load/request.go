// Package load calls an HTTP/1.1 server in a closed loop and checks what it answers. It speaks the protocol itself over
// raw sockets, because it shares the machine with the server it measures and net/http's client would take several times
// the processor time.
package load

import (
	"strconv"
	"strings"
)

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
