// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"math"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

// X-Road's limits for administration APIs.
const (
	PerSecond = 20
	PerMinute = 600
)

// maxAddresses bounds the memory of a limit. Beyond it the addresses that
// have been quiet longest are forgotten.
const maxAddresses = 1 << 14

// Rate limits how often each address may call: PerSecond calls at once and in
// a second, PerMinute in a minute. It is safe for concurrent use.
type Rate struct {
	now func() time.Time

	mu        sync.Mutex
	addresses map[netip.Addr]*allowance
}

// allowance is what an address has left of both limits.
type allowance struct {
	second, minute float64
	at             time.Time
}

// NewRate returns a limit; a nil clock means time.Now.
func NewRate(now func() time.Time) *Rate {
	if now == nil {
		now = time.Now
	}
	return &Rate{now: now, addresses: map[netip.Addr]*allowance{}}
}

// Allow takes one call from an address, or says how long it has to wait.
func (r *Rate) Allow(remote string) (wait time.Duration, ok bool) {
	addr := caller(remote)
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.addresses[addr]
	if a == nil {
		if len(r.addresses) >= maxAddresses {
			r.forget(now)
		}
		a = &allowance{PerSecond, PerMinute, now}
		r.addresses[addr] = a
	}
	if passed := now.Sub(a.at).Seconds(); passed > 0 {
		a.second = math.Min(PerSecond, a.second+passed*PerSecond)
		a.minute = math.Min(PerMinute, a.minute+passed*PerMinute/60)
	}
	a.at = now
	if a.second >= 1 && a.minute >= 1 {
		a.second--
		a.minute--
		return 0, true
	}
	seconds := math.Max((1-a.second)/PerSecond, (1-a.minute)/(PerMinute/60))
	return time.Duration(seconds * float64(time.Second)), false
}

// forget removes the addresses whose allowance is full again, and half of the
// others if that is not enough.
func (r *Rate) forget(now time.Time) {
	for addr, a := range r.addresses {
		if now.Sub(a.at) > time.Minute {
			delete(r.addresses, addr)
		}
	}
	for addr := range r.addresses {
		if len(r.addresses) <= maxAddresses/2 {
			return
		}
		delete(r.addresses, addr)
	}
}

// caller is the address that is counted: of IPv6 the network, since a host has
// all of it.
func caller(remote string) netip.Addr {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	addr = addr.Unmap().WithZone("")
	if addr.Is6() {
		if p, err := addr.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return addr
}

// Limit refuses calls beyond the rate with 429 before anything of them is read.
func (r *Rate) Limit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		wait, ok := r.Allow(req.RemoteAddr)
		if ok {
			next.ServeHTTP(w, req)
			return
		}
		seconds := strconv.Itoa(int(math.Ceil(wait.Seconds())))
		w.Header().Set("Retry-After", seconds)
		WriteProblem(w, NewProblem(http.StatusTooManyRequests, CodeTooManyCalls,
			"more calls than "+strconv.Itoa(PerSecond)+" in a second or "+strconv.Itoa(PerMinute)+" in a minute came from this address",
			"repeat the call after "+seconds+" s"))
	})
}
