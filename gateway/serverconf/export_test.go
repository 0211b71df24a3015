// SPDX-License-Identifier: Apache-2.0

package serverconf

import "time"

// Match tells whether a pattern is well formed and matches a path.
func Match(pattern, path string) (matches bool, err error) {
	g, err := compileGlob(pattern)
	if err != nil {
		return false, err
	}
	return g.match(path), nil
}

// RoundTrip reads a file; if it is acceptable, what is written of it must be so.
func RoundTrip(b []byte) error {
	m, err := decode(b)
	if err != nil {
		return nil
	}
	if _, err := compile(m, time.Now, nil); err != nil {
		return nil
	}
	if b, err = encode(m); err != nil {
		return err
	}
	if m, err = decode(b); err != nil {
		return err
	}
	_, err = compile(m, time.Now, nil)
	return err
}
