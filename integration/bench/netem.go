// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"path/filepath"
	"time"

	"kontor/integration/bench/network"
	"kontor/integration/bench/process"
	"kontor/integration/bench/reference"
	"kontor/integration/bench/world"
)

const (
	netemRounds = 3
	netemBody   = 10 << 20
)

// netem compares tunnels over a line with delay and loss.
func (b *bench) netem() (err error) {
	n, err := network.Start(b.ctx, b.dir, []string{b.self, "relay"})
	if errors.Is(err, network.ErrImpossible) {
		b.say("skipped: %v", err)
		b.report.note("Not measured: %v.", err)
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Stop()) }()
	backend := network.Ours(1) + ":8000"
	service, err := process.Start(process.Spec{Name: "service", Args: []string{b.self, "serve", backend}, Log: filepath.Join(b.dir, "service-netem.log")})
	if err != nil {
		return err
	}
	c := &chains{references: map[string]*reference.Chain{}}
	defer func() { err = errors.Join(err, c.stop(), service.Stop()) }()
	if err := b.startBehind(n, backend, c); err != nil {
		return err
	}
	b.report.note("Round trip %d ms, %g %% of packets lost in each direction, TCP with cubic; the line is made by %s. Ratios are to Caddy over the same line.",
		2*network.Delay.Milliseconds(), network.Loss*100, n.Kind)

	var rows []row
	for _, clients := range []int{1, 16, 64} {
		more, err := b.compare(c.subjects(clients), min(b.rounds, netemRounds), b.length)
		if err != nil {
			return err
		}
		rows = append(rows, more...)
	}
	b.report.add("REST, 1 KB JSON, P-256 keys, over the bad line", rows)
	var large []subject
	for _, s := range c.subjects(1) {
		large = append(large, s.carries(down, netemBody))
	}
	rows, err = b.compare(large, 1, time.Millisecond)
	if err != nil {
		return err
	}
	b.report.add("REST, answers of 10 MB, over the bad line", rows)
	return nil
}

func netemTakes(o options) time.Duration {
	return 2*startCost + time.Duration(12*min(o.rounds, netemRounds))*sampleCost(o.length) + 2*time.Minute
}

// startBehind starts chains with the bad line in their middle.
func (b *bench) startBehind(n *network.Network, backend string, c *chains) error {
	for i, name := range []string{"caddy h2", "caddy h3"} {
		dir, err := b.folder(name)
		if err != nil {
			return err
		}
		r, err := b.startReference(name, reference.Config{Dir: dir, IP: [2]string{network.Lan(0, 10+i), network.Wan(1, 10+i)}, Backend: backend, NetNS: n.Name, Env: n.Env})
		if err != nil {
			return err
		}
		c.references[name], c.order = r, append(c.order, name)
	}
	pairs := p256()
	for i := range pairs {
		pairs[i].IP = [2]string{network.Wan(0, 12+i), network.Wan(1, 12+i)}
		pairs[i].Control = [2]string{network.Lan(0, 12+i), network.Lan(1, 12+i)}
		pairs[i].NetNS = n.Name
		pairs[i].Lossy = true
	}
	dir, err := b.folder("kontor")
	if err != nil {
		return err
	}
	c.world, err = world.Start(b.ctx, world.Config{Bin: b.bin, Dir: dir, Registry: network.Ours(0), Trust: network.Ours(0), Backend: backend, Env: n.Env, Pairs: pairs})
	return err
}
