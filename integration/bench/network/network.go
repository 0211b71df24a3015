// SPDX-License-Identifier: Apache-2.0

// Package network makes two network namespaces with a bad line between them and
// good ones to us. It needs root and iproute2.
//
// Each namespace has two interfaces: lan0 to us, a pair of virtual Ethernet
// interfaces, and wan0 to the other namespace. The bad line is made by tc netem.
// Kernels are built without it, so that wan0 can also be a TUN device each, and
// [Relay] carries packets between them, late, and drops some. Either way losses
// hit single packets: segments are never offloaded.
package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"kontor/integration/bench/process"
)

// The line: to both directions applies
const (
	Delay = 25 * time.Millisecond // half a round trip
	Loss  = 0.01                  // share of packets
)

// Network is two namespaces.
type Network struct {
	Name [2]string // of the namespaces
	Kind string    // how the line is made
	// Env is for programs within, so that nothing but packets of the line's size
	// enters it.
	Env   []string
	relay *process.Process
}

// ErrImpossible says that this machine cannot have such a network; the text
// tells what is missing.
var ErrImpossible = errors.New("no namespaces with a bad line here")

// Lan and Wan return an address in a namespace, side 0 or 1; host is 10 to 99.
func Lan(side, host int) string { return fmt.Sprintf("10.91.%d.%d", 1+side, host) }

// Wan is the address on the bad line.
func Wan(side, host int) string { return fmt.Sprintf("10.91.3.%d", 100*side+host) }

// Ours returns our own address towards a namespace, where the other reaches us,
// too.
func Ours(side int) string { return Lan(side, 1) }

// hosts are the addresses that every namespace has.
const firstHost, lastHost = 10, 19

// Start makes the network. self is this program, with the argument that makes it
// call [Relay].
func Start(ctx context.Context, dir string, self []string) (*Network, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("%w: they need root", ErrImpossible)
	}
	for _, tool := range []string{"ip", "tc"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, fmt.Errorf("%w: %s is not installed (package iproute2)", ErrImpossible, tool)
		}
	}
	n := &Network{Name: [2]string{"kontor-bench-a", "kontor-bench-b"}}
	// Those of a run that was killed.
	for _, name := range n.Name {
		if _, err := os.Stat("/run/netns/" + name); err == nil {
			if err := ip(ctx, "netns del "+name); err != nil {
				return nil, err
			}
		}
	}
	if err := n.make(ctx, dir, self); err != nil {
		return nil, errors.Join(err, n.Stop())
	}
	return n, nil
}

func (n *Network) make(ctx context.Context, dir string, self []string) error {
	var commands []string
	for side, name := range n.Name {
		outer := fmt.Sprintf("kbench%d", side)
		if err := ip(ctx, "netns add "+name); err != nil {
			return fmt.Errorf("%w: %w", ErrImpossible, err)
		}
		commands = append(commands,
			"-n "+name+" link set lo up",
			fmt.Sprintf("link add %s type veth peer name lan0 netns %s", outer, name),
			fmt.Sprintf("addr add %s/24 dev %s", Ours(side), outer),
			"link set "+outer+" up",
			"-n "+name+" link set lan0 up")
		for host := firstHost; host <= lastHost; host++ {
			commands = append(commands, fmt.Sprintf("-n %s addr add %s/24 dev lan0", name, Lan(side, host)))
		}
		commands = append(commands, fmt.Sprintf("-n %s route add %s/24 via %s", name, strings.TrimSuffix(Ours(1-side), ".1")+".0", Ours(side)))
	}
	if err := ip(ctx, commands...); err != nil {
		return err
	}
	if err := n.line(ctx, dir, self); err != nil {
		return err
	}
	commands = nil
	for side, name := range n.Name {
		for host := firstHost; host <= lastHost; host++ {
			commands = append(commands, fmt.Sprintf("-n %s addr add %s/24 dev wan0", name, Wan(side, host)))
		}
		commands = append(commands, "-n "+name+" link set wan0 up",
			// Linux's own congestion control, whatever this machine prefers.
			fmt.Sprintf("-n %s route replace %s/24 dev wan0 proto kernel scope link src %s congctl cubic", name, Wan(0, 0), Wan(side, firstHost)))
	}
	return ip(ctx, commands...)
}

// line makes the bad line.
func (n *Network) line(ctx context.Context, dir string, self []string) error {
	a, b := n.Name[0], n.Name[1]
	if err := ip(ctx, fmt.Sprintf("-n %s link add wan0 gso_max_segs 1 type veth peer name wan0 netns %s", a, b), "-n "+b+" link set wan0 gso_max_segs 1"); err != nil {
		return err
	}
	var err error
	for _, name := range n.Name {
		if err == nil {
			_, err = run(ctx, "ip", "netns", "exec", name, "tc", "qdisc", "add", "dev", "wan0", "root", "netem",
				"delay", fmt.Sprintf("%dms", Delay.Milliseconds()), "loss", fmt.Sprintf("%g%%", Loss*100), "limit", "100000")
		}
	}
	if err == nil {
		n.Kind = "tc netem"
		n.Env = []string{"QUIC_GO_DISABLE_GSO=true"}
		return nil
	}
	if !strings.Contains(err.Error(), "kind is unknown") {
		return err
	}
	if err := ip(ctx, "-n "+a+" link del wan0"); err != nil {
		return err
	}
	n.Kind = "a relay between TUN devices, since this kernel has no netem"
	log := filepath.Join(dir, "relay.log")
	if n.relay, err = process.Start(process.Spec{Name: "relay", Args: append(self[:len(self):len(self)], n.Name[:]...), Log: log}); err != nil {
		return err
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if err := errors.Join(ctx.Err(), n.relay.Err()); err != nil {
			return err
		}
		up := true
		for _, name := range n.Name {
			_, err := run(ctx, "ip", "-n", name, "link", "show", "wan0")
			up = up && err == nil
		}
		if up {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.New("the relay has not made its devices")
		}
	}
}

// Stop removes the network. The programs within must have ended.
func (n *Network) Stop() error {
	var failed []error
	if n.relay != nil {
		failed = append(failed, n.relay.Stop())
	}
	for _, name := range n.Name {
		if _, err := os.Stat("/run/netns/" + name); err == nil {
			failed = append(failed, ip(context.Background(), "netns del "+name))
		}
	}
	return errors.Join(failed...)
}

func ip(ctx context.Context, commands ...string) error {
	for _, c := range commands {
		if _, err := run(ctx, "ip", strings.Fields(c)...); err != nil {
			return err
		}
	}
	return nil
}

func run(ctx context.Context, program string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}
