// SPDX-License-Identifier: Apache-2.0

// Package metaservice answers who is in the network, what they offer and how
// it is described: X-Road's metadata services.
//
// Other security servers ask by messages; [Builtins] are the services for
// them. Local information systems also ask their own security server directly:
// [ListClients] and [VerificationConf]. [GovStack] is a view of the same for
// those who know GovStack's Information Mediator.
//
// Sources: X-Road Service Metadata Protocol, Service Metadata Protocol for
// REST, and the behaviour of X-Road 7.8 servers.
package metaservice

import (
	"context"
	"io"
	"net/http"
	"time"

	"kontor/gateway"
	"kontor/gateway/fault"
	"kontor/gateway/serverconf"
)

// Namespaces of the answers.
const (
	nsXRoad       = "http://x-road.eu/xsd/xroad.xsd"
	nsIdentifiers = "http://x-road.eu/xsd/identifiers"
)

const (
	typeXML  = "text/xml; charset=UTF-8"
	typeJSON = "application/json; charset=utf-8"
)

// Builtins returns the services about the clients of a security server. Every
// member and subsystem of the network may call them; none tells of itself.
func Builtins() []gateway.Builtin {
	d := newDocuments()
	return []gateway.Builtin{
		{Code: serverconf.ListMethods, REST: true, SOAP: true, Serve: serveMethods(listed)},
		{Code: serverconf.AllowedMethods, REST: true, SOAP: true, Serve: serveMethods(allowed)},
		{Code: serverconf.GetOpenAPI, REST: true, Serve: d.hold(d.serveOpenAPI)},
		{Code: serverconf.GetWSDL, SOAP: true, Serve: d.hold(d.serveWSDL)},
	}
}

// documents are the services that send the documents which describe services.
type documents struct {
	// held bound how many are in memory at once: anyone may ask for one that has
	// [serverconf.MaxDocument] bytes, as often as there are exchanges.
	held chan struct{}
	// slots bound how many are rewritten at once: a tree of YAML takes two hundred
	// times as much memory as its text.
	slots chan struct{}
}

// maxHeld is how many documents are in memory at once.
const maxHeld = 16

func newDocuments() documents {
	return documents{held: make(chan struct{}, maxHeld), slots: make(chan struct{}, 2)}
}

// hold makes serve wait for its turn to have a document in memory.
func (d documents) hold(serve func(http.ResponseWriter, *http.Request, *gateway.Call) error) func(http.ResponseWriter, *http.Request, *gateway.Call) error {
	return func(w http.ResponseWriter, r *http.Request, c *gateway.Call) error {
		select {
		case d.held <- struct{}{}:
			defer func() { <-d.held }()
			return serve(w, r, c)
		case <-r.Context().Done():
			return r.Context().Err()
		}
	}
}

// rewrite makes of a document what may be shown.
func (d documents) rewrite(ctx context.Context, content []byte, hide func([]byte) ([]byte, error)) ([]byte, error) {
	select {
	case d.slots <- struct{}{}:
		defer func() { <-d.slots }()
		return hide(content)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// refuse answers an information system with a fault. X-Road does so as to SOAP
// clients, with status 200.
func refuse(w http.ResponseWriter, spelling fault.Style, err error) {
	w.Header().Set("Content-Type", fault.ContentTypeTextXML)
	_, _ = w.Write(fault.At(fault.ClientProxy, err).Spelt(spelling).SOAP()) // the asker may have gone
}

// idle is how long an information system may leave an answer unread.
const idle = time.Minute

// patientWriter sends an answer under a deadline that every write renews.
type patientWriter struct{ w http.ResponseWriter }

var _ io.Writer = patientWriter{}

func (p patientWriter) Write(b []byte) (int, error) {
	if err := http.NewResponseController(p.w).SetWriteDeadline(time.Now().Add(idle)); err != nil {
		return 0, err
	}
	return p.w.Write(b)
}
