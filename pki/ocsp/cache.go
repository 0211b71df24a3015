// SPDX-License-Identifier: Apache-2.0

package ocsp

import (
	"crypto/x509"
	"sync"
	"time"

	"kontor/pki"
)

const (
	// cacheLifetime bounds how long a verdict is believed without a new look at
	// the response and at who is authorised to give it. X-Road's own limit.
	cacheLifetime = time.Minute
	// cacheSize bounds the memory that peers can make us use.
	cacheSize = 10_000
)

// Cache remembers verified responses by certificate, for a minute. It is safe
// for concurrent use.
type Cache struct {
	now func() time.Time

	mu      sync.RWMutex
	entries map[pki.CertHash]entry // guarded by mu
}

type entry struct {
	response *Response
	until    time.Time
}

// NewCache makes an empty cache; now is time.Now if nil.
func NewCache(now func() time.Time) *Cache {
	if now == nil {
		now = time.Now
	}
	return &Cache{now: now, entries: map[pki.CertHash]entry{}}
}

// Get returns the response for cert if it was put within the last minute and is
// current under p at the instant at.
func (c *Cache) Get(cert *x509.Certificate, p Policy, at time.Time) (*Response, bool) {
	c.mu.RLock()
	e, ok := c.entries[pki.HashOf(cert)]
	c.mu.RUnlock()
	if !ok || !c.now().Before(e.until) || p.check(e.response, at) != nil {
		return nil, false
	}
	return e.response, true
}

// Put remembers the response that Verify returned for cert.
func (c *Cache) Put(cert *x509.Certificate, r *Response) {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.entries) >= cacheSize {
		for h, e := range c.entries {
			if !now.Before(e.until) {
				delete(c.entries, h)
			}
		}
	}
	if len(c.entries) >= cacheSize {
		for h := range c.entries { // still full of current ones: any will do
			delete(c.entries, h)
			break
		}
	}
	c.entries[pki.HashOf(cert)] = entry{response: r, until: now.Add(cacheLifetime)}
}
