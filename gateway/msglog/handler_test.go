// SPDX-License-Identifier: Apache-2.0

package msglog_test

import (
	"archive/zip"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"kontor/gateway/msglog"
	"kontor/pki/asic"
	"kontor/registry/id"
)

func TestFileName(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 225) + "ä"
	for _, test := range []struct {
		id       string
		response bool
		seq      uint64
		want     string
	}{
		{"DEV-1", false, 1, "DEV-1-request-1.asice"},
		{"a b*c~d/é", true, 1023, "a+b*c%7Ed%2F%C3%A9-response-vv.asice"},
		{"", false, 1<<64 - 1, "-request-fvvvvvvvvvvvv.asice"},
		{long, false, 32, strings.Repeat("a", 225) + "%-request-10.asice"},
	} {
		e := &msglog.Entry{Record: msglog.Record{MessageID: test.id, Response: test.response, Seq: test.seq}}
		if got := msglog.FileName(e); got != test.want {
			t.Errorf("%q: got %q", test.id, got)
		}
	}
}

// download logs an exchange of two messages on the consumer's side, the
// request again on the provider's, and a foreign message of the same id.
func download(t *testing.T) (*msglog.Log, *fakeTSA, http.Handler) {
	f := &fakeTSA{}
	l := openMem(t, config(newClock(), f), vfs.NewMem())
	t.Cleanup(func() { closeLog(t, l) })
	body := []byte(`{"name":"Rex"}`)
	request := record("m/1", body)
	appendRecord(t, l, request, &memBody{data: body})
	response := record("m/1", nil)
	response.Response = true
	appendRecord(t, l, response, nil)
	provider := record("m/1", nil)
	provider.Side, provider.Service = msglog.Server, service("DEV/COM/222/other/svc")
	appendRecord(t, l, provider, nil)
	member := record("m/1", nil)
	member.Client = client("DEV/GOV/111")
	appendRecord(t, l, member, nil)
	h := msglog.Handler(msglog.HandlerConfig{Log: l, Authenticate: func(_ *http.Request, c id.Client) error {
		if c.Member().Code() == "unknown" {
			return errors.New("client is not registered here")
		}
		return nil
	}})
	return l, f, h
}

const known = "queryId=m%2F1&xRoadInstance=DEV&memberClass=GOV&memberCode=111&subsystemCode=sub"

func ask(h http.Handler, query string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/asic?"+query, nil))
	return w
}

func TestDownloadRefusals(t *testing.T) {
	t.Parallel()
	l, f, h := download(t)
	for _, test := range []struct {
		query  string
		status int
		text   string
	}{
		{"", 400, `"xRoadInstance" must be specified`},
		{"queryId=x&xRoadInstance=DEV&memberClass=GOV", 400, `"memberCode" must be specified`},
		{"xRoadInstance=DEV&memberClass=GOV&memberCode=111", 400, `"queryId" must be specified`},
		{"queryId=x&xRoadInstance=DEV&memberClass=GOV&memberCode=111&subsystemCode=", 400, ""},
		{"queryId=x;y&xRoadInstance=%zz", 400, "malformed"},
		{known + "&requestOnly&responseOnly", 400, "cannot be used at the same time"},
		{known + "&unique", 400, "not applicable without"},
		{strings.Replace(known, "111", "unknown", 1), 401, "client is not registered here"},
		{strings.Replace(known, "m%2F1", "none", 1), 404, "No signed documents found"},
		{strings.Replace(known, "=sub", "=none", 1), 404, "No signed documents found"},
		{known, 500, "has not been timestamped yet"},
	} {
		w := ask(h, test.query)
		if w.Code != test.status || !strings.Contains(w.Body.String(), test.text) {
			t.Errorf("%s: %d %s", test.query, w.Code, w.Body)
		}
		if ct := w.Header().Get("Content-Type"); !strings.EqualFold(ct, "text/plain; charset=utf-8") {
			t.Errorf("%s: content type %q", test.query, ct)
		}
	}
	f.set(errDown)
	if w := ask(h, known+"&force"); w.Code != 500 || !strings.Contains(w.Body.String(), "Could not create missing timestamp!") {
		t.Errorf("time-stamping down: %d %s", w.Code, w.Body)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/asic?"+known, nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", w.Code)
	}
	f.set(nil)
	if err := l.StampNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.Rewrite(1, func(value []byte) { value[1] = 0xff }); err != nil {
		t.Fatal(err)
	}
	if w := ask(h, known); w.Code != 500 || strings.Contains(w.Body.String(), "canonical") || w.Header().Get("Content-Disposition") != "" {
		t.Errorf("damaged log: %d %s", w.Code, w.Body)
	}
}

func TestDownload(t *testing.T) {
	t.Parallel()
	l, _, h := download(t)
	if w := ask(h, known+"&force"); w.Code != 200 {
		t.Fatalf("force: %d %s", w.Code, w.Body)
	}
	provider := "queryId=m%2F1&xRoadInstance=X&memberClass=COM&memberCode=222&subsystemCode=other"
	member := "queryId=m%2F1&xRoadInstance=DEV&memberClass=GOV&memberCode=111"
	for _, test := range []struct {
		query, name string
		entries     []string
	}{
		{known, "m%2F1.zip", []string{"m%2F1-request-1.asice", "m%2F1-response-2.asice"}},
		{known + "&requestOnly", "m%2F1-request.zip", []string{"m%2F1-request-1.asice"}},
		{known + "&responseOnly=x", "m%2F1-response.zip", []string{"m%2F1-response-2.asice"}},
		{provider, "m%2F1.zip", []string{"m%2F1-request-3.asice"}},
		{member, "m%2F1.zip", []string{"m%2F1-request-4.asice"}},
	} {
		w := ask(h, test.query)
		if w.Code != 200 || w.Header().Get("Content-Type") != "application/zip" ||
			w.Header().Get("Content-Disposition") != `attachment; filename="`+test.name+`"` {
			t.Errorf("%s: %d %v", test.query, w.Code, w.Header())
		}
		if got := zipNames(t, w.Body.Bytes()); !slices.Equal(got, test.entries) {
			t.Errorf("%s: %q", test.query, got)
		}
	}
	for query, name := range map[string]string{"&unique&requestOnly": "m%2F1-request-1.asice", "&unique&responseOnly": "m%2F1-response-2.asice"} {
		w := ask(h, known+query)
		if w.Code != 200 || w.Header().Get("Content-Type") != "application/vnd.etsi.asic-e+zip" ||
			w.Header().Get("Content-Disposition") != `attachment; filename="`+name+`"` {
			t.Errorf("%s: %d %v", query, w.Code, w.Header())
		}
		b := w.Body.Bytes()
		c, err := asic.Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(query, "requestOnly") {
			if len(c.Attachments) != 1 {
				t.Fatal("no body")
			}
			r, err := c.Attachments[0].Open()
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(r); err != nil || string(got) != `{"name":"Rex"}` {
				t.Errorf("body %q %v", got, err)
			}
		}
	}
	var buf bytes.Buffer
	if n, err := l.ExportZip(t.Context(), &buf, msglog.Query{Side: msglog.Client}, false); n != 3 || err != nil || len(zipNames(t, buf.Bytes())) != 3 {
		t.Errorf("export: %d %v", n, err)
	}
	buf.Reset()
	if _, err := l.ExportZip(t.Context(), &buf, msglog.Query{MessageID: "none"}, false); !errors.Is(err, msglog.ErrNotFound) || buf.Len() > 0 {
		t.Errorf("nothing to export: %v", err)
	}
	appendRecord(t, l, record("new", nil), nil)
	if _, err := l.ExportZip(t.Context(), &buf, msglog.Query{MessageID: "new"}, false); !errors.Is(err, msglog.ErrNotStamped) || buf.Len() > 0 {
		t.Errorf("unstamped export: %v", err)
	}
}

func zipNames(t *testing.T, b []byte) []string {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range z.File {
		names = append(names, f.Name)
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Error(err)
		}
	}
	return names
}
