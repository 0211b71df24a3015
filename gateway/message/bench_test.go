// SPDX-License-Identifier: Apache-2.0

package message_test

import (
	"bytes"
	"io"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"

	"kontor/gateway/message"
)

// budget fails when f allocates more often than it may.
func budget(t *testing.T, name string, most float64, f func()) {
	t.Helper()
	f() // fill the pools
	if n := testing.AllocsPerRun(200, f); n > most {
		t.Errorf("%s: %v allocations, at most %v are allowed", name, n, most)
	}
}

// Each exchange does all of this four times over; what is allocated here is
// what the collector has to find.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	raw := []byte(exampleHead)
	head, err := message.ParseRequestHead(raw)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 0, 1024)
	budget(t, "parse a head", 3, func() { _, _ = message.ParseRequestHead(raw) })
	budget(t, "serialise a head", 0, func() { buf = head.Append(buf[:0]) })
	budget(t, "request hash", 1, func() { message.RequestHash(raw, nil) })
	s := spool(t)
	budget(t, "body in memory", 1, func() {
		b := s.New()
		_, _ = b.Write(raw)
		b.Digest()
		b.Close()
	})
	signature := make([]byte, 7000)
	budget(t, "encode a message", 2, func() {
		e := message.NewEncoder(io.Discard)
		e.OCSP(raw)
		e.Head(message.RESTRequest, raw)
		_, _ = e.BodyWriter().Write(raw)
		e.Signature(signature)
		e.Close()
	})
	soap := []byte(soapExample)
	budget(t, "read an envelope", 2, func() { _, _ = message.ReadEnvelope(soap) })
	envelope := readEnvelope(t, soapExample)
	budget(t, "write a request hash", 1, func() { envelope.WithRequestHash(exampleHash) })
	doc := []byte(exampleMessage)
	r := bytes.NewReader(doc)
	budget(t, "decode a message", 13, func() {
		r.Reset(doc)
		d, _ := message.NewDecoder(r, exampleType, message.RESTRequest, message.Limits{})
		for {
			p, err := d.Next()
			if err != nil {
				break
			}
			_, _ = p.ReadAll()
		}
	})
}

func BenchmarkParseRequestHead(b *testing.B) {
	raw := []byte(exampleHead)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := message.ParseRequestHead(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadRequest(b *testing.B) {
	raw := []byte(exampleHead)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := message.ReadRequest(raw, exampleRequestID); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFromHTTP(b *testing.B) {
	r := clientRequest("POST", "/r1/DEV/COM/1234/TestService/mock1/v1/pets?limit=2", http.Header{
		"X-Road-Client": {"DEV/COM/4422/TestClient"}, "Content-Type": {"application/json"}, "Accept": {"*/*"},
		"User-Agent": {"curl"}, "Content-Length": {"14"}})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := message.FromHTTP(r, "DEV", func() string { return exampleRequestID }); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNewResponse(b *testing.B) {
	req := exampleRequest(b)
	h := http.Header{"Content-Type": {"application/json"}, "Content-Length": {"5"}, "Date": {"x"}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := message.NewResponse(req, exampleHash, 200, "OK", h); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncode10KB(b *testing.B) {
	part := make([]byte, 5<<10)
	b.ReportAllocs()
	for b.Loop() {
		e := message.NewEncoder(io.Discard)
		e.Head(message.RESTRequest, []byte(exampleHead))
		_, _ = e.BodyWriter().Write(part)
		e.Signature(part)
		if err := e.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode10KB(b *testing.B) {
	doc := encode(b, exampleBoundary, message.RESTRequest, 0, []byte(exampleHead), make([]byte, 5<<10), nil, make([]byte, 5<<10), false)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decode(bytes.NewReader(doc), exampleType, message.RESTRequest, message.Limits{}, message.Part.ReadAll); err != nil {
			b.Fatal(err)
		}
	}
}

// largeBodies differ in how often the first byte of a boundary occurs.
var largeBodies = map[string][]byte{
	"zeros": make([]byte, 16<<20),
	"lines": bytes.Repeat([]byte("a line of text that is not long\r\n"), 16<<20/33),
	"worst": bytes.Repeat([]byte("\n"), 16<<20),
}

func BenchmarkDecodeLargeBody(b *testing.B) {
	for name, body := range largeBodies {
		doc := encode(b, exampleBoundary, message.RESTRequest, 0, []byte(exampleHead), body, nil, []byte("s"), false)
		discard := func(p message.Part) ([]byte, error) {
			_, err := io.Copy(io.Discard, p.Reader)
			return nil, err
		}
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(doc)))
			for b.Loop() {
				if _, err := decode(bytes.NewReader(doc), exampleType, message.RESTRequest, message.Limits{}, discard); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+" by mime/multipart", func(b *testing.B) {
			b.SetBytes(int64(len(doc)))
			for b.Loop() {
				r := multipart.NewReader(bytes.NewReader(doc), exampleBoundary)
				for {
					p, err := r.NextRawPart()
					if err == io.EOF {
						break
					}
					if _, err := io.Copy(io.Discard, p); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

func BenchmarkBody(b *testing.B) {
	for name, size := range map[string]int{"1KB": 1 << 10, "60KB": 60 << 10, "64MB": 64 << 20} {
		content := make([]byte, size)
		s := spool(b)
		b.Run(name+" Write", func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				body := s.New()
				for p := content; len(p) > 0; {
					n := min(len(p), 32<<10)
					if _, err := body.Write(p[:n]); err != nil {
						b.Fatal(err)
					}
					p = p[n:]
				}
				body.Digest()
				body.Close()
			}
		})
		b.Run(name+" ReadFrom", func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				body := s.New()
				if _, err := body.ReadFrom(bytes.NewReader(content)); err != nil {
					b.Fatal(err)
				}
				body.Digest()
				body.Close()
			}
		})
	}
}

func BenchmarkRequestHash(b *testing.B) {
	s := spool(b)
	body := s.New()
	defer body.Close()
	if _, err := io.Copy(body, strings.NewReader(exampleBody)); err != nil {
		b.Fatal(err)
	}
	head := []byte(exampleHead)
	b.ReportAllocs()
	for b.Loop() {
		message.RequestHash(head, body)
	}
}
