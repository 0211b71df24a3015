// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"crypto/tls"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// tcpPath tells what the kernel knows of the way to a connection's peer.
func tcpPath(conn net.Conn) (path, bool) {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	sys, ok := conn.(syscall.Conn)
	if !ok {
		return path{}, false
	}
	raw, err := sys.SyscallConn()
	if err != nil {
		return path{}, false
	}
	var info *unix.TCPInfo
	var failed error
	err = raw.Control(func(fd uintptr) { info, failed = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	if err != nil || failed != nil {
		return path{}, false
	}
	rtt := func(µs uint32) time.Duration { return time.Duration(µs) * time.Microsecond }
	return path{
		minRTT: rtt(info.Min_rtt), pto: rtt(info.Rtt) + 4*rtt(info.Rttvar) + ackDelay,
		window: uint64(info.Snd_cwnd) * uint64(info.Snd_mss),
	}, true
}
