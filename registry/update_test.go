// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"kontor/registry"
)

// Changes that depend on the state see the state that they change: of many
// writers that each append to one description, none overwrites another.
func TestUpdateSeesWhatItChanges(t *testing.T) {
	t.Parallel()
	r := open(t, newDir(t), registry.Config{})
	var writers sync.WaitGroup
	for i := range 20 {
		writers.Go(func() {
			_, err := r.Update(t.Context(), author, func(s *registry.State) ([]registry.Change, error) {
				text := "x"
				for _, c := range s.MemberClasses() {
					if c.Code == "NEW" {
						text = c.Description + "x"
					}
				}
				return []registry.Change{&registry.SetMemberClass{Code: "NEW", Description: text}}, nil
			})
			if err != nil {
				t.Error(i, err)
			}
		})
	}
	writers.Wait()
	for _, c := range r.State().MemberClasses() {
		if c.Code == "NEW" && len(c.Description) != 20 {
			t.Errorf("%d of 20 updates survived", len(c.Description))
		}
	}
	before := r.State().Number()
	refused := errors.New("changed meanwhile")
	if _, err := r.Update(t.Context(), author, func(*registry.State) ([]registry.Change, error) { return nil, fmt.Errorf("no: %w", refused) }); !errors.Is(err, refused) {
		t.Error(err)
	}
	if r.State().Number() != before {
		t.Error("a refused update changed something")
	}
}
