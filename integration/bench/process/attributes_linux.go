// SPDX-License-Identifier: Apache-2.0

package process

import "syscall"

// attributes keep the terminal's Ctrl-C from the programs, which are stopped in
// order, and end them should we be killed.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
