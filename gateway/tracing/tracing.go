// SPDX-License-Identifier: Apache-2.0

// Package tracing tells an OpenTelemetry collector about exchanges, and carries
// the trace context of information systems through the gateways (W3C Trace
// Context; OTLP over HTTP). It is off unless configured: then its types are nil
// and their methods do nothing.
package tracing

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
)

// Config says what is traced.
type Config struct {
	// Endpoint is the URL of a collector that takes OTLP over HTTP, with its
	// path, such as http://localhost:4318/v1/traces; empty: no spans are made,
	// trace context is only carried.
	Endpoint string
	// Sample is the fraction of exchanges that get spans, 0 to 1. It is decided
	// by the trace id, so that gateways with the same fraction agree. A caller's
	// decision that a trace is not recorded is respected.
	Sample float64
	// Server is the identifier of the security server, Version that of the
	// program.
	Server, Version string
	Client          *http.Client // to the collector; nil: a plain one
	Log             *zap.Logger  // nil: nothing is logged
}

// Tracer makes spans of exchanges. Nil makes none. It is safe for concurrent
// use.
type Tracer struct {
	provider *sdk.TracerProvider // nil: trace context is only carried
	tracer   trace.Tracer
}

// carrier reads and writes traceparent and tracestate, and nothing else:
// baggage may hold anything.
var carrier propagation.TraceContext

// New returns a tracer.
func New(ctx context.Context, cfg Config) (*Tracer, error) {
	if cfg.Endpoint == "" {
		return &Tracer{}, nil
	}
	options := []otlptracehttp.Option{otlptracehttp.WithEndpointURL(cfg.Endpoint), otlptracehttp.WithTimeout(10 * time.Second)}
	if cfg.Client != nil {
		options = append(options, otlptracehttp.WithHTTPClient(cfg.Client))
	}
	exporter, err := otlptracehttp.New(ctx, options...)
	if err != nil {
		return nil, err
	}
	log := cfg.Log
	if log == nil {
		log = zap.NewNop()
	}
	ratio := sdk.TraceIDRatioBased(cfg.Sample)
	provider := sdk.NewTracerProvider(
		sdk.WithBatcher(&telling{SpanExporter: exporter, log: log}),
		// The far side of the parent is another organisation's, or a system of
		// our own: neither may have us record more than we decided.
		sdk.WithSampler(sdk.ParentBased(ratio, sdk.WithRemoteParentSampled(ratio))),
		sdk.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "kontor-gateway"),
			attribute.String("service.version", cfg.Version),
			attribute.String("service.instance.id", cfg.Server),
		)),
	)
	return &Tracer{provider, provider.Tracer("kontor/gateway")}, nil
}

// telling logs what the collector does not take: once, until it takes some again.
// Spans are lost then; the exchanges they tell of are not.
type telling struct {
	sdk.SpanExporter
	log    *zap.Logger
	failed atomic.Bool
}

func (e *telling) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	err := e.SpanExporter.ExportSpans(ctx, spans)
	if was := e.failed.Swap(err != nil); err != nil && !was {
		e.log.Warn("the collector takes no spans; see tracing.endpoint", zap.Error(err))
	}
	return nil
}

// Close sends what is left to the collector, as long as ctx allows.
func (t *Tracer) Close(ctx context.Context) error {
	if t == nil || t.provider == nil {
		return nil
	}
	return t.provider.Shutdown(ctx)
}

// Kind is what a span stands for.
type Kind int

const (
	Served Kind = Kind(trace.SpanKindServer) // a request that came in
	Called Kind = Kind(trace.SpanKindClient) // one that went out
)

// Span is one hop of an exchange. Nil is none. It belongs to one goroutine.
type Span struct {
	tracer *Tracer
	ctx    context.Context // of what is below it: a span's identity, no more
	span   trace.Span      // nil: trace context is only carried
}

// Start begins the span of a request that came in at that time, below the one
// whose context is in the header. Values that are not in the form are passed
// over.
func (t *Tracer) Start(h http.Header, name string, at time.Time) *Span {
	if t == nil {
		return nil
	}
	ctx := carrier.Extract(context.Background(), propagation.HeaderCarrier(h))
	return t.start(ctx, name, Served, at)
}

// Child begins a span below s.
func (s *Span) Child(name string, kind Kind, at time.Time) *Span {
	if s == nil {
		return nil
	}
	return s.tracer.start(s.ctx, name, kind, at)
}

func (t *Tracer) start(ctx context.Context, name string, kind Kind, at time.Time) *Span {
	s := &Span{tracer: t, ctx: ctx}
	if t.provider != nil {
		s.ctx, s.span = t.tracer.Start(ctx, name, trace.WithTimestamp(at), trace.WithSpanKind(trace.SpanKind(kind)))
	}
	return s
}

// maxState bounds the tracestate that is carried on: no more need be (W3C Trace
// Context, section 3.3.1.5), and Java security servers take 8 KiB of headers.
const maxState = 512

// Inject writes the trace context of s to a header, in place of any other.
func (s *Span) Inject(h http.Header) {
	if s == nil {
		return
	}
	h.Del(headerState)
	carrier.Inject(s.ctx, propagation.HeaderCarrier(h))
	if len(h.Get(headerState)) > maxState {
		h.Del(headerState)
	}
}

const headerState = "Tracestate"

// Recording tells whether anyone will see the span: attributes are worth making.
func (s *Span) Recording() bool { return s != nil && s.span != nil && s.span.IsRecording() }

// Set gives the span an attribute. Empty ones are left out.
func (s *Span) Set(key, value string) {
	if s.Recording() && value != "" {
		s.span.SetAttributes(attribute.String(key, value))
	}
}

// SetInt gives the span a number.
func (s *Span) SetInt(key string, value int64) {
	if s.Recording() {
		s.span.SetAttributes(attribute.Int64(key, value))
	}
}

// End ends the span, once. A failure is told by its code and public text.
func (s *Span) End(at time.Time, code, text string) {
	if s == nil || s.span == nil {
		return
	}
	if code != "" {
		s.span.SetStatus(codes.Error, text)
		s.Set("error.type", code)
	}
	s.span.End(trace.WithTimestamp(at))
}
