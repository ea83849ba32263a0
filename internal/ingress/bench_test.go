package ingress_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	bankv1 "github.com/perdure/perdure/examples/bank/gen/bank/v1"
	"github.com/perdure/perdure/internal/ingress"
	recordv1 "github.com/perdure/perdure/internal/record/v1"
	"github.com/perdure/perdure/internal/routing/routingtest"
)

func instant() *routingtest.Fake {
	value, err := proto.Marshal(&bankv1.DepositResponse{Balance: 105})
	if err != nil {
		panic(err)
	}
	result := &recordv1.Result{Value: value}
	return &routingtest.Fake{Forget: true, Handle: func(*recordv1.Invoke) *recordv1.Result { return result }}
}

const jsonBody = `{"accountId":"account-0001","amount":"5"}`

// BenchmarkLoopback measures whole calls over TCP, generator included: 64 connections, each
// with a fixed request and a parser that knows nothing but Content-Length.
func BenchmarkLoopback(b *testing.B) {
	binaryBody, err := proto.Marshal(&bankv1.DepositRequest{AccountId: "account-0001", Amount: 5})
	if err != nil {
		b.Fatal(err)
	}
	for _, wire := range []struct {
		name, contentType, body string
	}{
		{"json", "application/json", jsonBody},
		{"proto", "application/proto", string(binaryBody)},
	} {
		b.Run(wire.name, func(b *testing.B) {
			f := start(b, func(c *ingress.Config) { c.Router = instant() })
			address := strings.TrimPrefix(f.url, "http://")
			request := []byte(fmt.Sprintf("POST /bank.v1.AccountService/Deposit HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s",
				address, wire.contentType, len(wire.body), wire.body))
			b.ReportAllocs()
			before := cpu()
			var started atomic.Int64
			b.SetParallelism(64 / runtime.GOMAXPROCS(0))
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				started.Add(1)
				var dialer net.Dialer
				conn, err := dialer.DialContext(b.Context(), "tcp", address)
				if err != nil {
					b.Error(err)
					return
				}
				defer conn.Close()
				reader := bufio.NewReader(conn)
				for pb.Next() {
					if _, err := conn.Write(request); err != nil {
						b.Error(err)
						return
					}
					if err := skipResponse(reader); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
			b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "cpu-µs/call")
			b.ReportMetric(float64(started.Load()), "conns")
		})
	}
}

func skipResponse(reader *bufio.Reader) error {
	line, err := reader.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(line, []byte("HTTP/1.1 200")) {
		return fmt.Errorf("answer: %s", line)
	}
	size := 0
	for {
		line, err := reader.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) <= 2 {
			break
		}
		if name, value, ok := bytes.Cut(line, []byte(": ")); ok && string(name) == "Content-Length" {
			if size, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return err
			}
		}
	}
	_, err = reader.Discard(size)
	return err
}

func cpu() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkHandler measures a call without net/http's own share.
func BenchmarkHandler(b *testing.B) {
	handler, err := ingress.New(ingress.Config{Router: instant(), Services: services(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	header := http.Header{"Content-Type": {"application/json"}, "Host": {"localhost"}, "User-Agent": {"bench"}}
	template, err := http.NewRequestWithContext(b.Context(), http.MethodPost, "/bank.v1.AccountService/Deposit", nil)
	if err != nil {
		b.Fatal(err)
	}
	template.Header = header
	b.ReportAllocs()
	for b.Loop() {
		request := *template
		request.Body = io.NopCloser(strings.NewReader(jsonBody))
		w := &discard{header: http.Header{}}
		handler.ServeHTTP(w, &request)
		if w.status != 0 && w.status != 200 {
			b.Fatal(w.status)
		}
	}
}

type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header            { return d.header }
func (d *discard) Write(data []byte) (int, error) { return len(data), nil }
func (d *discard) WriteHeader(status int)         { d.status = status }

// BenchmarkEncode is what it costs to encode a request anew instead of keeping its bytes.
func BenchmarkEncode(b *testing.B) {
	request := &bankv1.DepositRequest{AccountId: "account-0001", Amount: 5}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := (proto.MarshalOptions{Deterministic: true}).Marshal(request); err != nil {
			b.Fatal(err)
		}
	}
}
