package ingress

import (
	"io"
	"net/http"
	"time"
)

// timedBody bounds the time a body may take to arrive, so that callers who send one byte a
// minute cannot hold all places for calls. http.Server.ReadTimeout would do that too, but its
// deadline stays in force while the handler works and so would end every call that waits.
type timedBody struct {
	io.ReadCloser
	control http.ResponseController
	armed   bool
}

func limitBody(w http.ResponseWriter, body io.ReadCloser, timeout time.Duration) io.ReadCloser {
	b := &timedBody{ReadCloser: body, control: *http.NewResponseController(w)}
	// A ResponseWriter without deadlines belongs to a program that mounts the handler in a
	// server of its own; bounding the body is then that server's business.
	b.armed = b.control.SetReadDeadline(time.Now().Add(timeout)) == nil
	return b
}

// Read lifts the deadline once the body has ended: net/http goes on reading, to notice when
// the caller goes away.
func (b *timedBody) Read(into []byte) (int, error) {
	n, err := b.ReadCloser.Read(into)
	if err == io.EOF && b.armed {
		b.armed = false
		_ = b.control.SetReadDeadline(time.Time{}) // it worked once; if not, the call ends early
	}
	return n, err
}
