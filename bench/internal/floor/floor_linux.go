// Package floor measures what no durable HTTP server on this machine can beat: synced appends to its disk and empty
// HTTP calls over its loopback device.
package floor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/perdure/perdure/bench/internal/histogram"
)

// appendBytes is the size of one append: about what a small transaction writes.
const appendBytes = 256

// Append appends 256 bytes to a new file in dir and waits for fdatasync, again and again for about the given time.
// The file grows, so each sync also commits its new length, as it does for any log that is not preallocated.
func Append(ctx context.Context, dir string, lasting time.Duration) (perSecond float64, latency *histogram.Histogram, err error) {
	file, err := os.CreateTemp(dir, "append-*")
	if err != nil {
		return 0, nil, fmt.Errorf("floor: %w", err)
	}
	defer func() {
		err = errors.Join(err, file.Close(), os.Remove(filepath.Clean(file.Name())))
	}()
	record := make([]byte, appendBytes)
	for i := range record {
		record[i] = byte(i)
	}
	latency = new(histogram.Histogram)
	start := time.Now()
	for now := start; now.Sub(start) < lasting && ctx.Err() == nil; {
		if _, err := file.Write(record); err != nil {
			return 0, nil, fmt.Errorf("floor: append: %w", err)
		}
		if err := fdatasync(file); err != nil {
			return 0, nil, fmt.Errorf("floor: fdatasync: %w", err)
		}
		end := time.Now()
		latency.Record(end.Sub(now))
		now = end
	}
	return float64(latency.Count()) / time.Since(start).Seconds(), latency, nil
}

func fdatasync(file *os.File) error {
	for {
		if err := syscall.Fdatasync(int(file.Fd())); err != syscall.EINTR {
			return err
		}
	}
}

// Serve answers every HTTP/1.1 request on addr with an empty JSON object until ctx ends.
func Serve(ctx context.Context, addr string) error {
	server := &http.Server{Addr: addr, ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(
		func(w http.ResponseWriter, r *http.Request) {
			// As a real server must: net/http closes a connection whose body was left unread.
			io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, "{}")
		})}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
