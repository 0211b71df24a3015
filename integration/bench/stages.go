// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"kontor/integration/bench/load"
	"kontor/integration/bench/profile"
)

// profileLength is how long gateways are profiled.
const profileLength = 10 * time.Second

// sides of a chain.
var sides = [2]string{"consumer's", "provider's"}

// stages tells what a message costs by stage: CPU profiles of both gateways
// under load. The profiles stay beside the results.
func (b *bench) stages() error {
	return b.with(nil, p256(), func(c *chains) error {
		t := table{Title: fmt.Sprintf("CPU µs per exchange by stage, 64 clients, REST, 1 KB, from CPU profiles of %s", profileLength), Header: []string{"stage"}}
		columns := []map[string]float64{}
		var kernel []string
		for _, p := range c.world.Pairs {
			s := ofPair(p, 64)
			files := [2]string{}
			used, err := cpuOf(s.procs)
			if err != nil {
				return err
			}
			flushes, err := b.syncs(s)
			if err != nil {
				return err
			}
			var r load.Result
			var work errgroup.Group
			work.Go(func() (err error) {
				r, err = load.Run(b.ctx, s.request, load.Options{Clients: s.clients, Length: profileLength + 2*time.Second})
				return err
			})
			for side, g := range p.Gateways {
				files[side] = filepath.Join(b.cache, fmt.Sprintf("%s-%s.pprof", p.Name, []string{"consumer", "provider"}[side]))
				work.Go(func() error { return g.Profile(b.ctx, profileLength, files[side]) })
			}
			if err := work.Wait(); err != nil {
				return err
			}
			after, err := cpuOf(s.procs)
			if err != nil {
				return err
			}
			later, err := b.syncs(s)
			if err != nil {
				return err
			}
			for side := range later {
				d := later[side].minus(flushes[side])
				b.report.note("%s, %s gateway at %.0f exchanges/s: a flush of the message log takes %.2f ms on average and serves %.1f records.",
					p.Name, sides[side], r.Rate(), d.sum/d.count*1000, 2*float64(r.All)/d.count)
			}
			kernel = append(kernel, fmt.Sprintf("%.0f (%s)", (after-used)/float64(r.All), p.Name))
			for side, file := range files {
				sums, err := profile.ByStage(b.ctx, file)
				if err != nil {
					return err
				}
				column := map[string]float64{}
				for stage, d := range sums {
					column[stage] = float64(d.Microseconds()) / (r.Rate() * profileLength.Seconds())
					column["sum"] += column[stage]
				}
				columns = append(columns, column)
				t.Header = append(t.Header, p.Name+", "+sides[side])
			}
			b.say("profiled %s at %.0f/s", p.Name, r.Rate())
		}
		for _, stage := range append(profile.Stages(), "sum") {
			cells := []string{stage}
			for _, c := range columns {
				cells = append(cells, fmt.Sprintf("%.0f", c[stage]))
			}
			t.Rows = append(t.Rows, cells)
		}
		b.report.note("The kernel counts %s µs of CPU per exchange for both gateways together; profiles miss some of the time in system calls.", strings.Join(kernel, ", "))
		b.report.table(t)
		return nil
	})
}

func stagesTake(options) time.Duration { return startCost + 2*(profileLength+3*time.Second) }
