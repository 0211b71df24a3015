// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"slices"
	"sync"
	"time"
)

// Pool keeps idle connections, the latest used first. K names connections that
// can stand for each other. It is safe for concurrent use; its fields are set
// before the first.
type Pool[K comparable] struct {
	Timeout time.Duration // of an idle connection; it must be set
	Most    int           // idle connections of one key; it must be set

	mu     sync.Mutex
	closed bool
	idle   map[K][]*Conn
}

// Add has a new connection return to the pool after each exchange.
func (p *Pool[K]) Add(key K, c *Conn) {
	c.keep = func() { p.put(key, c) }
	c.reap = func() { p.reap(key, c) }
}

// Get takes an idle connection that the server has not closed, and that was used
// after some time, or returns nil.
func (p *Pool[K]) Get(key K, after time.Time) *Conn {
	for {
		c := p.take(key, after)
		if c == nil || c.alive() {
			return c
		}
		c.Discard()
	}
}

func (p *Pool[K]) take(key K, after time.Time) *Conn {
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

func (p *Pool[K]) set(key K, list []*Conn) {
	if len(list) == 0 {
		delete(p.idle, key)
		return
	}
	p.idle[key] = list
}

// put gives a connection back after an exchange.
func (p *Pool[K]) put(key K, c *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.idle[key]) >= p.Most {
		c.Discard()
		return
	}
	if p.idle == nil {
		p.idle = map[K][]*Conn{}
	}
	c.used = time.Now()
	p.idle[key] = append(p.idle[key], c)
	if c.reaper == nil {
		c.reaper = time.AfterFunc(p.Timeout, c.reap)
	} else {
		c.reaper.Reset(p.Timeout)
	}
}

// reap closes a connection that nobody has used for too long.
func (p *Pool[K]) reap(key K, c *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.idle[key]
	i := slices.Index(list, c)
	if i < 0 {
		return // taken just now
	}
	p.set(key, slices.Delete(list, i, i+1))
	c.Discard()
}

// Closed tells whether Close was called.
func (p *Pool[K]) Closed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

// Idle counts the idle connections.
func (p *Pool[K]) Idle() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, list := range p.idle {
		n += len(list)
	}
	return n
}

// Close closes the idle connections; those in use close when their exchange
// ends.
func (p *Pool[K]) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, list := range p.idle {
		for _, c := range list {
			c.reaper.Stop()
			c.Discard()
		}
	}
	p.idle = nil
}
