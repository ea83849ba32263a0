package load

import (
	"bytes"
	"fmt"
	"strconv"
)

// maxResponseBytes bounds one response, so that a server that never ends one cannot take all memory.
const maxResponseBytes = 1 << 20

// Response is one HTTP response. Body is only valid until the buffer it was parsed from changes.
type Response struct {
	Status int
	Body   []byte
	// Close says that the server will not answer another request on this connection.
	Close bool
}

var (
	headerEnd = []byte("\r\n\r\n")
	lineEnd   = []byte("\r\n")
)

// parse reads one response from the start of buffer and how many bytes it takes. It takes 0 while the response is not
// complete.
func parse(buffer []byte) (response Response, taken int, err error) {
	end := bytes.Index(buffer, headerEnd)
	if end < 0 {
		if len(buffer) > maxResponseBytes {
			return response, 0, fmt.Errorf("response header exceeds %d bytes", maxResponseBytes)
		}
		return response, 0, nil
	}
	head, rest := buffer[:end+len(lineEnd)], buffer[end+len(headerEnd):]
	line, head, _ := bytes.Cut(head, lineEnd)
	if len(line) < len("HTTP/1.1 200") || !bytes.HasPrefix(line, []byte("HTTP/1.")) {
		return response, 0, fmt.Errorf("not an HTTP/1 response: %.40q", line)
	}
	if response.Status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return response, 0, fmt.Errorf("status line %.40q: %w", line, err)
	}
	length, chunked := 0, false
	for len(head) > 0 {
		line, head, _ = bytes.Cut(head, lineEnd)
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case equalFold(name, "content-length"):
			if length, err = strconv.Atoi(string(value)); err != nil || length < 0 || length > maxResponseBytes {
				return response, 0, fmt.Errorf("content-length %.40q, want 0 to %d", value, maxResponseBytes)
			}
		case equalFold(name, "transfer-encoding"):
			chunked = equalFold(value, "chunked")
		case equalFold(name, "connection"):
			response.Close = equalFold(value, "close")
		}
	}
	if chunked {
		body, n, err := dechunk(rest)
		if err != nil || n == 0 {
			return response, 0, err
		}
		response.Body = body
		return response, end + len(headerEnd) + n, nil
	}
	if len(rest) < length {
		return response, 0, nil
	}
	response.Body = rest[:length]
	return response, end + len(headerEnd) + length, nil
}

// dechunk joins the chunks at the start of buffer. It takes 0 bytes while the last one is not there.
func dechunk(buffer []byte) (body []byte, taken int, err error) {
	for rest := buffer; ; {
		line, after, found := bytes.Cut(rest, lineEnd)
		if !found {
			return nil, 0, nil
		}
		size, _, _ := bytes.Cut(line, []byte(";"))
		n, err := strconv.ParseUint(string(bytes.TrimSpace(size)), 16, 31)
		if err != nil || len(body)+int(n) > maxResponseBytes {
			return nil, 0, fmt.Errorf("chunk size %.40q, want hexadecimal and at most %d bytes in all", line, maxResponseBytes)
		}
		if len(after) < int(n)+len(lineEnd) {
			return nil, 0, nil
		}
		if n == 0 {
			// No server measured here sends trailers on a unary call; one that does is told so instead of misread.
			if !bytes.HasPrefix(after, lineEnd) {
				return nil, 0, fmt.Errorf("chunked response with trailers, which this client does not read")
			}
			return body, len(buffer) - len(after) + len(lineEnd), nil
		}
		body = append(body, after[:n]...)
		rest = after[int(n)+len(lineEnd):]
	}
}

// equalFold is bytes.EqualFold against lower-case ASCII, without converting to a byte slice.
func equalFold(got []byte, lower string) bool {
	if len(got) != len(lower) {
		return false
	}
	for i, c := range got {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// Value is the number in the field "value" of a JSON object; see Number.
func Value(body []byte) (int64, error) { return Number(body, "value") }

// Number is the number in the named field of a JSON object without nested ones. Protobuf's JSON writes 64-bit integers as
// strings and leaves zero out; both are understood.
func Number(body []byte, field string) (int64, error) {
	_, rest, found := bytes.Cut(body, []byte(`"`+field+`"`))
	if !found {
		if body = bytes.TrimSpace(body); len(body) > 1 && body[0] == '{' && body[len(body)-1] == '}' {
			return 0, nil
		}
		return 0, fmt.Errorf("not a JSON object: %.80q", body)
	}
	rest = bytes.TrimLeft(rest, " \t\r\n:\"")
	end := 0
	for end < len(rest) && (rest[end] == '-' || '0' <= rest[end] && rest[end] <= '9') {
		end++
	}
	value, err := strconv.ParseInt(string(rest[:end]), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("field %s in %.80q is not an integer", field, body)
	}
	return value, nil
}
