// SPDX-License-Identifier: Apache-2.0

package xroad_test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"kontor/integration/testnet"
	"kontor/registry"
)

// relay stands before a security server. It counts the connections to the
// port of the tunnels and can end them.
type relay struct {
	mu    sync.Mutex
	count int
	open  []net.Conn
}

// newRelay puts a relay in place of a server, at a host of the network.
func newRelay(t *testing.T, n *testnet.Network, server string, host int, to string) *relay {
	t.Helper()
	r := &relay{}
	var all sync.WaitGroup
	for _, port := range []string{":5500", ":5577"} {
		l, err := net.Listen("tcp", n.IP(host)+port)
		if err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			for {
				from, err := l.Accept()
				if err != nil {
					return
				}
				there, err := net.Dial("tcp", to+port)
				if err != nil {
					_ = from.Close()
					continue
				}
				if port == ":5500" {
					r.mu.Lock()
					r.count++
					r.open = append(r.open, from, there)
					r.mu.Unlock()
				}
				carry := func(to, from net.Conn) {
					_, _ = io.Copy(to, from) // ends with either
					_ = to.Close()
				}
				all.Go(func() { carry(there, from) })
				all.Go(func() { carry(from, there) })
			}
		})
		t.Cleanup(func() { l.Close(); r.hangUp() })
	}
	n.Apply(&registry.SetServerAddress{Server: n.ServerID(server), Address: n.IP(host)})
	return r
}

// hangUp ends all connections.
func (r *relay) hangUp() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.open {
		_ = c.Close()
	}
	r.open = nil
}

// connections is how many there were so far.
func (r *relay) connections() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count
}

// TestLiveConnections sends messages one after the other, over connections
// that last, which X-Road's servers have to be told to keep; a gateway also
// over some that have ended meanwhile.
func TestLiveConnections(t *testing.T) {
	classes(t)
	n := testnet.Start(t, testnet.Options{})
	relays := []*relay{
		newRelay(t, n, testnet.Server2, 110, n.B.IP()),
		newRelay(t, n, testnet.Server1, 111, n.A.IP()),
	}
	becomeXRoad(t, n, "-Dxroad.proxy.pool-enable-connection-reuse=true", "-Dxroad.proxy.server-support-clients-pooled-connections=true")
	echo(n)
	provide(n)
	for i, w := range ways(n) {
		t.Run(w.name, func(t *testing.T) {
			const many = 10
			for m := range many {
				w.rest(t, fmt.Sprint("sequence-", m), []byte("{}"))
			}
			used := relays[i].connections()
			if used >= many {
				t.Errorf("%d messages over %d connections", many, used)
			}
			if i == 1 {
				return // X-Road's client does not look whether a connection used lately has ended
			}
			for m := range many {
				relays[i].hangUp()
				w.rest(t, fmt.Sprint("after-", m), []byte("{}"))
			}
		})
	}
}

// TestLiveCiphers has both sides say that they do not understand each other
// when X-Road's server offers what it does by itself.
func TestLiveCiphers(t *testing.T) {
	classes(t)
	n := testnet.Start(t, testnet.Options{})
	becomeXRoad(t, n, "-Dxroad.proxy.xroad-tls-ciphers=TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384,TLS_DHE_RSA_WITH_AES_256_CBC_SHA256,TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA384")
	provide(n)
	for i, remedy := range []string{"xroad-tls-ciphers", ""} { // X-Road's says less
		w := ways(n)[i]
		w.restFault(t, w.provider+"/persons", "server.clientproxy.ssl_authentication_failed", remedy)
	}
	failed := n.A.Logged("exchange failed")
	if len(failed) == 0 || !strings.Contains(fmt.Sprint(failed[0].ContextMap()), "tls: handshake failure") {
		t.Errorf("the log does not tell why: %v", failed)
	}
}
