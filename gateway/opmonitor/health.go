// SPDX-License-Identifier: Apache-2.0

package opmonitor

import (
	"cmp"
	"math"
	"slices"
	"sync"
	"time"

	"kontor/registry/id"
)

// Health data are counted over a sliding period, in slots (X-Road:
// Operational Monitoring Protocol, section 3).
const (
	healthPeriod = 600 * time.Second
	healthSlot   = 10 * time.Second
	healthSlots  = int(healthPeriod/healthSlot) + 1

	// maxHealth bounds the services that are watched: anyone may ask for any
	// name, even a peer that is not authenticated. See forget for what gives way.
	maxHealth = 2000
)

// health counts the exchanges of each service since the store was opened.
type health struct {
	started time.Time

	mu       sync.Mutex
	services map[id.Service]*serviceHealth
}

type serviceHealth struct {
	kind                 string
	lastGood, lastFailed Number // ms since 1970
	slots                [healthSlots]healthCount
}

// healthCount is what happened in one slot of time.
type healthCount struct {
	slot                    int64 // which
	good, failed            int64
	duration, request, resp spread // of the good ones: ms, bytes, bytes
}

// spread tells how values are spread.
type spread struct {
	n           int64
	min, max    int64
	sum, square float64
}

func (s *spread) add(v int64) {
	if s.n == 0 || v < s.min {
		s.min = v
	}
	if s.n == 0 || v > s.max {
		s.max = v
	}
	s.n++
	s.sum += float64(v)
	s.square += float64(v) * float64(v)
}

func (s *spread) merge(o *spread) {
	if o.n == 0 {
		return
	}
	if s.n == 0 {
		*s = *o
		return
	}
	s.min, s.max = min(s.min, o.min), max(s.max, o.max)
	s.n += o.n
	s.sum += o.sum
	s.square += o.square
}

func (s *spread) mean() float64 {
	if s.n == 0 {
		return 0
	}
	return s.sum / float64(s.n)
}

// deviation returns the standard deviation of the sample.
func (s *spread) deviation() float64 {
	if s.n < 2 {
		return 0
	}
	n := float64(s.n)
	return math.Sqrt(max(0, (s.square-s.sum*s.sum/n)/(n-1)))
}

func newHealth(now time.Time) *health {
	return &health{started: now, services: map[id.Service]*serviceHealth{}}
}

func (h *health) add(r *Record, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.services[r.Service]
	if s == nil {
		if len(h.services) == maxHealth {
			h.forget()
		}
		s = new(serviceHealth)
		h.services[r.Service] = s
	}
	s.kind = r.ServiceType
	slot := now.UnixNano() / int64(healthSlot)
	c := &s.slots[slot%int64(healthSlots)]
	if c.slot != slot {
		*c = healthCount{slot: slot}
	}
	if !r.Succeeded {
		c.failed++
		s.lastFailed = r.ResponseOut
		return
	}
	c.good++
	s.lastGood = r.ResponseOut
	from, ok := r.RequestIn.Get()
	if to, done := r.ResponseOut.Get(); ok && done {
		c.duration.add(to - from)
	}
	if n, ok := r.RequestSize.Get(); ok {
		c.request.add(n)
	}
	if n, ok := r.ResponseSize.Get(); ok {
		c.resp.add(n)
	}
}

// forget drops the service that was quiet longest: of those that never had a
// successful exchange, which need not exist, if there are any.
func (h *health) forget() {
	var oldest id.Service
	var at Number
	worked := true
	for name, s := range h.services {
		t, w := max(s.lastGood, s.lastFailed), s.lastGood != 0
		if oldest.IsZero() || worked && !w || worked == w && t < at {
			oldest, at, worked = name, t, w
		}
	}
	delete(h.services, oldest)
}

// serviceReport is the health of one service.
type serviceReport struct {
	service              id.Service
	kind                 string
	lastGood, lastFailed Number
	period               healthCount
}

// report returns the health of all services, or of those of one provider, in
// the order of their names.
func (h *health) report(provider id.Client, now time.Time) []serviceReport {
	h.mu.Lock()
	defer h.mu.Unlock()
	current := now.UnixNano() / int64(healthSlot)
	var all []serviceReport
	for name, s := range h.services {
		if !provider.IsZero() && name.Owner() != provider {
			continue
		}
		r := serviceReport{service: name, kind: s.kind, lastGood: s.lastGood, lastFailed: s.lastFailed}
		for i := range s.slots {
			c := &s.slots[i]
			if current-c.slot >= int64(healthSlots) || c.slot > current {
				continue
			}
			r.period.good += c.good
			r.period.failed += c.failed
			r.period.duration.merge(&c.duration)
			r.period.request.merge(&c.request)
			r.period.resp.merge(&c.resp)
		}
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b serviceReport) int { return cmp.Compare(a.service.String(), b.service.String()) })
	return all
}
