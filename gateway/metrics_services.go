// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"kontor/registry/id"
)

// maxServices bounds the services that have labels of their own, on each side.
// All others count together: a client may ask for any name.
const maxServices = 200

// otherServices is the label of those.
const otherServices = "other"

// serviceMetrics count exchanges by service.
type serviceMetrics struct {
	exchanges *prometheus.CounterVec
	seconds   *prometheus.CounterVec

	mu    sync.RWMutex
	known map[serviceKey]*serviceCounters
	count map[string]int // of known, by side
}

type serviceKey struct {
	side    string
	service id.Service // zero: all others
}

type serviceCounters struct{ succeeded, failed, seconds prometheus.Counter }

func newServiceMetrics() *serviceMetrics {
	return &serviceMetrics{
		exchanges: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kontor_service_exchanges_total",
			Help: "Exchanges ended, by side, service and outcome: failed is a fault or an HTTP status of 400 and more. The first 200 services of a side have their names, all others are \"other\".",
		}, []string{"side", "service", "outcome"}),
		seconds: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kontor_service_seconds_total", Help: "Duration of all exchanges, by side and service; divide its rate by that of kontor_service_exchanges_total.",
		}, []string{"side", "service"}),
		known: map[serviceKey]*serviceCounters{}, count: map[string]int{},
	}
}

// exchange counts an exchange.
func (m *serviceMetrics) exchange(x *Exchange, took time.Duration) {
	c := m.of(x)
	if x.succeeded() {
		c.succeeded.Inc()
	} else {
		c.failed.Inc()
	}
	c.seconds.Add(took.Seconds())
}

// of returns the counters of an exchange's service. One that nobody has shown to
// exist is not worth a label.
func (m *serviceMetrics) of(x *Exchange) *serviceCounters {
	key := serviceKey{x.Side, x.Service}
	m.mu.RLock()
	c := m.known[key]
	m.mu.RUnlock()
	if c != nil {
		return c
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	exists := x.service != nil || x.builtin || x.response != nil
	if x.Service.IsZero() || !exists || m.count[x.Side] >= maxServices {
		key.service = id.Service{}
	}
	if c := m.known[key]; c != nil {
		return c
	}
	label := otherServices
	if !key.service.IsZero() {
		label = key.service.String()
		m.count[x.Side]++
	}
	c = &serviceCounters{
		succeeded: m.exchanges.WithLabelValues(x.Side, label, "succeeded"), failed: m.exchanges.WithLabelValues(x.Side, label, "failed"),
		seconds: m.seconds.WithLabelValues(x.Side, label),
	}
	m.known[key] = c
	return c
}

// succeeded tells whether the exchange went as its client wished.
func (x *Exchange) succeeded() bool { return x.Err == nil && x.Status < http.StatusBadRequest }
