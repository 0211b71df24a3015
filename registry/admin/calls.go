// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"

	"kontor/registry"
)

const (
	// maxCalls and callMemory bound how long a repeated call is recognised.
	maxCalls   = 10_000
	callMemory = 24 * time.Hour

	callPrefix = "call " // before a call's name in the journal
	halfName   = 32      // hex digits
)

// callName names a call in the journal and the audit log. With an idempotency
// key it says, in hashes, whose key was used for which content: the journal is
// then the durable memory of what was done.
func callName(who, key string, content []byte) string {
	if key == "" {
		return strings.ToLower(rand.Text())
	}
	return half([]byte(who+"\x00"+key)) + "-" + half(content)
}

func half(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])[:halfName]
}

// splitName is the opposite: empty for calls without idempotency key.
func splitName(name string) (key, content string) {
	key, content, ok := strings.Cut(name, "-")
	if !ok || len(key) != halfName || len(content) != halfName {
		return "", ""
	}
	return key, content
}

// calls remembers calls that were made with an idempotency key. It is read
// from the journal, so that it survives what the journal survives. It is not
// safe for concurrent use.
type calls struct {
	reg   *registry.Registry
	now   func() time.Time
	next  uint64 // first journal entry not read yet
	byKey map[string]*made
	order []string // keys, oldest first
}

// made is a call that was done.
type made struct {
	content string
	at      time.Time
	done    Done
}

func newCalls(reg *registry.Registry, now func() time.Time) *calls {
	next := uint64(1)
	if n := reg.State().Number(); n > maxCalls {
		next = n - maxCalls
	}
	return &calls{reg: reg, now: now, next: next, byKey: map[string]*made{}}
}

// find returns what was done by an earlier call with the key of that name.
func (c *calls) find(ctx context.Context, name string) (m *made, err error) {
	key, _ := splitName(name)
	if key == "" {
		return nil, nil
	}
	err = c.reg.Journal(ctx, c.next, func(e *registry.Entry) error {
		c.next = e.Number + 1
		if call, ok := strings.CutPrefix(e.Author.Request, callPrefix); ok {
			c.remember(call, e.Time, e.Number, e.Change.String())
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if m := c.byKey[key]; m != nil && c.now().Sub(m.at) < callMemory {
		return m, nil
	}
	return nil, nil
}

// remember notes what a call did; a call may do several things.
func (c *calls) remember(name string, at time.Time, entry uint64, changes ...string) {
	key, content := splitName(name)
	if key == "" {
		return
	}
	m := c.byKey[key]
	if m == nil || m.content != content {
		if m == nil {
			c.order = append(c.order, key)
		}
		m = &made{content: content, done: Done{Changes: []string{}}}
		c.byKey[key] = m
	}
	m.at, m.done.Entry = at, entry
	m.done.Changes = append(m.done.Changes, changes...)
	if len(c.order) > maxCalls {
		delete(c.byKey, c.order[0])
		c.order = c.order[1:]
	}
}
