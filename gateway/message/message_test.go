// SPDX-License-Identifier: Apache-2.0

package message_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"kontor/gateway/message"
)

// The worked example of a request: head, body and hash, recomputed from the
// containers of real servers.
const (
	exampleHead = "POST\r\n/r1/DEV/COM/1234/TestService/mock1/v1/pets?limit=2\r\n" +
		"Content-Type:application/json\r\nX-Road-Client:DEV/COM/4422/TestClient\r\nAccept:*/*\r\n" +
		"x-road-request-id:78b890f3-b1eb-45b2-a512-beec5d7ead23\r\nx-road-id:DEV-d75ea6fd-d24b-48ec-a320-53675c40fb86\r\n"
	exampleBody      = `{"name":"Rex"}`
	exampleHeadHash  = "VHWbZ522qCkPtCS8gc0GQc/hHLxsiL9OgPkWPiUVzOFMVqlQsKtxgQyscg2VvTnGpTiWlzG5Up7vu8RxVbk3Pw=="
	exampleBodyHash  = "ybwGMBy+7m/Hfb++aZZqpHMvJVOmD1S6zqfUVDyGUG6UaHXQbnmnZH2+PagYEea5F6Abfnevo2tvy7FamxgKkA=="
	exampleHash      = "gbwqKQm+zkRz4FKQh9i7zKCvMKRYOkoX2UukKSmgntkEkqqLny4+KUPNCBEgj/HDTz8KbsKCeqQIZdUywgXKCQ=="
	exampleRequestID = "78b890f3-b1eb-45b2-a512-beec5d7ead23"
	exampleID        = "DEV-d75ea6fd-d24b-48ec-a320-53675c40fb86"
	exampleBoundary  = "xtopAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	exampleType      = "multipart/mixed; charset=UTF-8; boundary=" + exampleBoundary
)

// exampleMessage is the transport message that carries the example; what is in
// angle brackets stands for documents of other packages.
const exampleMessage = "--" + exampleBoundary + "\r\n" +
	"content-type: application/ocsp-response\r\n\r\n<ocsp>\r\n--" + exampleBoundary + "\r\n" +
	"content-type: application/x-road-rest-request\r\n\r\n" + exampleHead + "\r\n--" + exampleBoundary + "\r\n" +
	"content-type: application/x-road-rest-body\r\n\r\n" + exampleBody + "\r\n--" + exampleBoundary + "\r\n" +
	"content-type: application/hash-chain-result\r\n\r\n<result>\n\r\n--" + exampleBoundary + "\r\n" +
	"content-type: application/hash-chain\r\n\r\n<chain>\n\r\n--" + exampleBoundary + "\r\n" +
	"content-type: signature/bdoc-1.0/ts\r\n\r\n<signature>\r\n--" + exampleBoundary + "--\r\n"

func spool(t testing.TB) *message.Spool {
	return &message.Spool{Dir: t.TempDir(), Reserve: -1}
}

func bodyOf(t testing.TB, s *message.Spool, content string) *message.Body {
	t.Helper()
	b := s.New()
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := io.Copy(b, strings.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	return b
}

func exampleRequest(t testing.TB) *message.Request {
	t.Helper()
	r, err := message.ReadRequest([]byte(exampleHead), exampleRequestID)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestEncoderWritesWorkedExample(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	e := message.NewEncoderWithBoundary(&out, exampleBoundary)
	e.OCSP([]byte("<ocsp>"))
	e.Head(message.RESTRequest, []byte(exampleHead))
	if _, err := io.Copy(e.BodyWriter(), strings.NewReader(exampleBody)); err != nil {
		t.Fatal(err)
	}
	e.HashChain([]byte("<result>\n"), []byte("<chain>\n"))
	e.Signature([]byte("<signature>"))
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if out.String() != exampleMessage {
		t.Errorf("got\n%s\nwant\n%s", out.String(), exampleMessage)
	}
	if e.ContentType() != exampleType {
		t.Errorf("content type %s", e.ContentType())
	}
}

func TestDecoderReadsWorkedExample(t *testing.T) {
	t.Parallel()
	d, err := message.NewDecoder(strings.NewReader(exampleMessage), exampleType, message.RESTRequest, message.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	var have []string
	for {
		p, err := d.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := p.ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		have = append(have, p.Kind.String()+"="+string(b))
	}
	want := []string{"OCSP response=<ocsp>", "REST request=" + exampleHead, "REST body=" + exampleBody,
		"hash chain result=<result>\n", "hash chain=<chain>\n", "signature=<signature>"}
	if strings.Join(have, "|") != strings.Join(want, "|") {
		t.Errorf("got %q", have)
	}
}

func TestRequestHash(t *testing.T) {
	t.Parallel()
	b := bodyOf(t, spool(t), exampleBody)
	if h := message.RequestHash([]byte(exampleHead), b); h != exampleHash {
		t.Errorf("with body: %s", h)
	}
	for _, absent := range []*message.Body{nil, spool(t).New()} {
		if h := message.RequestHash([]byte(exampleHead), absent); h != exampleHeadHash {
			t.Errorf("without body: %s", h)
		}
	}
}

func TestFromHTTP(t *testing.T) {
	t.Parallel()
	var got *message.Request
	var gotErr error
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := 0
		got, gotErr = message.FromHTTP(r, "DEV", func() string { n++; return []string{"first", "second"}[n-1] })
	}))
	defer srv.Close()
	req, err := http.NewRequest("POST", srv.URL, strings.NewReader(exampleBody))
	if err != nil {
		t.Fatal(err)
	}
	req.URL.Opaque = "/r1/DEV/COM/1234/TestService/mock1/v1/a%2Fb//%7e?"
	req.Header.Set("X-Road-Client", "DEV/COM/4422/TestClient")
	req.Header.Set("X-Road-Request-Id", "forged")
	req.Header.Set("X-Road-Request-Hash", "forged")
	req.Header["Accept"] = []string{"b", "a"}
	req.Header.Set("Te", "trailers")
	if _, err := http.DefaultClient.Do(req); err != nil {
		t.Fatal(err)
	}
	if gotErr != nil {
		t.Fatal(gotErr)
	}
	want := "POST\r\n/r1/DEV/COM/1234/TestService/mock1/v1/a%2Fb//%7e?\r\nAccept:b\r\nAccept:a\r\nAccept-Encoding:gzip\r\n" +
		"X-Road-Client:DEV/COM/4422/TestClient\r\nx-road-request-id:first\r\nx-road-id:DEV-second\r\n"
	if string(got.Raw) != want {
		t.Errorf("got %q\nwant %q", got.Raw, want)
	}
	if got.ServiceTarget() != "/v1/a%2Fb//%7e?" || got.ID != "DEV-second" || got.RequestID != "first" {
		t.Errorf("%+v", got)
	}
	if _, err := message.ReadRequest(got.Raw, "first"); err != nil {
		t.Error(err)
	}
}

func TestErrorsAreDistinct(t *testing.T) {
	t.Parallel()
	_, err := message.ReadRequest([]byte("GET\r\n/r1/DEV/COM/1/s/svc\r\nx-road-id:1\r\nx-road-request-id:2\r\n"), "2")
	if !errors.Is(err, message.ErrMissingClient) {
		t.Error(err)
	}
}
