// SPDX-License-Identifier: Apache-2.0

package registry

// RequestOf returns the number of the management request that a change only
// records or settles; what the request brings about are changes of their own.
func RequestOf(c Change) (number uint64, ok bool) {
	switch c := c.(type) {
	case *submitRequest:
		return c.Number, true
	case *settleRequest:
		return c.Request, true
	}
	return 0, false
}
