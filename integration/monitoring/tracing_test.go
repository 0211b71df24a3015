// SPDX-License-Identifier: Apache-2.0

package monitoring_test

import (
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	v1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"kontor/config"
	"kontor/integration/testnet"
)

const (
	traceID = "4bf92f3577b34da6a3ce929d0e0e4736"
	parent  = "00f067aa0ba902b7"
	context = "00-" + traceID + "-" + parent + "-01"
)

// collect is a collector of spans: OTLP over HTTP.
func collect(t *testing.T) (url string, spans func() []*v1.Span) {
	var mu sync.Mutex
	var all []*v1.Span
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		var m collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(b, &m)
		}
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, rs := range m.ResourceSpans {
			for _, s := range rs.ScopeSpans {
				all = append(all, s.Spans...)
			}
		}
	}))
	t.Cleanup(s.Close)
	return s.URL + "/v1/traces", func() []*v1.Span {
		mu.Lock()
		defer mu.Unlock()
		return all
	}
}

// exchange sends one REST and one SOAP message with these headers and returns
// what the information system got of them.
func exchange(t *testing.T, n *testnet.Network, header ...string) (rest, soap http.Header) {
	t.Helper()
	if res := n.Call(testnet.Portal, "GET", testnet.Path(testnet.Persons), nil, header...); res.Status != http.StatusOK {
		t.Fatal(res.Code, res.Err)
	}
	if res := n.SOAP("text/xml", strings.NewReader(testnet.Envelope{Client: testnet.Portal, Service: testnet.Query, ID: "traced"}.String()), header...); res.Code != "" || res.Err != nil {
		t.Fatal(res.Code, res.Fault.Message, res.Err)
	}
	got := n.Service.Requests()
	return got[len(got)-2].Header, got[len(got)-1].Header
}

func TestTraces(t *testing.T) {
	url, spans := collect(t)
	n := start(t, func(_ string, c *config.Gateway) { c.Tracing.Endpoint, c.Tracing.Sample = url, 1 })
	rest, soap := exchange(t, n, "Traceparent: "+context, "Tracestate: vendor=x")
	if rest.Get("Traceparent") != context || rest.Get("Tracestate") != "vendor=x" || len(rest.Values("Traceparent")) != 1 {
		t.Errorf("what a client signed has changed: %v", rest)
	}
	n.A.Stop() // which sends what it has
	n.B.Stop()
	byID := map[string]*v1.Span{}
	for _, s := range spans() {
		if hex.EncodeToString(s.TraceId) == traceID {
			byID[hex.EncodeToString(s.SpanId)] = s
		}
	}
	if len(byID) != 8 {
		t.Fatalf("%d spans, not four of each exchange", len(byID))
	}
	// Each call of a service lies below a server proxy, a call of a peer, a
	// client proxy, and the information system that began.
	chains := 0
	for _, s := range byID {
		if s.Name != "service" {
			continue
		}
		chains++
		for _, name := range []string{"server proxy", "peer", "client proxy"} {
			up := byID[hex.EncodeToString(s.ParentSpanId)]
			if up == nil || up.Name != name || s.StartTimeUnixNano < up.StartTimeUnixNano || s.StartTimeUnixNano > up.EndTimeUnixNano {
				t.Fatalf("%s does not begin within %s, but %v", s, name, up)
			}
			s = up
		}
		if hex.EncodeToString(s.ParentSpanId) != parent {
			t.Errorf("the trace begins below %x", s.ParentSpanId)
		}
	}
	if chains != 2 {
		t.Errorf("%d chains", chains)
	}
	if id := strings.Split(soap.Get("Traceparent"), "-"); len(id) != 4 || id[1] != traceID || byID[id[2]] == nil || byID[id[2]].Name != "service" || soap.Get("Tracestate") != "vendor=x" {
		t.Errorf("the SOAP service got %v", soap)
	}
}

func TestTracesBegin(t *testing.T) {
	url, spans := collect(t)
	n := start(t, func(name string, c *config.Gateway) {
		if c.Tracing.Sample = 1; name == "A" {
			c.Tracing.Endpoint = url
		} else {
			c.Tracing.Propagate = true // carries what it gets, tells nobody
		}
	})
	rest, soap := exchange(t, n, "Tracestate: of=nothing")
	if rest.Get("Tracestate") != "" {
		t.Errorf("another trace's state came along: %v", rest)
	}
	if res := n.Call(testnet.Stranger, "GET", testnet.Path(testnet.Persons), nil); res.Code == "" {
		t.Fatal("not denied")
	}
	n.A.Stop()
	called := map[string]bool{}
	failed := 0
	for _, s := range spans() {
		if s.Name == "peer" {
			called[fmt.Sprintf("00-%x-%x-01", s.TraceId, s.SpanId)] = true
		}
		if s.Status.GetCode() == v1.Status_STATUS_CODE_ERROR {
			failed++
		}
	}
	if len(called) != 3 || !called[rest.Get("Traceparent")] || !called[soap.Get("Traceparent")] {
		t.Errorf("%v: services got %q and %q", called, rest.Get("Traceparent"), soap.Get("Traceparent"))
	}
	if failed != 2 {
		t.Errorf("%d spans tell of one failure, not those of the request and of the call of the peer", failed)
	}
}

func TestNoTraces(t *testing.T) {
	n := start(t, nil)
	rest, soap := exchange(t, n, "Traceparent: "+context)
	if rest.Get("Traceparent") != context || soap.Get("Traceparent") != "" {
		t.Errorf("tracing is off: services got %q and %q", rest.Get("Traceparent"), soap.Get("Traceparent"))
	}
	rest, _ = exchange(t, n)
	if rest.Get("Traceparent") != "" {
		t.Errorf("%v", rest)
	}
}
