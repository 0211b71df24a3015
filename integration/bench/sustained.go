// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"
	"time"

	"kontor/integration/bench/load"
	"kontor/integration/bench/process"
	"kontor/integration/bench/world"
)

// sustainedWindow is what one line of the sustained load covers.
const sustainedWindow = 10 * time.Second

// sustained keeps 64 clients busy for long, with every setting at its default.
func (b *bench) sustained() error {
	return b.with(nil, []world.PairConfig{{Name: "defaults", Algorithm: "EC-P256"}}, func(c *chains) error {
		return b.sustain(ofPair(c.world.Pairs[0], 64))
	})
}

func sustainedTakes(o options) time.Duration { return startCost + o.duration + 10*time.Second }

func (b *bench) sustain(s subject) error {
	type window struct {
		r     load.Result
		rss   [2]float64 // MB
		bytes [2]float64 // MB of the logs
	}
	var all []window
	look := func(w *window) error {
		for side, g := range s.pair.Gateways {
			u, err := g.Usage()
			if err != nil {
				return err
			}
			m, err := g.Metrics(b.ctx)
			if err != nil {
				return err
			}
			w.rss[side], w.bytes[side] = float64(u.RSS)/1e6, m["kontor_log_bytes"]/1e6
		}
		return nil
	}
	first, err := s.pair.Count(b.ctx)
	if err != nil {
		return err
	}
	var before window
	if err := look(&before); err != nil {
		return err
	}
	syncs0, err := b.syncs(s)
	if err != nil {
		return err
	}
	used, err := cpuOf(s.procs)
	if err != nil {
		return err
	}
	exchanges := 0
	var ids []string
	for end := time.Now().Add(b.duration); time.Now().Before(end); {
		var w window
		if w.r, err = load.Run(b.ctx, s.request, load.Options{Clients: s.clients, Length: min(sustainedWindow, max(time.Second, time.Until(end)))}); err != nil {
			return fmt.Errorf("%s after %d exchanges: %w", s.what, exchanges, s.failed(err))
		}
		if err := look(&w); err != nil {
			return err
		}
		exchanges += w.r.All
		ids = append(ids, w.r.IDs[0])
		all = append(all, w)
		b.say("%-14s %9.1f/s  p50 %-9s p99 %-9s max %-9s RSS %.0f / %.0f MB  logs %.0f / %.0f MB", s.what, w.r.Rate(), short(w.r.P50), short(w.r.P99), short(w.r.Max),
			w.rss[0], w.rss[1], w.bytes[0], w.bytes[1])
	}
	usedAfter, err := cpuOf(s.procs)
	if err != nil {
		return err
	}
	after, err := s.pair.Count(b.ctx)
	if err != nil {
		return err
	}
	if _, err := s.pair.Check(first, after, exchanges); err != nil {
		return err
	}
	syncs1, err := b.syncs(s)
	if err != nil {
		return err
	}
	step := max(1, len(ids)/maxVerified)
	var some []string
	for i := 0; i < len(ids); i += step {
		some = append(some, ids[i])
	}
	n, err := s.pair.Verify(b.ctx, some)
	if err != nil {
		return err
	}
	b.report.verified(n)

	var rates, p99s []float64
	worst, peak := time.Duration(0), [2]float64{}
	slow := 0
	for _, w := range all {
		rates, p99s = append(rates, w.r.Rate()), append(p99s, float64(w.r.P99))
		worst = max(worst, w.r.Max)
		for side := range peak {
			peak[side] = max(peak[side], w.rss[side])
		}
	}
	middle := median(rates)
	lowest := math.Inf(1)
	for _, r := range rates {
		lowest = min(lowest, r)
		if r < middle/2 {
			slow++
		}
	}
	last := all[len(all)-1]
	t := table{Title: fmt.Sprintf("%s, 64 clients for %s: %d exchanges", s.what, b.duration, exchanges), Header: []string{"what", "measured"}}
	line := func(what, format string, a ...any) {
		t.Rows = append(t.Rows, []string{what, fmt.Sprintf(format, a...)})
	}
	line("req/s, median of windows of 10 s", "%.0f", middle)
	line("req/s, first window, last, slowest", "%.0f, %.0f, %.0f", rates[0], rates[len(rates)-1], lowest)
	line("windows at less than half the median", "%d of %d", slow, len(all))
	line("p99, median of windows, worst", "%s, %s", short(time.Duration(median(p99s))), short(time.Duration(maxOf(p99s))))
	line("longest exchange", "%s", short(worst))
	line("CPU µs per exchange, both gateways", "%.0f", (usedAfter-used)/float64(exchanges))
	line("RSS MB at the end, highest", "%.0f / %.0f, %.0f / %.0f", last.rss[0], last.rss[1], peak[0], peak[1])
	line("message logs at the end", "%.0f / %.0f MB", last.bytes[0], last.bytes[1])
	line("growth of a log per exchange (two records)", "%.0f / %.0f bytes", (last.bytes[0]-before.bytes[0])*1e6/float64(exchanges), (last.bytes[1]-before.bytes[1])*1e6/float64(exchanges))
	for side, name := range sides {
		d := syncs1[side].minus(syncs0[side])
		line("flushes to disk, "+name, "%.0f, %.1f exchanges each; %.2f ms on average; %.0f longer than 51 ms, %.0f longer than 410 ms",
			d.count, float64(exchanges)/d.count, d.sum/d.count*1000, d.over51, d.over410)
		line("appends held up by the index, "+name, "%.1f s in all", d.stalled)
	}
	b.report.table(t)
	return nil
}

// syncs are the flushes of a message log; those that take long are stalls.
type syncs struct{ count, sum, over51, over410, stalled float64 }

func (s syncs) minus(o syncs) syncs {
	return syncs{s.count - o.count, s.sum - o.sum, s.over51 - o.over51, s.over410 - o.over410, s.stalled - o.stalled}
}

func (b *bench) syncs(s subject) (out [2]syncs, err error) {
	const name = "kontor_log_sync_seconds"
	for side, g := range s.pair.Gateways {
		m, err := g.Metrics(b.ctx)
		if err != nil {
			return out, err
		}
		count := m[name+"_count"]
		out[side] = syncs{count, m[name+"_sum"], count - m[name+`_bucket{le="0.0512"}`], count - m[name+`_bucket{le="0.4096"}`], m["kontor_log_stalled_seconds"]}
	}
	return out, nil
}

func maxOf(v []float64) float64 {
	m := v[0]
	for _, x := range v {
		m = max(m, x)
	}
	return m
}

// cpuOf is the CPU time in µs that programs have used.
func cpuOf(procs [2]*process.Process) (us float64, err error) {
	for _, p := range procs {
		u, err := p.Usage()
		if err != nil {
			return 0, err
		}
		us += float64(u.CPU.Microseconds())
	}
	return us, nil
}
