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
// a second, PerMinute in any minute. It is safe for concurrent use.
type Rate struct {
	now func() time.Time

	mu        sync.Mutex
	addresses map[netip.Addr]*allowance
}

// allowance is what an address has left: of the second as a bucket that fills
// again steadily, of the minute by the calls of each of its seconds.
type allowance struct {
	second float64
	at     time.Time
	calls  [60]uint8 // by second, the current one at at.Unix() % 60
	sum    int
}

// pass lets the time go on.
func (a *allowance) pass(now time.Time) {
	passed := now.Sub(a.at)
	if passed <= 0 {
		return // a clock set back opens nothing
	}
	a.second = math.Min(PerSecond, a.second+passed.Seconds()*PerSecond)
	if passed >= time.Minute {
		a.calls, a.sum = [60]uint8{}, 0
	} else {
		for s := a.at.Unix() + 1; s <= now.Unix(); s++ {
			a.sum -= int(a.calls[s%60])
			a.calls[s%60] = 0
		}
	}
	a.at = now
}

// wait is how long there is nothing left.
func (a *allowance) wait() time.Duration {
	var wait time.Duration
	if a.second < 1 {
		wait = time.Duration((1 - a.second) / PerSecond * float64(time.Second))
	}
	if a.sum >= PerMinute {
		for s := int64(1); s <= 60; s++ { // the oldest calls are forgotten first
			if a.calls[(a.at.Unix()+s)%60] > 0 {
				return max(wait, time.Unix(a.at.Unix()+s, 0).Sub(a.at))
			}
		}
	}
	return wait
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
		a = &allowance{second: PerSecond, at: now}
		r.addresses[addr] = a
	}
	a.pass(now)
	if wait := a.wait(); wait > 0 {
		return wait, false
	}
	a.second--
	a.calls[a.at.Unix()%60]++
	a.sum++
	return 0, true
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
