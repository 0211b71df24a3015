// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"syscall"
	"time"

	"kontor/integration/bench/load"
)

// bodySizes are measured at so many clients.
var bodySizes = []struct {
	name    string
	bytes   int64
	clients int
}{{"1 KB", 1 << 10, 16}, {"100 KB", 100 << 10, 16}, {"10 MB", 10 << 20, 4}}

const (
	huge       = 1 << 30
	bodyRounds = 3
	hugeRounds = 2
	hugeDisk   = 16 << 30 // free space that a round of huge bodies needs, with reserve
)

// bodies compares sizes of bodies, with and without them in the message log.
func (b *bench) bodies() error {
	pairs := p256()
	for _, p := range p256() {
		p.Name, p.NoBodies = p.Name+" bodies not logged", true
		pairs = append(pairs, p)
	}
	references := []string{"caddy h2", "caddy h3"}
	err := b.with(references, pairs, func(c *chains) error {
		for _, size := range bodySizes {
			var subjects []subject
			for _, s := range c.subjects(size.clients) {
				subjects = append(subjects, s.carries(down, size.bytes))
			}
			rows, err := b.compare(subjects, min(b.rounds, bodyRounds), b.length)
			if err != nil {
				return err
			}
			b.report.add("REST, answers of "+size.name, rows)
		}
		return nil
	})
	if err != nil {
		return err
	}

	// Huge bodies fill the disk: every round has an ecosystem of its own.
	var down1, up1 []row
	for r := range min(b.rounds, hugeRounds) {
		if free, err := freeSpace(b.dir); err != nil {
			return err
		} else if free < hugeDisk {
			b.say("bodies of 1 GB need %d GB on the disk, %d GB are free; skipped", hugeDisk>>30, free>>30)
			b.report.note("Round %d of bodies of 1 GB was left out: %d GB free on the disk, %d GB needed.", r+1, free>>30, hugeDisk>>30)
			break
		}
		b.say("1 GB, round %d of %d", r+1, min(b.rounds, hugeRounds))
		err := b.with(references, pairs, func(c *chains) error {
			var downs, ups []subject
			for _, s := range c.subjects(1) {
				downs = append(downs, s.carries(down, huge))
				if s.pair == nil || !s.pair.NoBodies {
					ups = append(ups, s.carries(up, huge))
				}
			}
			for _, p := range c.world.Pairs {
				if !p.NoBodies {
					s := ofPair(p, 1)
					s.what, s.reference, s.bytes, s.request = s.what+", SOAP attachment", s.reference+sent, huge, load.SOAP(p.Addr(), p.Client, p.SOAP, huge)
					ups = append(ups, s)
				}
			}
			for _, part := range []struct {
				subjects []subject
				rows     *[]row
			}{{downs, &down1}, {ups, &up1}} {
				rows, messages, err := b.inTurns(part.subjects, 1, time.Millisecond)
				if err == nil && r == 0 { // it takes as long as the exchanges
					err = b.verify(messages)
				}
				if err != nil {
					return err
				}
				*part.rows = merge(*part.rows, rows)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if len(down1) > 0 {
		b.report.add("REST, answers of 1 GB", down1)
		b.report.add("Requests of 1 GB", up1)
	}
	return nil
}

func bodiesTake(o options) time.Duration {
	return 2*startCost + time.Duration(18*min(o.rounds, bodyRounds))*sampleCost(o.length) + time.Duration(min(o.rounds, hugeRounds))*(startCost+100*time.Second)
}

// Directions of a body.
const (
	down = "answer"
	up   = "request"
	sent = ", " + up // behind the names of subjects that send
)

// carries returns a subject with another body.
func (s subject) carries(direction string, bytes int64) subject {
	prefix, header := "/rest", ""
	if s.pair != nil {
		prefix, header = "/r1/"+s.pair.REST, "X-Road-Client: "+s.pair.Client+"\r\n"
	}
	s.bytes = bytes
	s.request = load.Get(s.request.Addr, prefix, header, bytes)
	if direction == up {
		s.what, s.reference = s.what+sent, s.reference+sent
		s.request = load.Post(s.request.Addr, prefix, header, bytes)
	}
	return s
}

// subjects are all chains, references first.
func (c *chains) subjects(clients int) []subject {
	var all []subject
	for _, name := range c.order {
		all = append(all, ofReference(c.references[name], clients))
	}
	for _, p := range c.world.Pairs {
		all = append(all, ofPair(p, clients))
	}
	return all
}

// merge adds the samples of a later round.
func merge(rows, more []row) []row {
	if rows == nil {
		return more
	}
	for i := range rows {
		rows[i].Samples = append(rows[i].Samples, more[i].Samples...)
	}
	for i := range rows {
		rows[i].compareWith(rows)
	}
	return rows
}

func freeSpace(dir string) (int64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, fmt.Errorf("%s: %w", dir, err)
	}
	return int64(s.Bavail) * int64(s.Bsize), nil
}
