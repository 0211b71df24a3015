// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"kontor/gateway/fault"
)

// Metrics are the Prometheus collectors of the message path. Labels are
// bounded: never a client or a message, and no more than maxServices services.
type Metrics struct {
	exchanges *prometheus.CounterVec
	seconds   *prometheus.HistogramVec
	bytes     *prometheus.CounterVec
	inFlight  *prometheus.GaugeVec
	sides     map[string]*sideMetrics // by side
	services  *serviceMetrics
	known     map[string]bool // last parts of fault codes, the only ones that become labels
}

// sideMetrics are the collectors that every exchange of a side needs: looking
// them up by their labels takes longer than counting.
type sideMetrics struct {
	succeeded         prometheus.Counter
	seconds           prometheus.Observer
	request, response prometheus.Counter
	inFlight          prometheus.Gauge
}

// NewMetrics returns collectors that are not registered yet.
func NewMetrics() *Metrics {
	known := map[string]bool{}
	for _, e := range fault.Table() {
		known[lastPart(string(e.Code))] = true
	}
	m := &Metrics{
		known: known, sides: map[string]*sideMetrics{}, services: newServiceMetrics(),
		exchanges: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kontor_exchanges_total", Help: "Exchanges ended, by side (client or server proxy) and fault code (empty: none).",
		}, []string{"side", "fault"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "kontor_exchange_seconds", Help: "Duration of exchanges, by side.",
			Buckets: []float64{.001, .002, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"side"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kontor_body_bytes_total", Help: "Bytes of message bodies carried, by side and direction (request or response).",
		}, []string{"side", "direction"}),
		inFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "kontor_exchanges_in_flight", Help: "Exchanges under way, by side.",
		}, []string{"side"}),
	}
	for _, side := range []string{"client", "server"} {
		m.sides[side] = &sideMetrics{
			succeeded: m.exchanges.WithLabelValues(side, ""), seconds: m.seconds.WithLabelValues(side),
			request: m.bytes.WithLabelValues(side, "request"), response: m.bytes.WithLabelValues(side, "response"),
			inFlight: m.inFlight.WithLabelValues(side),
		}
	}
	return m
}

func (m *Metrics) begin(x *Exchange) { m.sides[x.Side].inFlight.Inc() }
func (m *Metrics) end(x *Exchange)   { m.sides[x.Side].inFlight.Dec() }

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	m.exchanges.Describe(ch)
	m.seconds.Describe(ch)
	m.bytes.Describe(ch)
	m.inFlight.Describe(ch)
	m.services.exchanges.Describe(ch)
	m.services.seconds.Describe(ch)
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	m.exchanges.Collect(ch)
	m.seconds.Collect(ch)
	m.bytes.Collect(ch)
	m.inFlight.Collect(ch)
	m.services.exchanges.Collect(ch)
	m.services.seconds.Collect(ch)
}

func (m *Metrics) exchange(x *Exchange, took time.Duration) {
	side := m.sides[x.Side]
	if x.Err == nil {
		side.succeeded.Inc()
	} else {
		m.exchanges.WithLabelValues(x.Side, m.faultLabel(x.Err)).Inc()
	}
	side.seconds.Observe(took.Seconds())
	side.request.Add(float64(x.In))
	side.response.Add(float64(x.Out))
	m.services.exchange(x, took)
}

// faultLabel returns the last part of the fault code, if it is one of ours: a
// peer's own invention must not become a label.
func (m *Metrics) faultLabel(err error) string {
	f := asFault(err)
	if f == nil {
		return "aborted" // the answer did not reach its reader
	}
	if code := lastPart(fault.Normalise(f.Code())); m.known[code] {
		return code
	}
	return "other"
}

func lastPart(code string) string { return code[strings.LastIndexByte(code, '.')+1:] }
