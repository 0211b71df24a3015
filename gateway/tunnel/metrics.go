// SPDX-License-Identifier: Apache-2.0

package tunnel

import "github.com/prometheus/client_golang/prometheus"

// Metrics are the Prometheus collectors of tunnels, for both ends. Labels are
// bounded: side is client or server, transport https or quic.
type Metrics struct {
	exchanges        exchangeCounters
	fallbacks        prometheus.Counter
	handshakesFailed *prometheus.CounterVec
	connections      *prometheus.GaugeVec
	links            *prometheus.GaugeVec
	all              []prometheus.Collector
}

// exchangeCounters are those of kontor_tunnel_exchanges_total, by transport.
type exchangeCounters struct{ client, server [QUIC + 1]prometheus.Counter }

// NewMetrics returns collectors that are not registered yet.
func NewMetrics() *Metrics {
	exchanges := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "kontor_tunnel_exchanges_total", Help: "Exchanges with other security servers, by side and transport (https or quic).",
	}, []string{"side", "transport"})
	m := &Metrics{
		fallbacks: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kontor_tunnel_fallbacks_total", Help: "Exchanges over HTTPS with peers that offer QUIC.",
		}),
		handshakesFailed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kontor_tunnel_quic_handshakes_failed_total", Help: "Connections over QUIC that did not come about, by side.",
		}, []string{"side"}),
		connections: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "kontor_tunnel_quic_connections", Help: "Connections over QUIC, by side.",
		}, []string{"side"}),
	}
	m.links = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "kontor_tunnel_links", Help: "Connections over TLS that carry many exchanges at once, by side.",
	}, []string{"side"})
	for _, t := range []Transport{HTTPS, QUIC} {
		m.exchanges.client[t] = exchanges.WithLabelValues("client", t.String())
		m.exchanges.server[t] = exchanges.WithLabelValues("server", t.String())
	}
	for _, side := range []string{"client", "server"} {
		m.handshakesFailed.WithLabelValues(side)
		m.connections.WithLabelValues(side)
		m.links.WithLabelValues(side)
	}
	m.all = []prometheus.Collector{exchanges, m.fallbacks, m.handshakesFailed, m.connections, m.links}
	return m
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.all {
		c.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.all {
		c.Collect(ch)
	}
}
