// SPDX-License-Identifier: Apache-2.0

//go:build unix

package tunnel

import "syscall"

// alive tells whether an idle connection can be used again, without sending
// anything: nothing has arrived on it, neither an end nor bytes that nobody
// asked for.
func (c *h1) alive() bool {
	conn, ok := c.raw.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	var received error
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, received = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		return true
	})
	return err == nil && (received == syscall.EAGAIN || received == syscall.EWOULDBLOCK)
}
