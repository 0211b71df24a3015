// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Count is how much a pair has done.
type Count struct {
	Records [2]int         // in the message logs
	Over    map[string]int // exchanges, by transport of the tunnel
}

// Count counts once all is time-stamped and nothing is under way. Measurements
// that follow are not disturbed by what this one has left to do.
func (p *Pair) Count(ctx context.Context) (Count, error) {
	ctx, cancel := context.WithTimeout(ctx, readyPatience)
	defer cancel()
	c := Count{Over: map[string]int{}}
	for side, g := range p.Gateways {
		for {
			m, err := g.Metrics(ctx)
			if err != nil {
				return c, fmt.Errorf("%s: %w", g.Name, err)
			}
			busy := 0.0
			for name, v := range m {
				if strings.HasPrefix(name, "kontor_exchanges_in_flight{") {
					busy += v
				}
			}
			if c.Records[side] = int(m["kontor_log_records"]); m["kontor_log_unstamped"] == 0 && busy == 0 {
				if side == 0 {
					for _, t := range transports {
						c.Over[t] = int(m[fmt.Sprintf(`kontor_tunnel_exchanges_total{side="client",transport=%q}`, t)])
					}
				}
				break
			}
			select {
			case <-ctx.Done():
				return c, fmt.Errorf("%s: %v records wait for a time-stamp, %v exchanges are under way: %w", g.Name, m["kontor_log_unstamped"], busy, ctx.Err())
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	return c, nil
}

// transports that tunnels have.
var transports = []string{"https", "quic"}

// Check compares what was done with how many exchanges succeeded: both sides log
// the request and the response of each, and all go over the transport that is
// measured. Over a line that loses packets some may not; elsewhere is how many.
func (p *Pair) Check(before, after Count, exchanges int) (elsewhere int, err error) {
	for side, g := range p.Gateways {
		if n := after.Records[side] - before.Records[side]; n != 2*exchanges {
			return 0, fmt.Errorf("%s logged %d records of %d exchanges, not 2 of each", g.Name, n, exchanges)
		}
	}
	if p.Transport == "" {
		return 0, nil
	}
	if elsewhere = exchanges - (after.Over[p.Transport] - before.Over[p.Transport]); elsewhere != 0 && !p.Lossy {
		return elsewhere, fmt.Errorf("%d of %d exchanges did not go over %s", elsewhere, exchanges, p.Transport)
	}
	return elsewhere, nil
}

// Verify exports the records of some exchanges from both gateways and has them
// judged by the offline verifier. It returns how many containers that were.
func (p *Pair) Verify(ctx context.Context, ids []string) (containers int, err error) {
	for _, id := range ids {
		for _, g := range p.Gateways {
			n, err := p.verify(ctx, g, id)
			if err != nil {
				return containers, fmt.Errorf("the evidence of %s in %s does not verify: %w", id, g.Name, err)
			}
			containers += n
		}
	}
	return containers, nil
}

func (p *Pair) verify(ctx context.Context, g *Gateway, id string) (int, error) {
	w := p.world
	zip := w.path("evidence.zip")
	defer os.Remove(zip)
	if err := w.kontor(ctx, "log", "export", "--config", g.Config, "--id", id, "--out", zip); err != nil {
		return 0, err
	}
	out, err := w.output(ctx, "kontor-verify", zip, "--anchor", w.Anchor(), "--conf", filepath.Join(g.Data, "globalconf"), "--output", "json")
	var result struct{ Reports []report }
	if e := json.Unmarshal(out, &result); e != nil {
		return 0, errors.Join(err, e)
	}
	seen := map[string]bool{}
	for _, r := range result.Reports {
		if problem := r.problem(id, p.NoBodies); problem != "" {
			return 0, fmt.Errorf("%s: %s: %w", r.File, problem, err)
		}
		seen[r.Direction] = true
	}
	if len(result.Reports) != 2 || !seen["request"] || !seen["response"] {
		return 0, fmt.Errorf("not one request and one response: %s", out)
	}
	if err != nil && !p.NoBodies {
		return 0, err
	}
	return len(result.Reports), nil
}

// report is what kontor-verify says of one container.
type report struct {
	Valid     bool
	File      string
	Direction string
	MessageID string    `json:"message_id"`
	Stamped   time.Time `json:"stamped"`
	Checks    []struct {
		Name  string
		OK    bool
		Error string
	}
}

// problem returns what is wrong with a container, empty if nothing. A log that
// keeps no bodies does not keep the whole head either, as in X-Road: its
// containers prove all but what message.xml said.
func (r report) problem(id string, noBodies bool) string {
	failed := false
	for _, c := range r.Checks {
		if c.OK {
			continue
		}
		if failed = true; !noBodies || c.Name != "digest of message.xml" {
			return c.Name + ": " + c.Error
		}
	}
	switch {
	case r.Valid == failed:
		return "the verdict contradicts the checks"
	case r.MessageID != id:
		return "it is of " + r.MessageID
	case r.Stamped.IsZero():
		return "it has no time-stamp"
	case len(r.Checks) == 0:
		return "nothing was checked"
	}
	return ""
}
