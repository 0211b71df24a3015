// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package tunnel

// alive cannot look at a connection without reading from it here: one that the
// peer has closed shows when it is used.
func (c *h1) alive() bool { return true }
