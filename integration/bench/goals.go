// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
)

// goal is one that the project has set itself. It is about rows or a value of a
// section.
type goal struct {
	what    string
	section string
	limit   float64
	least   bool // it must be at least the limit, else at most
	unit    string
	// Either a value of the section, in the goal's unit when multiplied …
	value string
	times float64
	// … or what one finds in the rows of subjects that end in one of rows.
	rows    []string
	clients int
	bytes   int64
	of      func(row) float64
}

// both are Kontor's rows that differ in the transport alone.
func both(format string) []string {
	var all []string
	for _, t := range transports {
		all = append(all, fmt.Sprintf(format, t))
	}
	return all
}

func ratio(r row) float64 { return r.Ratio }

func p50ms(r row) float64 {
	return r.median(func(s sample) float64 { return float64(s.P50) / 1e6 })
}

func rssMB(r row) float64 {
	return r.median(func(s sample) float64 { return float64(max(s.RSS[0], s.RSS[1])) / 1e6 })
}

func peakMB(r row) float64 {
	return r.median(func(s sample) float64 { return float64(max(s.Peak[0], s.Peak[1])) / 1e6 })
}

// goals, in the order of the report.
var goals = []goal{
	{what: "req/s, P-256 keys, 64 clients", section: "core", limit: 1, least: true, unit: "× Caddy h2", rows: both("kontor %s"), clients: 64, of: ratio},
	{what: "req/s, P-256 keys, 256 clients", section: "core", limit: 1.3, least: true, unit: "× Caddy h2", rows: both("kontor %s"), clients: 256, of: ratio},
	{what: "the same, one signature per message, 64 clients", section: "keys", limit: .7, least: true, unit: "× Caddy h2", rows: both("kontor %s P-256 never batched"), clients: 64, of: ratio},
	{what: "the same, RSA-2048 keys, 64 clients", section: "keys", limit: .8, least: true, unit: "× Caddy h2", rows: both("kontor %s RSA-2048"), clients: 64, of: ratio},
	{what: "median latency, one client", section: "core", limit: 2, unit: "ms", rows: both("kontor %s"), clients: 1, of: p50ms},
	{what: "SOAP, 1 KB, 64 clients", section: "soap", limit: .85, least: true, unit: "× REST", rows: both("kontor %s SOAP"), clients: 64, of: ratio},
	{what: "an answer of 1 GB", section: "bodies", limit: .5, least: true, unit: "× Caddy h2", rows: both("kontor %s"), clients: 1, bytes: huge, of: ratio},
	{what: "peak memory of a gateway meanwhile", section: "bodies", limit: 100, unit: "MB", rows: both("kontor %s"), clients: 1, bytes: huge, of: peakMB},
	{what: "peak memory of a gateway, SOAP attachment of 1 GB", section: "bodies", limit: 100, unit: "MB", rows: both("kontor %s, SOAP attachment"), clients: 1, bytes: huge, of: peakMB},
	{what: "memory of an idle gateway", section: "start", limit: 40, unit: "MB", value: "idle_rss_mb", times: 1},
	{what: "memory of a gateway at 256 clients", section: "core", limit: 150, unit: "MB", rows: both("kontor %s"), clients: 256, of: rssMB},
	{what: "start of a gateway to the first exchange", section: "start", limit: 1000, unit: "ms", value: "gateway_start_ms", times: 1},
	{what: "start of a whole sandbox to the first exchange", section: "start", limit: 3000, unit: "ms", value: "sandbox_start_ms", times: 1},
	{what: "100,000 subsystems, 1,000 servers: a change published", section: "ecosystem", limit: 2, unit: "s", value: "LargeEcosystem/ChangeUntilPublished ns/op", times: 1e-9},
	{what: "the same, loaded by a gateway", section: "ecosystem", limit: 1, unit: "s", value: "LargeEcosystem/GatewayLoad ns/op", times: 1e-9},
	{what: "the same, look-ups of one exchange", section: "ecosystem", limit: 1, unit: "µs", value: "LargeEcosystem/Lookup ns/op", times: 1e-3},
	{what: "scan of a SOAP envelope of 10 KB", section: "ecosystem", limit: 5, unit: "µs", value: "ReadEnvelope/text ns/op", times: 1e-3},
}

// goalTable says which goals are met, as far as they have been measured.
func (r *report) goalTable() table {
	t := table{Header: []string{"what", "goal", "measured", "met", "commit"}}
	for _, g := range goals {
		f := r.Sections[g.section]
		if f == nil {
			continue
		}
		var names []string
		var values []float64
		if v, ok := f.Values[g.value]; ok {
			names, values = []string{""}, []float64{v * g.times}
		}
		for i, what := range g.rows {
			for _, v := range f.Rows {
				if v.What == what && v.Clients == g.clients && v.Bytes == g.bytes {
					names, values = append(names, transports[i]+" "), append(values, g.of(v))
				}
			}
		}
		if len(values) == 0 {
			continue
		}
		sign := map[bool]string{true: "≥", false: "≤"}[g.least]
		var measured, met []string
		for i, v := range values {
			measured = append(measured, names[i]+three(v))
			met = append(met, map[bool]string{true: "yes", false: "no"}[v >= g.limit == g.least || v == g.limit])
		}
		t.Rows = append(t.Rows, []string{g.what, fmt.Sprintf("%s %g %s", sign, g.limit, g.unit), strings.Join(measured, ", "), strings.Join(met, ", "), f.Machine.Commit})
	}
	return t
}
