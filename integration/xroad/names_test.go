// SPDX-License-Identifier: Apache-2.0

package xroad_test

import (
	"bytes"
	"encoding/xml"
	"net/http"
	"strings"
	"testing"

	"kontor/gateway/serverconf"
	"kontor/integration/testnet"
	"kontor/registry"
	"kontor/registry/id"
)

// TestLiveNames has members of both sides with names that need coding in REST
// and in XML.
func TestLiveNames(t *testing.T) {
	classes(t)
	const code = "süd & +1 <õ>'"
	n := testnet.Start(t, testnet.Options{})
	named := map[string]id.Client{} // by the client on whose server it is
	for client, server := range map[string]string{testnet.Portal: testnet.Server1, testnet.Population: testnet.Server2} {
		c, err := id.NewClient(n.ClientID(client).Member(), code)
		if err != nil {
			t.Fatal(err)
		}
		n.Apply(&registry.AddSubsystem{Subsystem: c, Name: code}, &registry.RegisterClient{Server: n.ServerID(server), Client: c})
		named[client] = c
	}
	becomeXRoad(t, n)
	echo(n)
	provide(n)
	n.A.Configure(func(m *serverconf.Model) {
		e := *testnet.Entry(m, testnet.Portal)
		e.ID = named[testnet.Portal]
		e.Access = []serverconf.AccessEntry{{Service: "persons", Client: named[testnet.Population]}, {Service: "soap", Client: named[testnet.Population]}}
		m.Clients = append(m.Clients, e)
	})
	for _, w := range ways(n) {
		t.Run(w.name, func(t *testing.T) {
			w.client, w.provider = named[w.client].String(), named[w.provider].String()
			res := w.call(t, http.MethodPost, testnet.Path(w.provider+"/persons"), "text/plain", strings.NewReader("x"),
				"X-Road-Client: "+w.client, "X-Road-UserId: EE/1")
			if res.Err != nil || res.Status != http.StatusOK || string(res.Body) != "x" {
				t.Errorf("REST: %d %s %v", res.Status, res.Body, res.Err)
			}
			var name bytes.Buffer
			if err := xml.EscapeText(&name, []byte(code)); err != nil {
				t.Fatal(err)
			}
			envelope := bytes.ReplaceAll(w.envelope("names", ""), []byte(">"+code+"<"), []byte(">"+name.String()+"<"))
			res = w.call(t, http.MethodPost, "/", "text/xml; charset=UTF-8", bytes.NewReader(envelope))
			if res.Err != nil || res.Status != http.StatusOK || !bytes.Contains(res.Body, []byte("<soapResponse ")) {
				t.Errorf("SOAP: %d %s %v", res.Status, res.Body, res.Err)
			}
		})
	}
}
