// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"kontor/integration/bench/load"
	"kontor/integration/bench/process"
	"kontor/integration/bench/reference"
	"kontor/integration/bench/world"
)

// subject is something that is measured: a chain, a request, a number of
// clients.
type subject struct {
	what      string
	request   load.Request
	clients   int
	bytes     int64               // of the body of each exchange; 0: of no interest
	procs     [2]*process.Process // both sides; nil: none
	pair      *world.Pair         // nil: not Kontor
	reference string              // what of the subject that it is compared with, for the same clients; empty: none
}

// sample is what one measurement gave.
type sample struct {
	Rate      float64       `json:"rate"` // exchanges per second
	P50       time.Duration `json:"p50_ns"`
	P99       time.Duration `json:"p99_ns"`
	Max       time.Duration `json:"max_ns"`
	CPU       float64       `json:"cpu_us"` // of both sides, per exchange
	MBps      float64       `json:"mb_per_s,omitempty"`
	RSS       [2]int64      `json:"rss"`  // bytes, both sides, after the load
	Peak      [2]int64      `json:"peak"` // during it
	Count     int           `json:"exchanges"`
	Elsewhere int           `json:"other_transport,omitempty"` // exchanges over another transport than the one measured
	Checks    int           `json:"records_checked,omitempty"` // in both message logs
}

// failed adds to an error that a program has ended, if one has.
func (s subject) failed(err error) error {
	for _, p := range s.procs {
		if p != nil {
			err = errors.Join(err, p.Err())
		}
	}
	return err
}

// warmUp comes before every measurement.
const warmUp = 500 * time.Millisecond

// measure loads a subject for a while.
func (b *bench) measure(s subject, length time.Duration) (sample, []string, error) {
	var out sample
	var before, after world.Count
	var err error
	if s.pair != nil {
		if before, err = s.pair.Count(b.ctx); err != nil {
			return out, nil, err
		}
	}
	var used [2]process.Usage
	warm := warmUp
	if length < 2*warmUp || s.bytes > 1<<20 {
		warm = 0
	}
	r, err := load.Run(b.ctx, s.request, load.Options{Clients: s.clients, Warm: warm, Length: length, Begin: func() (err error) {
		for i, p := range s.procs {
			if p != nil {
				if err = errors.Join(err, p.ResetPeak()); err == nil {
					used[i], err = p.Usage()
				}
			}
		}
		return err
	}})
	if err != nil {
		return out, nil, fmt.Errorf("%s, %d clients: %w", s.what, s.clients, s.failed(err))
	}
	out = sample{Rate: r.Rate(), P50: r.P50, P99: r.P99, Max: r.Max, Count: r.Exchanges, MBps: r.Rate() * float64(s.bytes) / 1e6}
	for i, p := range s.procs {
		if p == nil {
			continue
		}
		u, err := p.Usage()
		if err != nil {
			return out, nil, err
		}
		out.CPU += float64((u.CPU - used[i].CPU).Microseconds()) / float64(r.After)
		out.RSS[i], out.Peak[i] = u.RSS, u.Peak
	}
	if s.pair != nil {
		if after, err = s.pair.Count(b.ctx); err != nil {
			return out, nil, err
		}
		if out.Elsewhere, err = s.pair.Check(before, after, r.All); err != nil {
			return out, nil, err
		}
		out.Checks = 4 * r.All
	}
	return out, r.IDs, nil
}

// evidence names messages whose evidence is to be verified.
type evidence map[*world.Pair][]string

// compare measures subjects in turns and returns a row for each. From every
// round a message of every Kontor chain is taken; the evidence of these is
// verified at the end, on both sides.
func (b *bench) compare(subjects []subject, rounds int, length time.Duration) ([]row, error) {
	rows, messages, err := b.inTurns(subjects, rounds, length)
	if err != nil {
		return nil, err
	}
	return rows, b.verify(messages)
}

func (b *bench) inTurns(subjects []subject, rounds int, length time.Duration) ([]row, evidence, error) {
	rows := make([]row, len(subjects))
	messages := evidence{}
	for i, s := range subjects {
		rows[i] = row{What: s.what, Clients: s.clients, Bytes: s.bytes, Reference: s.reference}
	}
	for r := range rounds {
		for i, s := range subjects {
			v, ids, err := b.measure(s, length)
			if err != nil {
				return nil, nil, err
			}
			rows[i].Samples = append(rows[i].Samples, v)
			if len(ids) > 0 {
				messages[s.pair] = append(messages[s.pair], ids[rand.IntN(len(ids))])
			}
			b.say("round %d/%d  %-34s %4d clients %9.1f/s  p50 %-9s p99 %-9s %6.0f µs CPU%s", r+1, rounds, s.what, s.clients, v.Rate,
				short(v.P50), short(v.P99), v.CPU, megabytes(v.MBps))
		}
	}
	for i := range rows {
		rows[i].compareWith(rows)
		elsewhere, count := 0, 0
		for _, v := range rows[i].Samples {
			elsewhere, count = elsewhere+v.Elsewhere, count+v.Count
		}
		if elsewhere > 0 {
			b.report.note("%s, %d clients: %d of %d exchanges fell back to the other transport.", rows[i].What, rows[i].Clients, elsewhere, count)
		}
	}
	return rows, messages, nil
}

func (b *bench) verify(messages evidence) error {
	for pair, ids := range messages {
		slices.Sort(ids)
		ids = slices.Compact(ids)
		n, err := pair.Verify(b.ctx, ids[:min(len(ids), maxVerified)])
		if err != nil {
			return err
		}
		b.report.verified(n)
		b.say("verified %d containers of %s, of both sides", n, pair.Name)
	}
	return nil
}

// maxVerified bounds how many messages of one chain are verified.
const maxVerified = 8

func short(d time.Duration) string {
	if d < 100*time.Millisecond {
		return fmt.Sprintf("%.2fms", float64(d)/1e6)
	}
	return d.Round(time.Millisecond).String()
}

func megabytes(rate float64) string {
	if rate == 0 {
		return ""
	}
	return "  " + three(rate) + " MB/s"
}

// ofReference makes a subject of a reference chain.
func ofReference(c *reference.Chain, clients int) subject {
	return subject{what: c.Name, clients: clients, procs: c.Procs, request: load.Get(c.Addr, "/rest", "", 1024), reference: referenceName}
}

// referenceName is the chain that everything is compared with.
const referenceName = "caddy h2"

// ofPair makes a subject of a Kontor chain.
func ofPair(p *world.Pair, clients int) subject {
	return subject{what: "kontor " + p.Name, clients: clients, procs: [2]*process.Process{p.Gateways[0].Process, p.Gateways[1].Process}, pair: p,
		request: load.Get(p.Addr(), "/r1/"+p.REST, "X-Road-Client: "+p.Client+"\r\n", 1024), reference: referenceName}
}
