// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"errors"
	"time"

	"kontor/gateway/message"
	"kontor/gateway/opmonitor"
	"kontor/registry/id"
)

// Slots are the shares of exchanges under way.
type Slots = slots

// Slot is one of them.
type Slot = slot

// NewSlots returns that many.
func NewSlots(limit int) *Slots { return newSlots(limit) }

// Enter takes one.
func (s *slots) Enter(user any) (*Slot, error) { return s.enter(user) }

// Held tells how many are taken, and by how many users.
func (s *slots) Held() (total, users int) { return s.total, len(s.held) }

// Pass gives it to another user.
func (t *slot) Pass(user any) error { return t.pass(user) }

// Leave gives it back.
func (t *slot) Leave() { t.leave() }

// Keeper returns what keeps a record of an exchange in a store.
func Keeper(s *opmonitor.Store, req *message.Request) func() {
	g := &Gateway{records: s}
	now := time.Now()
	x := &Exchange{Side: "server", Start: now, RequestOut: now, ResponseIn: now, ResponseOut: now, Status: 200, In: 17, Out: 18, own: "a", opposite: "b", response: new(message.Response)}
	x.note(req)
	return func() { g.keepRecord(x) }
}

// Count counts an exchange that went well, or one that failed before it was
// known whether its service exists.
func (m *Metrics) Count(side string, service id.Service, ok bool, took time.Duration) {
	x := &Exchange{Side: side, Service: service, builtin: ok}
	if !ok {
		x.Err = errors.New("failed")
	}
	m.exchange(x, took)
}
