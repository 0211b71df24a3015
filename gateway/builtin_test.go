// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"net/http"
	"strings"
	"testing"

	"kontor/gateway"
	"kontor/gateway/message"
	"kontor/gateway/msglog"
	"kontor/gateway/serverconf"
	"kontor/gateway/signer"
	"kontor/gateway/tunnel"
	"kontor/pki/asic"
	"kontor/registry/globalconf"
	"kontor/registry/id"
)

// A gateway provides services under reserved codes only, each once.
func TestBuiltins(t *testing.T) {
	t.Parallel()
	server, err := id.ParseSecurityServer("DEV/GOV/1/ss")
	if err != nil {
		t.Fatal(err)
	}
	serve := func(http.ResponseWriter, *http.Request, *gateway.Call) error { return nil }
	one := gateway.Builtin{Code: serverconf.ListMethods, REST: true, Serve: serve}
	for _, tt := range []struct {
		builtins []gateway.Builtin
		want     string
	}{
		{nil, ""},
		{[]gateway.Builtin{one, {Code: serverconf.GetWSDL, SOAP: true, Serve: serve}}, ""},
		{[]gateway.Builtin{one, one}, "two built-in services"},
		{[]gateway.Builtin{{Code: "persons", REST: true, Serve: serve}}, "not reserved"},
		{[]gateway.Builtin{{Code: serverconf.GetWSDL, Serve: serve}}, "answers nothing"},
		{[]gateway.Builtin{{Code: serverconf.GetWSDL, SOAP: true}}, "answers nothing"},
	} {
		_, err := gateway.New(gateway.Config{
			Server: server, View: func() *globalconf.View { return nil }, Conf: new(serverconf.Store), Signer: new(signer.Signer),
			Tunnel: new(tunnel.Client), Peers: new(tunnel.PeerVerifier), Log: new(msglog.Log), Spool: new(message.Spool),
			Verifier: new(asic.Verifier), Builtins: tt.builtins,
		})
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %q", tt.builtins, err, tt.want)
		}
	}
}
