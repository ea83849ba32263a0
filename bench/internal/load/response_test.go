package load

import (
	"testing"
)

func TestParseWaitsForTheWholeResponse(t *testing.T) {
	cases := map[string]struct {
		wire, body string
		status     int
		close      bool
	}{
		"length":  {wire: "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCONTENT-Length: 9\r\n\r\n{\"a\":1}\r\n", body: "{\"a\":1}\r\n", status: 200},
		"chunked": {wire: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"a\r\n4;x=y\r\n\":1}\r\n0\r\n\r\n", body: `{"a":1}`, status: 200},
		"empty":   {wire: "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", status: 503, close: true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			for cut := range c.wire {
				if _, taken, err := parse([]byte(c.wire[:cut])); taken != 0 || err != nil {
					t.Fatalf("cut at %d: took %d, %v, want to wait", cut, taken, err)
				}
			}
			response, taken, err := parse([]byte(c.wire + "HTTP/1.1 200"))
			if err != nil || taken != len(c.wire) {
				t.Fatalf("took %d of %d, %v", taken, len(c.wire), err)
			}
			if response.Status != c.status || string(response.Body) != c.body || response.Close != c.close {
				t.Errorf("got %d %q close=%v", response.Status, response.Body, response.Close)
			}
		})
	}
}

func TestParseRefusesGarbage(t *testing.T) {
	for _, wire := range []string{
		"SSH-2.0-OpenSSH_9.2\r\n\r\n",
		"HTTP/1.1 abc OK\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nTrailer: 1\r\n\r\n",
	} {
		if _, _, err := parse([]byte(wire)); err == nil {
			t.Errorf("parse(%q) accepted", wire)
		}
	}
}

func TestValue(t *testing.T) {
	for body, want := range map[string]int64{`{"value":7}`: 7, `{ "value" : "12345678901" }`: 12345678901, `{}`: 0, `{"value":-3}`: -3} {
		if got, err := Value([]byte(body)); err != nil || got != want {
			t.Errorf("Value(%s) = %d, %v, want %d", body, got, err, want)
		}
	}
	for _, body := range []string{``, `no`, `{"value":true}`, `{"value":`} {
		if got, err := Value([]byte(body)); err == nil {
			t.Errorf("Value(%q) = %d, want an error", body, got)
		}
	}
}
