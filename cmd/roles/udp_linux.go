// SPDX-License-Identifier: Apache-2.0

package roles

import (
	"net"

	"golang.org/x/sys/unix"
)

// growUDPBuffer asks the kernel to keep more packets that nobody has read yet,
// and returns how many bytes of them it keeps.
func growUDPBuffer(socket *net.UDPConn, want int) (int, error) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return 0, err
	}
	var got int
	e := raw.Control(func(fd uintptr) {
		// The first needs a privilege, the second is cut to net.core.rmem_max.
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, want) != nil {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, want)
		}
		if err == nil {
			got, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF)
		}
	})
	if err == nil {
		err = e
	}
	return got, err
}
