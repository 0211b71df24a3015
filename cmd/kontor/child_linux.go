// SPDX-License-Identifier: Apache-2.0

package main

import "syscall"

// childAttributes puts a role into a process group of its own and ends it with
// its sandbox.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
