// SPDX-License-Identifier: Apache-2.0

package registry

// IsRequest reports whether a change only records or settles a management
// request; what the request brings about are changes of their own.
func IsRequest(c Change) bool {
	switch c.(type) {
	case *submitRequest, *settleRequest:
		return true
	}
	return false
}
