// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// goBenchmarks are measured in-process by benchmarks of the packages. Each
// metric is a line of the report.
var goBenchmarks = []struct {
	pkg, bench string
	times      string // benchtime
	lines      []goBenchmark
}{
	{"./registry", "BenchmarkLargeEcosystem", "3x", []goBenchmark{
		{"LargeEcosystem/ChangeUntilPublished", "ns/op", "one change, until it is published"},
		{"LargeEcosystem/Apply", "ns/op", "one change, until it is durable"},
		{"LargeEcosystem/Open", "ns/op", "registry, from its start until it holds the state"},
		{"LargeEcosystem/GatewayLoad", "ns/op", "gateway, first load: download, verification, index, disk"},
		{"LargeEcosystem/GatewayChange", "ns/op", "gateway, load of one change"},
		{"LargeEcosystem/Memory", "gateway-MB", "memory of the configuration in a gateway"},
		{"LargeEcosystem/Memory", "registry-MB", "memory of the state in the registry"},
	}},
	{"./registry", "BenchmarkLargeEcosystem/Lookup", "100000x", []goBenchmark{
		{"LargeEcosystem/Lookup", "ns/op", "look-ups of one exchange: providers of a client, its registration, the server of a certificate"},
	}},
	{"./gateway/message", "BenchmarkReadEnvelope", "20000x", []goBenchmark{
		{"ReadEnvelope/text", "ns/op", "scan of a SOAP envelope of 10 KB: one long text"},
		{"ReadEnvelope/rows", "ns/op", "the same: rows of a table"},
		{"ReadEnvelope/dense", "ns/op", "the same: nothing but short elements"},
	}},
}

type goBenchmark struct{ name, unit, what string }

// ecosystem measures a large ecosystem: 5,000 members, 100,000 subsystems,
// 1,000 servers; and what else is measured without processes.
func (b *bench) ecosystem() error {
	t := table{Title: "5,000 members, 100,000 subsystems, 1,000 servers; scan of envelopes", Header: []string{"what", "measured"}}
	values := map[string]float64{}
	for _, g := range goBenchmarks {
		b.say("go test %s -bench %s", g.pkg, g.bench)
		// -bench is a pattern for each level of names.
		pattern := "^" + strings.ReplaceAll(g.bench, "/", "$/^") + "$"
		cmd := exec.CommandContext(b.ctx, "go", "test", g.pkg, "-run", "^$", "-bench", pattern, "-benchtime", g.times, "-timeout", "10m")
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", cmd, err, out)
		}
		found, err := parseBenchmarks(out)
		if err != nil {
			return err
		}
		for _, l := range g.lines {
			v, ok := found[l.name+" "+l.unit]
			if !ok {
				return fmt.Errorf("%s %s has not measured %s of %s, only %v", g.pkg, g.bench, l.unit, l.name, slices.Sorted(maps.Keys(found)))
			}
			text := fmt.Sprintf("%.0f %s", v, l.unit[max(0, len(l.unit)-2):])
			if l.unit == "ns/op" {
				text = time.Duration(v).Round(max(1, time.Duration(v)/1000)).String()
			}
			t.Rows = append(t.Rows, []string{l.what, text})
			values[l.name+" "+l.unit] = v
		}
	}
	b.report.table(t)
	b.report.now.Values = values
	return nil
}

func ecosystemTakes(options) time.Duration { return 90 * time.Second }

// parseBenchmarks reads what go test -bench prints: per line a name, a count,
// and pairs of value and unit. The keys of the result are name and unit.
func parseBenchmarks(out []byte) (map[string]float64, error) {
	found := map[string]float64{}
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		f := strings.Fields(s.Text())
		if len(f) < 4 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		name := strings.TrimPrefix(f[0], "Benchmark")
		if i := strings.LastIndexByte(name, '-'); i > 0 {
			name = name[:i] // the number of CPUs
		}
		for i := 2; i+1 < len(f); i += 2 {
			v, err := strconv.ParseFloat(f[i], 64)
			if err != nil {
				return nil, fmt.Errorf("benchmark line %q: %w", s.Text(), err)
			}
			found[name+" "+f[i+1]] = v
		}
	}
	return found, nil
}
