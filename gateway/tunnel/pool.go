// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"slices"
	"sync"
	"time"

	"kontor/pki"
)

// poolKey names connections that can stand for each other.
type poolKey struct {
	address  string
	identity pki.CertHash // of the certificate that we presented
}

// pool keeps idle connections, the latest used first.
type pool struct {
	timeout time.Duration

	mu     sync.Mutex
	closed bool
	idle   map[poolKey][]*h1
}

// get takes an idle connection that the peer has not closed, and that was used
// after some time, or returns nil.
func (p *pool) get(key poolKey, after time.Time) session {
	for {
		c := p.take(key, after)
		if c == nil {
			return nil
		}
		if c.alive() {
			return c
		}
		c.discard()
	}
}

func (p *pool) take(key poolKey, after time.Time) *h1 {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.idle[key]
	if len(list) == 0 {
		return nil
	}
	last := len(list) - 1
	c := list[last]
	if !after.IsZero() && c.used.Before(after) {
		return nil
	}
	list[last] = nil
	p.set(key, list[:last])
	c.reaper.Stop()
	return c
}

func (p *pool) set(key poolKey, list []*h1) {
	if len(list) == 0 {
		delete(p.idle, key)
		return
	}
	p.idle[key] = list
}

// put gives a connection back after an exchange.
func (p *pool) put(c *h1) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.idle[c.key]) >= maxIdle {
		c.discard()
		return
	}
	if p.idle == nil {
		p.idle = map[poolKey][]*h1{}
	}
	c.used = time.Now()
	p.idle[c.key] = append(p.idle[c.key], c)
	if c.reaper == nil {
		c.reaper = time.AfterFunc(p.timeout, func() { p.reap(c) })
	} else {
		c.reaper.Reset(p.timeout)
	}
}

// reap closes a connection that nobody has used for too long.
func (p *pool) reap(c *h1) {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.idle[c.key]
	i := slices.Index(list, c)
	if i < 0 {
		return // taken just now
	}
	p.set(c.key, slices.Delete(list, i, i+1))
	c.discard()
}

func (p *pool) isClosed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, list := range p.idle {
		for _, c := range list {
			c.reaper.Stop()
			c.discard()
		}
	}
	p.idle = nil
}
