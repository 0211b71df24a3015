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
	"cmp"
	"context"
	"io"
	"net/http"
	"net/url"
	"sync"
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
		{Code: serverconf.GetOpenAPI, REST: true, Serve: d.serveOpenAPI},
		{Code: serverconf.GetWSDL, SOAP: true, Serve: d.serveWSDL},
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
	// hosts bound how many are fetched from one server at once: one that hangs
	// must leave places to the others.
	hosts *hosts
}

const (
	maxHeld    = 16 // documents in memory at once
	maxPerHost = 2  // of them from one server
	// fetchTime bounds the wait for a place and the download together: a server
	// that hangs keeps its places no longer.
	fetchTime = 30 * time.Second
)

func newDocuments() documents {
	return documents{held: make(chan struct{}, maxHeld), slots: make(chan struct{}, 2), hosts: &hosts{by: map[string]*hostPlaces{}}}
}

// fetch reads the document that describes a service, when there is a place for
// it. The caller calls done when it needs the document no more.
func (d documents) fetch(ctx context.Context, c *gateway.Call, s *serverconf.Service) (document *gateway.Document, done func(), err error) {
	server := ""
	if s.Description.File == "" {
		if u, err := url.Parse(s.Description.URL); err == nil {
			server = u.Host
		}
	}
	return inTurn(ctx, d, server, func(ctx context.Context) (*gateway.Document, error) {
		return c.Document(ctx, s)
	}, func() error {
		return fault.New(fault.InternalError, "The server of the description of %s has not answered others for %s", s.ID.LogString(), fetchTime)
	})
}

// inTurn calls get when there is a place in memory, and one for the server,
// unless that is empty. late makes the error of who waited too long. Without an
// error done gives the place in memory back.
func inTurn[T any](ctx context.Context, d documents, server string, get func(context.Context) (T, error), late func() error) (got T, done func(), err error) {
	limited, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	if server != "" {
		leave, ok := d.hosts.enter(limited, server)
		if !ok {
			return got, nil, cmp.Or(ctx.Err(), late())
		}
		defer leave()
	}
	select {
	case d.held <- struct{}{}:
	case <-limited.Done():
		return got, nil, cmp.Or(ctx.Err(), late())
	}
	done = func() { <-d.held }
	if got, err = get(limited); err != nil {
		done()
		return got, nil, err
	}
	return got, done, nil
}

// hosts are the servers that documents are being fetched from.
type hosts struct {
	mu sync.Mutex
	by map[string]*hostPlaces
}

type hostPlaces struct {
	places chan struct{}
	users  int // who has one or waits for one
}

// enter waits for a place at a server. It returns false when ctx is done first.
func (h *hosts) enter(ctx context.Context, server string) (leave func(), ok bool) {
	h.mu.Lock()
	p := h.by[server]
	if p == nil {
		p = &hostPlaces{places: make(chan struct{}, maxPerHost)}
		h.by[server] = p
	}
	p.users++
	h.mu.Unlock()
	forget := func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if p.users--; p.users == 0 {
			delete(h.by, server)
		}
	}
	leave = func() { <-p.places; forget() }
	select {
	case p.places <- struct{}{}:
		if ctx.Err() == nil {
			return leave, true
		}
		leave() // both were there at once
	case <-ctx.Done():
		forget()
	}
	return nil, false
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
