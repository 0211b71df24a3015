// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"kontor/integration/bench/load"
	"kontor/integration/bench/process"
)

// startUp measures how long it takes to the first exchange, and idle memory.
func (b *bench) startUp() error {
	var gateway, sandbox []float64
	var idle [2][]float64
	err := b.with(nil, p256()[:1], func(c *chains) error {
		p := c.world.Pairs[0]
		if err := b.sleep(3 * time.Second); err != nil {
			return err
		}
		for side, g := range p.Gateways {
			u, err := g.Usage()
			if err != nil {
				return err
			}
			idle[side] = append(idle[side], float64(u.RSS)/1e6)
		}
		for range b.rounds {
			g := p.Gateways[0]
			if err := g.Stop(); err != nil {
				return err
			}
			began := time.Now()
			if err := g.Start(); err != nil {
				return err
			}
			if err := b.firstExchange(g.Process, ofPair(p, 1).request); err != nil {
				return err
			}
			gateway = append(gateway, time.Since(began).Seconds()*1000)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for range b.rounds {
		took, err := b.sandbox()
		if err != nil {
			return err
		}
		sandbox = append(sandbox, took.Seconds()*1000)
	}
	b.report.table(table{Title: "Start-up and idle memory", Header: []string{"what", "measured"}, Rows: [][]string{
		{"gateway, from its start to the first exchange answered", fmt.Sprintf("%.0f ms", median(gateway))},
		{"whole sandbox, made from nothing, to the first exchange answered", fmt.Sprintf("%.0f ms", median(sandbox))},
		{"RSS of an idle gateway, consumer's / provider's", fmt.Sprintf("%.0f / %.0f MB", median(idle[0]), median(idle[1]))},
	}})
	b.report.now.Values = map[string]float64{"gateway_start_ms": median(gateway), "sandbox_start_ms": median(sandbox),
		"idle_rss_mb": max(median(idle[0]), median(idle[1]))}
	return nil
}

func startTakes(o options) time.Duration {
	return startCost + 3*time.Second + time.Duration(o.rounds)*6*time.Second
}

// firstExchange asks until it is answered.
func (b *bench) firstExchange(p *process.Process, q load.Request) error {
	var last error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		if _, last = load.Run(b.ctx, q, load.Options{Clients: 1, Length: time.Nanosecond}); last == nil {
			return nil
		}
		if err := errors.Join(b.ctx.Err(), p.Err()); err != nil {
			return err
		}
		time.Sleep(2 * time.Millisecond)
	}
	return fmt.Errorf("no exchange within 30 seconds: %w", last)
}

// sandbox makes a sandbox and asks its gateway.
func (b *bench) sandbox() (took time.Duration, err error) {
	dir, err := b.folder("sandbox")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	began := time.Now()
	p, err := process.Start(process.Spec{Name: "sandbox", Log: filepath.Join(b.dir, "sandbox.log"),
		Args: []string{filepath.Join(b.bin, "kontor"), "sandbox", "--dir", dir}})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, p.Stop()) }()
	var s struct {
		Gateways []struct{ Consumer string }
	}
	for {
		text, err := os.ReadFile(filepath.Join(dir, "sandbox.json"))
		if err == nil {
			if err := json.Unmarshal(text, &s); err != nil {
				return 0, err
			}
			break
		}
		if err := errors.Join(b.ctx.Err(), p.Err()); err != nil {
			return 0, err
		}
		time.Sleep(2 * time.Millisecond)
	}
	addr := strings.TrimPrefix(s.Gateways[0].Consumer, "http://")
	q := load.Request{Addr: addr, Contains: []byte("38001010001"),
		Head: []byte("GET /r1/SANDBOX/GOV/2002/population/persons/38001010001 HTTP/1.1\r\nHost: " + addr + "\r\nX-Road-Client: SANDBOX/GOV/1001/portal\r\n\r\n")}
	err = b.firstExchange(p, q)
	return time.Since(began), err
}

// sleep waits, unless the run is interrupted.
func (b *bench) sleep(d time.Duration) error {
	select {
	case <-b.ctx.Done():
		return b.ctx.Err()
	case <-time.After(d):
		return nil
	}
}
