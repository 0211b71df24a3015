// SPDX-License-Identifier: Apache-2.0

// Package exchange_test tries to break exchanges between two gateways.
package exchange_test

import (
	"encoding/base64"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"kontor/integration/testnet"
)

func TestMain(m *testing.M) { os.Exit(testnet.Main(m)) }

// internals are what no public text may show.
var internals = regexp.MustCompile(`127\.\d|/tmp|\.go:\d|goroutine|dial tcp|read tcp|write tcp|panic|0x[0-9a-f]{6}|/work|msglog|statfs|%!`)

// refused checks a fault as the client sees it: code, cause and remedy, nothing
// internal.
func refused(t *testing.T, res *testnet.Result, code, cause string) {
	t.Helper()
	if res.Err != nil {
		t.Errorf("the answer broke off: %v", res.Err)
		return
	}
	if res.Code != code {
		t.Errorf("code %q, want %q (status %d, body %.300s)", res.Code, code, res.Status, res.Body)
		return
	}
	want := http.StatusBadRequest
	if strings.HasPrefix(code, "server.") {
		want = http.StatusInternalServerError
	}
	if res.Status != want {
		t.Errorf("status %d, want %d", res.Status, want)
	}
	if res.Fault.Type != code {
		t.Errorf("type %q in the body, header has %q", res.Fault.Type, code)
	}
	publicText(t, res.Fault.Message, cause)
	if len(res.Fault.Detail) != 36 {
		t.Errorf("detail %q is not an identifier", res.Fault.Detail)
	}
}

func publicText(t *testing.T, text, cause string) {
	t.Helper()
	if !regexp.MustCompile(cause).MatchString(text) {
		t.Errorf("the text does not name the cause %q: %s", cause, text)
	}
	if !strings.Contains(text, "Remedy: ") || !strings.Contains(text, "Reported by ") {
		t.Errorf("the text names no hop or remedy: %s", text)
	}
	m := internals.FindString(text)
	if strings.Contains(text, "EOF") && !strings.Contains(text, "XML syntax error") {
		m = "EOF"
	}
	if m != "" {
		t.Errorf("the text shows %q: %s", m, text)
	}
}

// works checks that the network still carries messages.
func works(t *testing.T, n *testnet.Network) *testnet.Result {
	t.Helper()
	n.Service.Reset()
	res := n.Call(testnet.Portal, "GET", testnet.Path(testnet.Persons)+"/works", nil)
	if res.Err != nil || res.Status != http.StatusOK || string(res.Body) != testnet.Greeting {
		t.Fatalf("the network does not work: %+v %s", res, res.Body)
	}
	return res
}

// untouched checks that the information system got nothing.
func untouched(t *testing.T, n *testnet.Network) {
	t.Helper()
	for _, r := range n.Service.Requests() {
		t.Errorf("the service got %s %s", r.Method, r.URI)
	}
}

// count returns a function that tells how many records were added since.

func count(n *testnet.Network) (added func() (a, b int)) {
	a, b := n.A.Records(), n.B.Records()
	return func() (int, int) { return n.A.Records() - a, n.B.Records() - b }
}

func b64(der []byte) []byte { return []byte(base64.StdEncoding.EncodeToString(der)) }
