// SPDX-License-Identifier: Apache-2.0

package exchange_test

import (
	"net/http"
	"strings"
	"testing"

	"kontor/config"
	"kontor/integration/testnet"
)

// Gateways of both styles understand each other, and each spells its own faults
// only.
func TestFaultStyles(t *testing.T) {
	for _, tt := range []struct {
		old            string // the gateway that spells codes as X-Road before 7.8
		denied, broken string
		deniedStatus   int
	}{
		{"A", "server.serverproxy.access_denied", "Server.ClientProxy.UnknownMember", 500},
		{"B", "Server.ServerProxy.AccessDenied", "server.clientproxy.unknown_member", 400},
	} {
		t.Run(tt.old, func(t *testing.T) {
			n := testnet.Start(t, testnet.Options{Gateway: func(name string, cfg *config.Gateway) {
				if name == tt.old {
					cfg.Faults.Style = "CamelCase"
				}
			}})
			path := testnet.Path(testnet.Population) + "/persons"
			for _, c := range []struct {
				path, client, code string
				status             int
			}{
				{path, testnet.Stranger, tt.denied, tt.deniedStatus},
				{testnet.Path("TEST/GOV/9/nobody") + "/x", testnet.Portal, tt.broken, 500},
			} {
				r := n.Call(c.client, http.MethodGet, c.path, nil)
				if code := r.Header.Get("X-Road-Error"); code != c.code || r.Status != c.status || !strings.Contains(string(r.Body), `"type":"`+c.code+`"`) {
					t.Errorf("%d %s %s, want %d %s", r.Status, code, r.Body, c.status, c.code)
				}
			}
		})
	}
}
