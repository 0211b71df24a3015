// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"kontor/gateway"
	"kontor/gateway/message"
	"kontor/gateway/opmonitor"
	"kontor/registry/id"
)

// series counts what a metric has, and the values of one of its labels.
func series(t *testing.T, m *gateway.Metrics, name, label string) map[string]float64 {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(m)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, s := range f.Metric {
			for _, l := range s.Label {
				if l.GetName() == label {
					all[l.GetValue()] += s.GetCounter().GetValue()
				}
			}
		}
	}
	return all
}

func TestServiceLabelsAreBounded(t *testing.T) {
	t.Parallel()
	m := gateway.NewMetrics()
	service := func(i int) id.Service {
		s, err := id.ParseService(fmt.Sprintf("T/GOV/1/p/s%d", i))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for i := range 500 { // names that nobody has shown to exist
		m.Count("server", service(i), false, time.Second)
	}
	if got := series(t, m, "kontor_service_exchanges_total", "service"); len(got) != 1 || got["other"] != 500 {
		t.Errorf("%v", got)
	}
	for i := range 500 {
		m.Count("server", service(i), true, time.Second)
		m.Count("server", service(i), false, time.Second) // known by now, unless there were too many
	}
	m.Count("client", service(499), true, time.Second)
	got := series(t, m, "kontor_service_exchanges_total", "service")
	if len(got) != 202 || got["T/GOV/1/p/s0"] != 2 || got["T/GOV/1/p/s199"] != 2 || got["other"] != 1100 || got["T/GOV/1/p/s499"] != 1 {
		t.Errorf("%d services: %v", len(got), got["other"])
	}
	if got := series(t, m, "kontor_service_seconds_total", "service"); got["T/GOV/1/p/s0"] != 2 {
		t.Errorf("%v s", got["T/GOV/1/p/s0"])
	}
	if got := series(t, m, "kontor_service_exchanges_total", "outcome"); got["succeeded"] != 501 || got["failed"] != 1000 {
		t.Errorf("%v", got)
	}
}

// BenchmarkRecord is what making a record of an exchange costs, without the copy
// into the store's buffer, which is full; see there for that.
func BenchmarkRecord(b *testing.B) {
	s, err := opmonitor.Open(opmonitor.Config{Dir: b.TempDir(), Buffer: 1})
	if err != nil {
		b.Fatal(err)
	}
	keep := gateway.Keeper(s, &message.Request{ID: "id", RequestID: "request", Raw: make([]byte, 500)})
	keep()
	b.ReportAllocs()
	for b.Loop() {
		keep()
	}
}
