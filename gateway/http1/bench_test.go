// SPDX-License-Identifier: Apache-2.0

package http1_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"kontor/gateway/http1"
)

// lean answers every request with 1 KB, at little cost.
func lean(tb testing.TB) *site {
	answer := []byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: Sun, 22 Nov 2026 00:00:00 GMT\r\nContent-Length: 1024\r\n\r\n" + strings.Repeat("x", 1024))
	return raw(tb, func(c *net.TCPConn, br *bufio.Reader) {
		length := 0
		for {
			line, err := br.ReadSlice('\n')
			if err != nil {
				return
			}
			if after, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
				if length, err = strconv.Atoi(string(bytes.TrimSpace(after))); err != nil {
					return
				}
			}
			if len(line) > 2 {
				continue
			}
			if _, err := br.Discard(length); err != nil {
				return
			}
			length = 0
			if _, err := c.Write(answer); err != nil {
				return
			}
		}
	})
}

var usual = [][2]string{
	{"Accept", "application/json"}, {"Content-Type", "application/json"}, {"X-Road-Client", "SANDBOX/GOV/1001/portal"},
	{"x-road-request-id", "11111111-2222-3333-4444-555555555555"}, {"x-road-id", "SANDBOX-11111111-2222-3333-4444-555555555555"},
}

func usualFields(yield func(name, value string) bool) {
	for _, f := range usual {
		if !yield(f[0], f[1]) {
			return
		}
	}
}

// exchange returns one small exchange, with a body of that size if there is any.
func exchange(tb testing.TB, size int) (func() error, *site) {
	s, c, content := lean(tb), client(tb), make([]byte, size)
	return func() error {
		r := &http1.Request{Method: "GET", Target: "/persons", Fields: usualFields}
		if size > 0 {
			r.Method, r.Body, r.Length = "POST", bytes.NewReader(content), int64(size)
		}
		resp, err := c.Do(tb.Context(), s.URL, r)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}, s
}

// BenchmarkExchange compares with net/http's Transport, with the processor time
// of both ends.
func BenchmarkExchange(b *testing.B) {
	for _, size := range []int{0, 8 << 10} {
		ours, s := exchange(b, size)
		tr := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 256, WriteBufferSize: 8 << 10, ReadBufferSize: 8 << 10}
		b.Cleanup(tr.CloseIdleConnections)
		content := make([]byte, size)
		theirs := func() error {
			r := &http.Request{Method: "GET", URL: s.URL, Host: s.Host, Header: http.Header{"User-Agent": nil}}
			r.URL.Path = "/persons"
			for _, f := range usual {
				r.Header[f[0]] = append(r.Header[f[0]], f[1])
			}
			if size > 0 {
				r.Method, r.Body, r.ContentLength = "POST", io.NopCloser(bytes.NewReader(content)), int64(size)
			}
			resp, err := tr.RoundTrip(r.WithContext(b.Context()))
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			_, err = io.Copy(io.Discard, resp.Body)
			return err
		}
		for _, who := range []struct {
			name string
			do   func() error
		}{{"http1", ours}, {"net-http", theirs}} {
			for _, clients := range []int{1, 64} {
				b.Run(fmt.Sprintf("%s/%d/%d", who.name, size, clients), func(b *testing.B) {
					b.ReportAllocs()
					b.SetParallelism((clients + 1) / 2)
					begun := processorTime()
					if clients == 1 {
						for range b.N {
							if err := who.do(); err != nil {
								b.Fatal(err)
							}
						}
					} else {
						b.RunParallel(func(pb *testing.PB) {
							for pb.Next() {
								if err := who.do(); err != nil {
									b.Error(err)
									return
								}
							}
						})
					}
					b.ReportMetric(float64((processorTime()-begun).Microseconds())/float64(b.N), "cpu-µs/op")
				})
			}
		}
	}
}

// processorTime returns what this process has used.
func processorTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
