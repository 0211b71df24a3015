// SPDX-License-Identifier: Apache-2.0

//go:build linux || darwin || freebsd

package opmonitor

import "golang.org/x/sys/unix"

// disk returns the free and the total bytes of a file system.
func disk(path string) (free, total uint64, ok bool) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return 0, 0, false
	}
	size := uint64(s.Bsize)
	return uint64(s.Bfree) * size, uint64(s.Blocks) * size, true
}
