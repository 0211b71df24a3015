// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"kontor/integration/bench/load"
	"kontor/integration/bench/world"
)

// sampleCost is how long a measurement takes with what belongs to it: warming
// up and, for Kontor, waiting until all is time-stamped.
func sampleCost(length time.Duration) time.Duration { return length + warmUp + 700*time.Millisecond }

const startCost = 8 * time.Second

// counts are the numbers of clients.
var counts = []int{1, 16, 64, 256}

// quick is the comparison that matters most, alone.
func (b *bench) quick() error {
	return b.with([]string{referenceName}, p256(), func(c *chains) error {
		subjects := []subject{ofReference(c.references[referenceName], 64)}
		for _, p := range c.world.Pairs {
			subjects = append(subjects, ofPair(p, 64))
		}
		rows, err := b.compare(subjects, b.rounds, quickLength(b.options))
		if err != nil {
			return err
		}
		b.report.add("REST, 1 KB JSON, P-256 keys", rows)
		for i, p := range slices.Backward(c.world.Pairs) {
			b.summary = append(b.summary, fmt.Sprintf("ratio %s c64 %.2f", p.Transport, rows[1+i].Ratio))
		}
		return nil
	})
}

func quickLength(o options) time.Duration { return 2 * o.length }

func quickTakes(o options) time.Duration {
	return startCost + time.Duration(3*o.rounds)*sampleCost(quickLength(o))
}

// transports of tunnels.
var transports = []string{"https", "quic"}

// p256 are the pairs of the core comparison.
func p256() []world.PairConfig {
	var pairs []world.PairConfig
	for _, t := range transports {
		pairs = append(pairs, world.PairConfig{Name: t, Algorithm: "EC-P256", Transport: t})
	}
	return pairs
}

// core compares all chains at 64 clients, and the most important ones at other
// numbers.
func (b *bench) core() error {
	return b.with([]string{"caddy h2", "caddy h3", "nginx h1", "go h2"}, p256(), func(c *chains) error {
		var rows []row
		for _, n := range counts {
			var subjects []subject
			if n == 64 {
				subjects = append(subjects, subject{what: "no proxy", clients: n, request: load.Get(backendAt, "/rest", "", 1024)})
			}
			for _, name := range c.order {
				if n == 64 || name == referenceName {
					subjects = append(subjects, ofReference(c.references[name], n))
				}
			}
			for _, p := range c.world.Pairs {
				subjects = append(subjects, ofPair(p, n))
			}
			more, err := b.compare(subjects, b.rounds, b.length)
			if err != nil {
				return err
			}
			rows = append(rows, more...)
		}
		b.report.add("REST, 1 KB JSON, P-256 keys", rows)
		return nil
	})
}

func coreTakes(o options) time.Duration {
	return 2*startCost + time.Duration(16*o.rounds)*sampleCost(o.length)
}

// keys compares signing keys, and signatures of one message each.
func (b *bench) keys() error {
	var pairs []world.PairConfig
	for _, t := range transports {
		for _, a := range []string{"RSA-2048", "RSA-3072"} {
			pairs = append(pairs, world.PairConfig{Name: t + " " + a, Algorithm: a, Transport: t})
		}
		pairs = append(pairs, world.PairConfig{Name: t + " P-256 never batched", Algorithm: "EC-P256", Transport: t, Batch: "never"})
	}
	return b.with([]string{referenceName}, pairs, func(c *chains) error {
		var rows []row
		for _, n := range counts {
			subjects := []subject{ofReference(c.references[referenceName], n)}
			for _, p := range c.world.Pairs {
				if n == 64 || p.Batch == "" {
					subjects = append(subjects, ofPair(p, n))
				}
			}
			more, err := b.compare(subjects, keysRounds(b.options, n), keysLength(b.options))
			if err != nil {
				return err
			}
			rows = append(rows, more...)
		}
		b.report.add("REST, 1 KB JSON, by signing key", rows)
		return nil
	})
}

func keysLength(o options) time.Duration { return o.length / 2 }

// keysRounds are fewer where no goal stands.
func keysRounds(o options, clients int) int {
	if clients == 64 {
		return o.rounds
	}
	return min(o.rounds, 3)
}

func keysTake(o options) time.Duration {
	return 2*startCost + time.Duration(7*keysRounds(o, 64)+3*5*keysRounds(o, 1))*sampleCost(keysLength(o))
}

// soap compares SOAP with REST, at 64 clients: with questions of REST that have
// no body, and with those that carry as many bytes as SOAP's.
func (b *bench) soap() error {
	return b.with(nil, p256(), func(c *chains) error {
		var subjects []subject
		for _, p := range c.world.Pairs {
			rest, soap := ofPair(p, 64), ofPair(p, 64)
			rest.what, rest.reference = rest.what+" REST", ""
			soap.what, soap.reference = soap.what+" SOAP", rest.what
			soap.request = load.SOAP(p.Addr(), p.Client, p.SOAP, 0)
			both := ofPair(p, 64)
			both.what, both.reference = both.what+" REST both ways", rest.what
			question := soap.request.Head[bytes.Index(soap.request.Head, []byte("\r\n\r\n"))+4:]
			both.request = load.Exchange(p.Addr(), "/r1/"+p.REST, "X-Road-Client: "+p.Client+"\r\n", int64(len(question)), 1024)
			subjects = append(subjects, rest, both, soap)
		}
		rows, err := b.compare(subjects, b.rounds, soapLength(b.options))
		if err != nil {
			return err
		}
		b.report.add("1 KB answers by SOAP, in relation to REST over the same tunnels", rows)
		for i := 0; i < len(rows); i += 3 {
			soap := rows[i+2]
			soap.Reference = rows[i+1].What
			soap.compareWith(rows)
			b.report.note("%s: %.2f times the exchanges of REST that carries as many bytes both ways.", soap.What, soap.Ratio)
		}
		return nil
	})
}

// soapLength is a little less than that of others: there are more subjects.
func soapLength(o options) time.Duration { return o.length * 5 / 6 }

func soapTakes(o options) time.Duration {
	return startCost + time.Duration(6*o.rounds)*sampleCost(soapLength(o))
}

// with starts chains, uses and stops them.
func (b *bench) with(references []string, pairs []world.PairConfig, use func(*chains) error) (err error) {
	c, err := b.start(references, pairs)
	defer func() { err = errors.Join(err, c.stop()) }()
	if err != nil {
		return err
	}
	return use(c)
}
