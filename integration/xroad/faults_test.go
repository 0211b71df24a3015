// SPDX-License-Identifier: Apache-2.0

package xroad_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"kontor/config"
	"kontor/integration/testnet"
	"kontor/registry"
)

// restFault demands a fault.
func (w way) restFault(t *testing.T, service, want, text string) {
	t.Helper()
	res := w.call(t, http.MethodGet, testnet.Path(service), "", nil, "X-Road-Client: "+w.client)
	status := http.StatusBadRequest
	if strings.HasPrefix(want, "server.") || strings.HasPrefix(want, "Server.ClientProxy.") { // X-Road 7.8 knows the first only
		status = http.StatusInternalServerError
	}
	if res.Err != nil || res.Code != want || res.Fault.Type != want || res.Status != status || !strings.Contains(res.Fault.Message, text) || res.Fault.Detail == "" {
		t.Errorf("REST %s: %d %q %q %v", service, res.Status, res.Code, res.Fault.Message, res.Err)
	}
}

// soapFault demands a fault.
func (w way) soapFault(t *testing.T, service, want, text string) {
	t.Helper()
	code := service[strings.LastIndexByte(service, '/')+1:]
	envelope := testnet.Envelope{Client: w.client, Service: service, ID: w.id(code + "-fault"), Body: "<" + code + ` xmlns="urn:q"/>`}
	res := w.call(t, http.MethodPost, "/", "text/xml; charset=UTF-8", strings.NewReader(envelope.String()))
	if res.Err != nil || res.Status != http.StatusOK || !bytes.Contains(res.Body, []byte("<faultcode>"+want+"</faultcode>")) || !bytes.Contains(res.Body, []byte(text)) {
		t.Errorf("SOAP %s: %d %s %v", service, res.Status, res.Body, res.Err)
	}
}

// TestLiveFaults compares what the consumer is told by a gateway of what
// X-Road's server refuses, and the other way round.
func TestLiveFaults(t *testing.T) {
	classes(t)
	n := testnet.Start(t, testnet.Options{})
	for _, s := range []string{testnet.Server3, testnet.Server4} { // X-Road looks by address, which they share
		n.Apply(&registry.SetMaintenance{Server: n.ServerID(s), On: true, Message: "back at noon"})
	}
	x := becomeXRoad(t, n)
	provide(n)
	for _, w := range ways(n) {
		t.Run(w.name, func(t *testing.T) {
			w.restFault(t, w.provider+"/missing", "server.serverproxy.unknown_service", w.provider+"/missing")
			w.restFault(t, w.provider+"/private", "server.serverproxy.access_denied", w.provider+"/private")
			w.restFault(t, w.provider+"/soap", "server.serverproxy.service_type", "")
			w.restFault(t, testnet.Homeless+"/none", "server.clientproxy.unknown_member", "")
			w.restFault(t, testnet.Bad, "server.clientproxy.maintenance_mode", "back at noon")
			w.soapFault(t, w.provider+"/missing", "server.serverproxy.unknown_service", w.provider+"/missing")
			w.soapFault(t, w.provider+"/denied", "server.serverproxy.access_denied", w.provider+"/denied")
			w.soapFault(t, w.provider+"/persons", "server.serverproxy.service_type", "")
			w.soapFault(t, w.provider+"/closed", "server.serverproxy.service_disabled", "closed for the winter")
			w.soapFault(t, w.provider+"/down", "server.serverproxy.service_failed.network_error", "")
			w.soapFault(t, testnet.Homeless+"/none", "server.clientproxy.unknown_member", "")
		})
	}

	// The fault of a service reaches the client as it is.
	t.Run("of the service", func(t *testing.T) {
		fault := `<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Body><e:Fault><faultcode>e:Client</faultcode><faultstring>Wer da?</faultstring><detail><why/></detail></e:Fault></e:Body></e:Envelope>`
		n.Service.Handle(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/xml")
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, fault)
		})
		for _, w := range ways(n) {
			res := w.call(t, http.MethodPost, "/", "text/xml; charset=UTF-8", bytes.NewReader(w.envelope("refused", "")))
			if !bytes.Contains(res.Body, []byte("Client</faultcode>")) || !bytes.Contains(res.Body, []byte("Wer da?")) || !bytes.Contains(res.Body, []byte("<why")) {
				t.Errorf("%s: %d %s %v", w.name, res.Status, res.Body, res.Err)
			}
		}
	})

	// Whoever signs badly is not believed, and the other says so.
	t.Run("of signatures", func(t *testing.T) {
		x.sign("badly")
		asks, asked := ways(n)[0], ways(n)[1]
		asks.restFault(t, asks.provider+"/persons", "server.clientproxy.signature_verification.invalid_signature_value", "")
		asked.restFault(t, asked.provider+"/persons", "server.serverproxy.signature_verification.invalid_signature_value", "")
		x.sign("well")
		echo(n)
		asks.rest(t, "well", nil)
		asked.rest(t, "well", nil)

		m := n.Peer.Request(testnet.Evil, http.MethodGet, testnet.Path(testnet.Persons), nil)
		m.Signed = n.Evidence(n.Identity("sign"), nil, []byte("something else"), nil, false)
		reply, err := n.Peer.Post("auth", m)
		if err != nil || reply.Fault == nil {
			t.Fatal(reply, err)
		}
		if code := reply.Fault.Code(); code != "server.serverproxy.signature_verification.invalid_signature_value" {
			t.Error(code)
		}
	})
}

// TestLiveFaultsOfNetworks compares what is said of a peer that is not there.
func TestLiveFaultsOfNetworks(t *testing.T) {
	classes(t)
	n := testnet.Start(t, testnet.Options{})
	x := becomeXRoad(t, n)
	provide(n)
	asks, asked := ways(n)[0], ways(n)[1]
	n.A.Stop()
	asked.restFault(t, asked.provider+"/persons", "server.clientproxy.network_error", "")
	asked.soapFault(t, asked.provider+"/soap", "server.clientproxy.network_error", "")
	n.A.Restart(nil)
	x.stop()
	asks.restFault(t, asks.provider+"/persons", "server.clientproxy.network_error", "")
	asks.soapFault(t, asks.provider+"/soap", "server.clientproxy.network_error", "")
}

// TestLiveFaultStyle shows a client of X-Road's what a gateway says that spells
// codes as servers did before X-Road 7.8.
func TestLiveFaultStyle(t *testing.T) {
	classes(t)
	n := testnet.Start(t, testnet.Options{Gateway: func(_ string, c *config.Gateway) { c.Faults.Style = "CamelCase" }})
	becomeXRoad(t, n)
	provide(n)
	asks, asked := ways(n)[0], ways(n)[1]
	asked.restFault(t, asked.provider+"/missing", "Server.ServerProxy.UnknownService", "")
	asked.soapFault(t, asked.provider+"/denied", "Server.ServerProxy.AccessDenied", "")
	asks.restFault(t, asks.provider+"/missing", "server.serverproxy.unknown_service", "")
	asks.restFault(t, testnet.Homeless+"/none", "Server.ClientProxy.UnknownMember", "")
}
