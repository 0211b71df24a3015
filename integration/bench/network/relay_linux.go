// SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Relay makes wan0 in two namespaces and carries packets between them until it
// is killed: each waits for [Delay], and of [Loss] nothing comes out.
func Relay(namespaces []string) error {
	if len(namespaces) != 2 {
		return errors.New("two namespaces are needed")
	}
	// The thread changes its namespace, and nothing else may run in it.
	runtime.LockOSThread()
	var ends [2]*os.File
	for i, name := range namespaces {
		ns, err := os.Open("/run/netns/" + name)
		if err != nil {
			return err
		}
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter %s: %w", name, err)
		}
		if err := ns.Close(); err != nil {
			return err
		}
		if ends[i], err = tun("wan0"); err != nil {
			return err
		}
	}
	failed := make(chan error, 4)
	for i := range ends {
		line := make(chan packet, 1<<16)
		go func() { failed <- enter(ends[i], line) }()
		go func() { failed <- leave(ends[1-i], line) }()
	}
	return <-failed
}

// packet is on its way.
type packet struct {
	content []byte
	due     time.Time
}

// mtu is that of a TUN device.
const mtu = 1500

func enter(from *os.File, line chan<- packet) error {
	for {
		p := packet{content: make([]byte, mtu)}
		n, err := from.Read(p.content)
		if errors.Is(err, unix.EIO) { // the interface is not up yet
			time.Sleep(time.Millisecond)
			continue
		}
		if err != nil {
			return err
		}
		if rand.Float64() < Loss {
			continue
		}
		p.content, p.due = p.content[:n], time.Now().Add(Delay)
		select {
		case line <- p:
		default: // the line is full, as a router's queue may be
		}
	}
}

func leave(to *os.File, line <-chan packet) error {
	for p := range line {
		time.Sleep(time.Until(p.due))
		if _, err := to.Write(p.content); err != nil && !errors.Is(err, unix.EIO) {
			return err
		}
	}
	return nil
}

// tun makes a TUN device without a header before its packets.
func tun(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return nil, fmt.Errorf("make %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), "/dev/net/tun"), nil
}
