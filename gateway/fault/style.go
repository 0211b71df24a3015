// SPDX-License-Identifier: Apache-2.0

package fault

import "strings"

// Style is how a gateway spells the codes of its own faults. Those of peers and
// services pass as they came; [Normalise] understands both.
type Style string

// The styles.
const (
	SnakeCase Style = "snake_case" // server.serverproxy.access_denied, as X-Road 7.8
	CamelCase Style = "CamelCase"  // Server.ServerProxy.AccessDenied, as X-Road before 7.8 and its protocol documents
)

// older holds the words that servers before X-Road 7.8 spell in another way
// than their rule, every word of the code with a capital, makes of them. They
// knew no code for an unknown host.
var older = map[string]string{
	"clientproxy":                 "ClientProxy",
	"serverproxy":                 "ServerProxy",
	"opmonitor":                   "OpMonitor",
	string(IOError):               "IOError",
	string(HashChainUnusedInputs): "HashChainUnusedInputs",
	string(GlobalConfOutdated):    "OutdatedGlobalConf",
	string(UnknownHost):           "NetworkError",
}

// Older returns a code as servers before X-Road 7.8 spell it.
func Older(code string) string {
	words := strings.Split(Normalise(code), ".")
	for i, w := range words {
		if known, ok := older[w]; ok {
			words[i] = known
			continue
		}
		var b strings.Builder
		for part := range strings.SplitSeq(w, "_") {
			if part != "" {
				b.WriteString(strings.ToUpper(part[:1]) + part[1:])
			}
		}
		words[i] = b.String()
	}
	return strings.Join(words, ".")
}

// Spelt returns the fault with its code in a style; a peer's fault, and any in
// SnakeCase or no style, is returned as it is.
func (e *Error) Spelt(s Style) *Error {
	if s != CamelCase || e.remote {
		return e
	}
	c := *e
	c.code = Older(e.code)
	return &c
}
