// SPDX-License-Identifier: Apache-2.0

// Package testnet is a whole ecosystem inside one test: trust services, a
// registry, two gateways made of the same parts as the real ones, an
// information system behind the provider, and a third security server that
// says whatever a test wants it to say. Everything speaks real TLS and HTTP on
// loopback addresses of its own and keeps real files in the test's folder, so
// that several networks, and several test binaries, run beside each other.
//
// What is slow to make, keys above all, is made once per test binary and
// copied. Call [Main] from TestMain.
package testnet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"kontor/config"
	"kontor/registry"
	"kontor/registry/id"
)

// Names of the ecosystem. Server ss1 is gateway A, the consumer; ss2 is gateway
// B, the provider; ss3 is the [Peer]; ss4 exists on paper only.
const (
	Instance = "TEST"

	Portal   = "TEST/GOV/1001/portal"   // on A by HTTP; may call persons and what else B offers
	Stranger = "TEST/GOV/1001/stranger" // on A by HTTP; may call nothing
	Pinned   = "TEST/GOV/1001/pinned"   // on A by HTTPS with a certificate
	NoAuth   = "TEST/GOV/1001/noauth"   // on A by HTTPS without
	Pending  = "TEST/GOV/1001/pending"  // on A, not registered yet
	Homeless = "TEST/GOV/1001/homeless" // in the registry, on no server

	Population = "TEST/GOV/2002/population" // on B, with the certificate of the information system
	Census     = "TEST/GOV/2002/census"     // on B, without

	Evil  = "TEST/COM/3003/evil"  // on the peer; may call what Portal may
	Guest = "TEST/COM/4004/guest" // on the peer, another member; likewise
	Nosey = "TEST/COM/3003/nosey" // on the peer; may call nothing

	Persons = Population + "/persons" // the information system, whole
	Limited = Population + "/limited" // Portal may GET /public/* only
	Query   = Population + "/soap"    // the information system at /soap, for SOAP
	Bad     = Evil + "/bad"           // whatever the peer makes of it

	Server1 = "TEST/GOV/1001/ss1"
	Server2 = "TEST/GOV/2002/ss2"
	Server3 = "TEST/COM/3003/ss3"
	Server4 = "TEST/COM/4004/ss4"
)

// ServiceTimeout is the time-out of the service Population/slow.
const ServiceTimeout = 500 * time.Millisecond

// pollInterval is how often a gateway asks for the global configuration.
const pollInterval = 150 * time.Millisecond

// Network is one running ecosystem. Its methods fail the test on any error and
// are for the test's goroutine, if they do not say otherwise.
type Network struct {
	tb  testing.TB
	dir string
	net string // first three numbers of the addresses
	fix *fixture

	A, B     *Gateway
	Peer     *Peer
	OCSP     *Switch // the responder of the authority
	TSA      *Switch
	Service  *Service
	registry *registryServer
	Anchor   []byte // the configuration anchor

	clock atomic.Int64 // offset of the registry's and the gateways' clocks
}

// Options change a network before it starts.
type Options struct {
	// Instance is another instance than [Instance], with authorities and names
	// of its own: see [Network.Name].
	Instance string
	// Gateway changes the configuration of a gateway, "A" or "B".
	Gateway func(name string, cfg *config.Gateway)
	// Settings are parameters of the instance.
	Settings registry.Settings
	// Offline leaves the registry's server shut until [Network.Publish].
	Offline bool
}

// Start starts a network and stops it when the test ends; then the logs of both
// gateways are checked for contradictions.
func Start(tb testing.TB, o Options) *Network {
	tb.Helper()
	fix, err := prepared(cmp.Or(o.Instance, Instance))
	if err != nil {
		tb.Fatal(err)
	}
	n := &Network{tb: tb, fix: fix, dir: tb.TempDir()}
	n.net = claim(tb)
	n.startTrust()
	n.Service = startService(n)
	n.startRegistry(o)
	n.Peer = startPeer(n)
	n.A = n.newGateway("A", Server1, n.ip(11), fix.gateways["A"], o.Gateway)
	n.B = n.newGateway("B", Server2, n.ip(12), fix.gateways["B"], o.Gateway)
	tb.Cleanup(func() {
		for _, g := range []*Gateway{n.A, n.B} {
			g.Stop()
			g.checkLog()
		}
	})
	n.A.start(!o.Offline)
	n.B.start(!o.Offline)
	return n
}

// Name returns the name that one of [Instance] has in this network.
func (n *Network) Name(s string) string { return in(n.fix.instance, s) }

func in(instance, s string) string { return instance + strings.TrimPrefix(s, Instance) }

// ClientID is [ClientID] of [Network.Name].
func (n *Network) ClientID(s string) id.Client { return ClientID(n.Name(s)) }

// ServerID is [ServerID] of [Network.Name].
func (n *Network) ServerID(s string) id.SecurityServer { return ServerID(n.Name(s)) }

// Registry is the registry itself. What it publishes is known to the gateways
// after [Network.Publish].
func (n *Network) Registry() *registry.Registry { return n.registry.Registry }

// Serve runs a web server at an address of the network until the test ends;
// host is 100 to 199.
func (n *Network) Serve(host int, h http.Handler) (address string) {
	n.tb.Helper()
	address = n.ip(host) + ":8080"
	serve(n.tb, address, h, nil)
	return address
}

// IP returns an address of the network that nothing else uses; host is 100 to
// 199.
func (n *Network) IP(host int) string { return n.ip(host) }

// ip returns an address of the network.
func (n *Network) ip(host int) string { return fmt.Sprintf("%s.%d", n.net, host) }

// Now is the network's clock; [Network.Advance] moves it. The authority and its
// services keep real time.
func (n *Network) Now() time.Time { return time.Now().Add(time.Duration(n.clock.Load())) }

// Advance moves the clock of registry and gateways.
func (n *Network) Advance(d time.Duration) { n.clock.Add(int64(d)) }

// Context ends with the test.
func (n *Network) Context() context.Context { return n.tb.Context() }

// claim finds a /24 of loopback addresses that no other network uses. The
// listener on its last address is the claim; other processes see it, too.
func claim(tb testing.TB) string {
	tb.Helper()
	for i := range 250 * 250 {
		at := (os.Getpid()*97 + i*7919) % (250 * 250)
		prefix := fmt.Sprintf("127.%d.%d", 2+at/250, at%250)
		if l, err := net.Listen("tcp", prefix+".254:5500"); err == nil {
			tb.Cleanup(func() { l.Close() })
			return prefix
		}
	}
	tb.Fatal("no loopback network is free")
	return ""
}

// Eventually repeats a check until it returns nil; it gives up late, since
// machines are loaded.
func Eventually(tb testing.TB, check func() error) {
	tb.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			tb.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// ClientID parses the identifier of a client.
func ClientID(s string) id.Client { return must(id.ParseClient(s)) }

// ServerID parses the identifier of a security server.
func ServerID(s string) id.SecurityServer { return must(id.ParseSecurityServer(s)) }

// must is for what is constant or cannot fail.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// copyTree copies a folder of regular files.
func copyTree(to, from string) error {
	return filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if d.IsDir() {
			return os.MkdirAll(target, 0o700)
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return errors.New(path + " is not a regular file")
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, b, info.Mode().Perm())
	})
}
