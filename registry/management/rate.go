// SPDX-License-Identifier: Apache-2.0

package management

import (
	"net/netip"
	"sync"
	"time"
)

// maxAddresses bounds how many addresses are remembered.
const maxAddresses = 10_000

// rate allows each address so many calls in any minute. It is safe for
// concurrent use.
type rate struct {
	calls int
	now   func() time.Time
	mu    sync.Mutex
	last  map[netip.Prefix][]time.Time // the last calls, oldest first
}

func newRate(calls int, now func() time.Time) *rate {
	return &rate{calls: calls, now: now, last: map[netip.Prefix][]time.Time{}}
}

// allow counts a call from an address, or says how long it has to wait.
func (r *rate) allow(remote string) (wait time.Duration, ok bool) {
	key := addressOf(remote)
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	calls := r.last[key]
	if len(calls) == r.calls {
		if age := now.Sub(calls[0]); age >= 0 && age < time.Minute {
			return time.Minute - age, false
		}
		calls = append(calls[:0], calls[1:]...)
	}
	if len(calls) == 0 && len(r.last) >= maxAddresses {
		r.forget(now)
		if len(r.last) >= maxAddresses {
			return time.Minute, false
		}
	}
	r.last[key] = append(calls, now)
	return 0, true
}

// forget drops addresses that have been silent for a minute.
func (r *rate) forget(now time.Time) {
	for key, calls := range r.last {
		if now.Sub(calls[len(calls)-1]) >= time.Minute {
			delete(r.last, key)
		}
	}
}

// addressOf is the IP address, of IPv6 the network: one machine can use all of it.
func addressOf(remote string) netip.Prefix {
	a, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{} // all that are not IP share
	}
	ip := a.Addr().Unmap().WithZone("")
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.Prefix(bits) // the address has as many
	return p
}
