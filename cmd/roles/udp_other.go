// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package roles

import "net"

// growUDPBuffer asks the kernel to keep more packets that nobody has read yet.
// What it keeps cannot be told here.
func growUDPBuffer(socket *net.UDPConn, want int) (int, error) {
	return want, socket.SetReadBuffer(want)
}
