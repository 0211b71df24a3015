// SPDX-License-Identifier: Apache-2.0

package xroad_test

import (
	"fmt"
	"net/http"
	"testing"

	"kontor/config"
	"kontor/gateway/serverconf"
	"kontor/integration/testnet"
	"kontor/registry"
)

// TestLiveFederation has a gateway and X-Road's server call each other that are
// in two instances, which trust each other.
func TestLiveFederation(t *testing.T) {
	classes(t)
	const partner = "PARTNER"
	ours := testnet.Start(t, testnet.Options{Gateway: func(_ string, c *config.Gateway) { c.GlobalConf.Federations = []string{"all"} }})
	theirs := testnet.Start(t, testnet.Options{Instance: partner})
	for _, p := range [][2]*testnet.Network{{ours, theirs}, {theirs, ours}} {
		anchor, err := p[1].Registry().ExternalAnchor()
		if err != nil {
			t.Fatal(err)
		}
		p[0].Apply(&registry.TrustAnchor{Instance: p[1].Registry().State().Instance(), Anchor: anchor})
	}
	becomeXRoad(t, theirs, "-Dxroad.configuration-client.allowed-federations=all")
	echo(ours)
	echo(theirs)
	provide(ours)
	population := theirs.Name(testnet.Population)
	ours.A.Configure(func(m *serverconf.Model) {
		e := testnet.Entry(m, testnet.Portal)
		for _, code := range []string{"persons", "soap"} {
			e.Access = append(e.Access, serverconf.AccessEntry{Service: code, Client: theirs.ClientID(testnet.Population)})
		}
	})
	both := []way{
		{ours, "Kontor asks X-Road", ours.A.IP(), testnet.Portal, population},
		{ours, "X-Road asks Kontor", theirs.B.IP(), population, testnet.Portal},
	}
	testnet.Eventually(t, func() error { // the gateway learns of the other instance in its own time
		w := both[0]
		if res := w.call(t, http.MethodGet, testnet.Path(w.provider+"/persons"), "", nil, "X-Road-Client: "+w.client); res.Status != http.StatusOK {
			return fmt.Errorf("%d %s %v", res.Status, res.Body, res.Err)
		}
		return nil
	})
	exchanges(t, both)
	both[1].restFault(t, both[1].provider+"/private", "server.serverproxy.access_denied", "")
}
