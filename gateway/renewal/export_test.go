// SPDX-License-Identifier: Apache-2.0

package renewal

import "context"

// Look does what is due, once, without asking the authority for anything.
func (s *Service) Look(ctx context.Context, token Token) error {
	for _, e := range s.entries {
		view := s.cfg.View()
		r := e.get()
		if r == nil {
			var err error
			if r, err = e.prepare(view); err != nil {
				return err
			}
		}
		e.look(ctx, r, view, token)
	}
	return nil
}
