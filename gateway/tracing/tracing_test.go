// SPDX-License-Identifier: Apache-2.0

package tracing_test

import (
	"context"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	v1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/protobuf/proto"

	"kontor/gateway/tracing"
)

const (
	traceID = "4bf92f3577b34da6a3ce929d0e0e4736"
	sampled = "00-" + traceID + "-00f067aa0ba902b7-01"
)

// receiver is a collector: OTLP over HTTP, protobuf.
type receiver struct {
	*httptest.Server
	mu    sync.Mutex
	spans []*v1.Span
	from  map[string]string // attributes of the resource
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{from: map[string]string{}}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		b, err := io.ReadAll(req.Body)
		var m collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(b, &m)
		}
		if err != nil || req.Header.Get("Content-Type") != "application/x-protobuf" {
			t.Errorf("not OTLP: %v", err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, rs := range m.ResourceSpans {
			for _, a := range rs.Resource.Attributes {
				r.from[a.Key] = a.Value.GetStringValue()
			}
			for _, s := range rs.ScopeSpans {
				r.spans = append(r.spans, s.Spans...)
			}
		}
	}))
	t.Cleanup(r.Close)
	return r
}

func newTracer(t *testing.T, cfg tracing.Config) *tracing.Tracer {
	t.Helper()
	tracer, err := tracing.New(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return tracer
}

func header(parent, state string) http.Header {
	h := http.Header{}
	if parent != "" {
		h.Set("traceparent", parent)
	}
	if state != "" {
		h.Set("tracestate", state)
	}
	return h
}

func TestSpansReachTheCollector(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	tracer := newTracer(t, tracing.Config{Endpoint: r.URL + "/v1/traces", Sample: 1, Server: "T/GOV/1/ss", Version: "1"})
	at := time.Unix(1_800_000_000, 0)
	span := tracer.Start(header(sampled, "vendor=x"), "request", at)
	hop := span.Child("hop", tracing.Called, at.Add(time.Second))
	out := header("00-ffffffffffffffffffffffffffffffff-ffffffffffffffff-00", "old=1")
	hop.Inject(out)
	hop.End(at.Add(2*time.Second), "", "")
	span.Set("xroad.client", "T/GOV/1/a")
	span.Set("xroad.nothing", "")
	span.SetInt("http.response.status_code", 500)
	span.End(at.Add(3*time.Second), "server.x", "it broke")
	if err := tracer.Close(t.Context()); err != nil {
		t.Fatal(err)
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.spans) != 2 {
		t.Fatalf("%d spans arrived", len(r.spans))
	}
	child, parent := r.spans[0], r.spans[1]
	if got := hex.EncodeToString(parent.TraceId); got != traceID || hex.EncodeToString(parent.ParentSpanId) != "00f067aa0ba902b7" {
		t.Errorf("the span is of trace %s below %x", got, parent.ParentSpanId)
	}
	if string(child.ParentSpanId) != string(parent.SpanId) || child.Kind != v1.Span_SPAN_KIND_CLIENT || parent.Kind != v1.Span_SPAN_KIND_SERVER {
		t.Errorf("the hop is not below the request: %v %v", child, parent)
	}
	if parent.StartTimeUnixNano != uint64(at.UnixNano()) || parent.EndTimeUnixNano != uint64(at.Add(3*time.Second).UnixNano()) {
		t.Errorf("times: %v", parent)
	}
	if parent.Status.Code != v1.Status_STATUS_CODE_ERROR || parent.Status.Message != "it broke" || child.Status.GetCode() == v1.Status_STATUS_CODE_ERROR {
		t.Errorf("status: %v, %v", parent.Status, child.Status)
	}
	attributes := map[string]string{}
	for _, a := range parent.Attributes {
		attributes[a.Key] = a.Value.String()
	}
	if len(attributes) != 3 || !strings.Contains(attributes["xroad.client"], "T/GOV/1/a") || !strings.Contains(attributes["error.type"], "server.x") {
		t.Errorf("attributes: %v", attributes)
	}
	if r.from["service.instance.id"] != "T/GOV/1/ss" || r.from["service.name"] != "kontor-gateway" {
		t.Errorf("resource: %v", r.from)
	}
	if want := "00-" + traceID + "-" + hex.EncodeToString(child.SpanId) + "-01"; out.Get("traceparent") != want || out.Get("tracestate") != "vendor=x" {
		t.Errorf("the next hop gets %v, expected %s", out, want)
	}
}

func TestSampling(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		sample float64
		parent string
		want   bool
	}{
		"all":                     {1, "", true},
		"none":                    {0, "", false},
		"caller cannot force":     {0, sampled, false},
		"caller may refuse":       {1, strings.TrimSuffix(sampled, "1") + "0", false},
		"caller agrees":           {1, sampled, true},
		"malformed is no context": {1, "00-zz", true},
	} {
		r := newReceiver(t)
		tracer := newTracer(t, tracing.Config{Endpoint: r.URL, Sample: test.sample})
		span := tracer.Start(header(test.parent, ""), "x", time.Now())
		if span.Recording() != test.want {
			t.Errorf("%s: recorded %v", name, span.Recording())
		}
		out := header("", "")
		span.Inject(out)
		if out.Get("traceparent") == "" {
			t.Errorf("%s: no context goes on", name)
		}
		if err := tracer.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestCarryOnly(t *testing.T) {
	t.Parallel()
	tracer := newTracer(t, tracing.Config{})
	for _, test := range []struct{ parent, state, want, wantState string }{
		{sampled, "a=b", sampled, "a=b"},
		{"", "", "", ""},
		{"00-" + traceID + "-0000000000000000-01", "", "", ""},
		{"00-" + traceID + "-00f067aa0ba902b7-01\r\nX: y", "", "", ""},
		{sampled, strings.Repeat("a=b,", 40) + "z=z", sampled, ""},
		{sampled, "a=" + strings.Repeat("b", 200) + ",c=" + strings.Repeat("d", 200), sampled, "a=" + strings.Repeat("b", 200) + ",c=" + strings.Repeat("d", 200)},
		{sampled, "a=" + strings.Repeat("b", 250) + ",c=" + strings.Repeat("d", 250) + ",e=" + strings.Repeat("f", 50), sampled, ""},
	} {
		span := tracer.Start(header(test.parent, test.state), "x", time.Now())
		hop := span.Child("y", tracing.Called, time.Now())
		out := http.Header{}
		hop.Inject(out)
		if out.Get("traceparent") != test.want || out.Get("tracestate") != test.wantState {
			t.Errorf("%q, %q goes on as %v", test.parent, test.state, out)
		}
		if hop.Recording() {
			t.Error("it is recorded")
		}
		hop.End(time.Now(), "x", "y")
		span.End(time.Now(), "", "")
	}
	if err := tracer.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestOff(t *testing.T) {
	var tracer *tracing.Tracer
	h, out := header(sampled, "a=b"), http.Header{}
	cost := testing.AllocsPerRun(100, func() {
		span := tracer.Start(h, "x", time.Time{})
		hop := span.Child("y", tracing.Called, time.Time{})
		hop.Inject(out)
		hop.Set("a", "b")
		hop.SetInt("a", 1)
		hop.End(time.Time{}, "", "")
		span.End(time.Time{}, "", "")
	})
	if cost != 0 || len(out) != 0 || tracer.Close(t.Context()) != nil {
		t.Errorf("tracing that is off allocates %v times and sends %v", cost, out)
	}
}

func TestDeafCollector(t *testing.T) {
	t.Parallel()
	deaf := httptest.NewServer(http.NotFoundHandler())
	defer deaf.Close()
	core, logged := observer.New(zap.WarnLevel)
	tracer := newTracer(t, tracing.Config{Endpoint: deaf.URL, Sample: 1, Log: zap.New(core)})
	tracer.Start(nil, "x", time.Now()).End(time.Now(), "", "")
	if err := tracer.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if logged.Len() != 1 {
		t.Errorf("%d lines tell of it", logged.Len())
	}
}
