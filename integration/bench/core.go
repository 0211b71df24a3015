// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"time"

	"kontor/integration/bench/world"
)

// quick is the core comparison alone.
func (b *bench) quick() (err error) {
	transports, err := b.transports()
	if err != nil {
		return err
	}
	var pairs []world.PairConfig
	for _, t := range transports {
		pairs = append(pairs, pairOf(t, "EC-P256", t))
	}
	c, err := b.start([]string{referenceName}, pairs)
	defer func() { err = errors.Join(err, c.stop()) }()
	if err != nil {
		return err
	}
	subjects := []subject{ofReference(c.references[referenceName], 64)}
	for _, p := range c.world.Pairs {
		subjects = append(subjects, ofPair(p, 64))
	}
	rows, err := b.compare(subjects, b.rounds, max(b.length, 5*time.Second))
	if err != nil {
		return err
	}
	b.report.add("REST, 1 KB JSON, P-256 keys", rows)
	b.summary = nil
	for i := len(rows) - 1; i > 0; i-- {
		b.summary = append(b.summary, fmt.Sprintf("ratio %s c64 %.2f", c.world.Pairs[i-1].Name, rows[i].Ratio))
	}
	return nil
}
