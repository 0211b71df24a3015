// SPDX-License-Identifier: Apache-2.0

package serverconf

import (
	"cmp"
	"strings"
)

// Endpoint returns the endpoint of the service that a request belongs to, given
// its method and its raw path: of several the one whose pattern, and then whose
// method, comes last in the alphabet, which puts names before wildcards (X-Road
// 7.8 chooses so for its operational data).
func (s *Service) Endpoint(method, path string) (Endpoint, bool) {
	if len(s.Endpoints) == 0 {
		return Endpoint{}, false
	}
	path, err := NormalisePath(path)
	if err != nil {
		return Endpoint{}, false
	}
	var best *Endpoint
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		if e.Method != "*" && !strings.EqualFold(e.Method, method) || !s.globs[i].match(path) {
			continue
		}
		if best == nil || cmp.Or(cmp.Compare(e.Path, best.Path), cmp.Compare(e.Method, best.Method)) > 0 {
			best = e
		}
	}
	if best == nil {
		return Endpoint{}, false
	}
	return *best, true
}
