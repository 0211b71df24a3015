// SPDX-License-Identifier: Apache-2.0

package postgres

import "time"

// ResolveFor shortens how long Append tries to learn the fate of a commit.
func (s *Store) ResolveFor(d time.Duration) { s.resolveFor = d }
