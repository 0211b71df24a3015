// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package tunnel

import "net"

// tcpPath tells what the kernel knows of the way to a connection's peer.
func tcpPath(net.Conn) (path, bool) { return path{}, false }
