// SPDX-License-Identifier: Apache-2.0

package ocsp

// Len counts the entries.
func (c *Cache) Len() int { return len(c.entries) }
