// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"strings"
	"testing"

	"kontor/gateway"
	"kontor/registry/id"
)

// take enters until a user is refused and returns how often it was not.
func take(s *gateway.Slots, user any, all *[]*gateway.Slot) (n int, err error) {
	for {
		t, err := s.Enter(user)
		if err != nil {
			return n, err
		}
		*all = append(*all, t)
		n++
	}
}

// TestSlots: one user cannot have everything, two that want everything end with
// the same share, and the modest are not refused.
func TestSlots(t *testing.T) {
	t.Parallel()
	s := gateway.NewSlots(90)
	var greedy, second, modest []*gateway.Slot
	n, err := take(s, "greedy", &greedy)
	if n != 72 || !strings.Contains(err.Error(), "72 exchanges of yours") {
		t.Errorf("alone: %d of 90, then %v", n, err)
	}
	for range 3 {
		x, err := s.Enter("modest")
		if err != nil {
			t.Fatal(err)
		}
		modest = append(modest, x)
	}
	// Each end of an exchange of the greedy is a chance for both.
	for range 500 {
		greedy[0].Leave()
		greedy = greedy[1:]
		if _, err := take(s, "second", &second); err == nil {
			t.Fatal("no end")
		}
		if _, err := take(s, "greedy", &greedy); err == nil {
			t.Fatal("no end")
		}
		if x, err := s.Enter("modest"); err != nil {
			t.Fatalf("the modest is refused beside %d and %d: %v", len(greedy), len(second), err)
		} else {
			x.Leave()
		}
	}
	if d := len(greedy) - len(second); d < -4 || d > 4 || len(greedy) < 35 {
		// four ninths of the 87 that the modest leaves
		t.Errorf("shares %d and %d", len(greedy), len(second))
	}
	for _, x := range append(append(greedy, second...), modest...) {
		x.Leave()
	}
	if total, users := s.Held(); total != 0 || users != 0 {
		t.Errorf("left: %d slots of %d users", total, users)
	}
}

// TestSlotsPass: who is known counts for itself, and a refusal leaves nothing
// behind.
func TestSlotsPass(t *testing.T) {
	t.Parallel()
	s := gateway.NewSlots(5)
	client := id.Client{}
	var passed []*gateway.Slot
	for range 4 {
		x, err := s.Enter("192.0.2.1")
		if err != nil {
			t.Fatal(err)
		}
		if err := x.Pass(client); err != nil {
			t.Fatal(err)
		}
		passed = append(passed, x)
	}
	x, err := s.Enter("192.0.2.1") // nobody is known there any more
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Enter("192.0.2.2"); err == nil || !strings.Contains(err.Error(), "at its limit of 5") {
		t.Errorf("full: %v", err)
	}
	if err := x.Pass(client); err == nil || !strings.Contains(err.Error(), "your share") {
		t.Errorf("beyond the share: %v", err)
	}
	x.Leave()
	for _, x := range passed {
		x.Leave()
	}
	if total, users := s.Held(); total != 0 || users != 0 {
		t.Errorf("left: %d slots of %d users", total, users)
	}
	x, err = gateway.NewSlots(1).Enter("a")
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Pass("b"); err != nil {
		t.Errorf("the only slot: %v", err)
	}
}

func BenchmarkSlots(b *testing.B) {
	s := gateway.NewSlots(1024)
	var user any = "192.0.2.1"
	b.ReportAllocs()
	for b.Loop() {
		x, err := s.Enter(user)
		if err != nil {
			b.Fatal(err)
		}
		x.Leave()
	}
}
