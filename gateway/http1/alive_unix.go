// SPDX-License-Identifier: Apache-2.0

//go:build unix

package http1

import (
	"net"
	"syscall"
)

// watch looks at an idle connection. One look costs a system call and no
// allocation; even a connection that was used a moment ago needs it, as a server
// may close right behind its answer without having said so.
type watch struct {
	raw  syscall.RawConn // nil: the connection cannot be looked at
	look func(fd uintptr) bool
	byte [1]byte
	err  error // of the last look
}

func (w *watch) start(conn net.Conn) {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return // closed: its first use shows it
	}
	w.raw = raw
	w.look = func(fd uintptr) bool {
		_, _, w.err = syscall.Recvfrom(int(fd), w.byte[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		return true
	}
}

// alive tells whether an idle connection can be used again, without sending
// anything: nothing has arrived on it, neither an end nor bytes that nobody
// asked for.
func (w *watch) alive() bool {
	if w.raw == nil {
		return true
	}
	err := w.raw.Read(w.look)
	return err == nil && (w.err == syscall.EAGAIN || w.err == syscall.EWOULDBLOCK)
}
