// SPDX-License-Identifier: Apache-2.0

//go:build !linux && !darwin && !freebsd

package opmonitor

// disk returns the free and the total bytes of a file system.
func disk(string) (free, total uint64, ok bool) { return 0, 0, false }
