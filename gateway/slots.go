// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"net"
	"sync"

	"kontor/gateway/fault"
)

// generosity is how many slots one user may have for every slot that is free:
// whoever is alone gets four fifths of all, two that take what they can get
// four ninths each, three four thirteenths, and some stay free for the next.
const generosity = 4

// slots bound the exchanges under way on one side of the gateway and share them
// among those who want more than there are. Who asks too much is refused, not
// queued: a queue without end helps nobody. The rule is that of shared buffers
// in switches (Choudhury and Hahne, Dynamic Queue Length Thresholds, 1998):
// it needs no list of users, and what a greedy one may keep shrinks as soon as
// others come.
type slots struct {
	limit int

	mu    sync.Mutex
	total int
	held  map[any]int // by user; never 0
}

// slot is one exchange under way.
type slot struct {
	all  *slots
	user any
}

func newSlots(limit int) *slots { return &slots{limit: limit, held: map[any]int{}} }

// enter takes a slot for a user, who is a comparable value: an address, as long
// as nothing else is known.
func (s *slots) enter(user any) (*slot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.admit(user, s.total); err != nil {
		return nil, err
	}
	s.total++
	s.held[user]++
	return &slot{s, user}, nil
}

// admit refuses a user whose share is used up while others have a number of
// slots. s.mu is held.
func (s *slots) admit(user any, others int) error {
	switch held := s.held[user]; {
	case others >= s.limit:
		return fault.New(fault.ServiceUnavailable, "This security server is at its limit of %d exchanges at once", s.limit)
	case held >= generosity*(s.limit-others):
		return fault.New(fault.ServiceUnavailable,
			"This security server is busy and %d exchanges of yours are under way, which is your share of its limit of %d; the rest is for others", held, s.limit)
	}
	return nil
}

// pass gives the slot to another user, now that it is known who it is. If that
// user may not have it, it goes with leave as before.
func (t *slot) pass(user any) error {
	s := t.all
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.admit(user, s.total-1); err != nil {
		return err
	}
	s.drop(t.user)
	s.held[user]++
	t.user = user
	return nil
}

func (t *slot) leave() {
	s := t.all
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total--
	s.drop(t.user)
}

func (s *slots) drop(user any) {
	if s.held[user]--; s.held[user] == 0 {
		delete(s.held, user)
	}
}

// host returns the address without the port of whoever sent a request.
func host(remote string) string {
	if h, _, err := net.SplitHostPort(remote); err == nil {
		return h
	}
	return remote
}
