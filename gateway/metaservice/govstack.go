// SPDX-License-Identifier: Apache-2.0

package metaservice

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"

	"kontor/gateway/fault"
	"kontor/registry/globalconf"
	"kontor/registry/id"
)

// GovStackConfig describes GovStack's view. All fields but Client are mandatory.
type GovStackConfig struct {
	View func() (*globalconf.View, error)
	// Client is the client proxy, through which providers are asked.
	Client http.Handler
	// Known tells whether a client is registered at this security server.
	Known func(id.Client) bool
	// Default asks on behalf of callers that name no known client; zero: they
	// are refused.
	Default id.Client
}

// GovStack serves the directory services of GovStack's Information Mediator:
// /listClients and, of a provider, /r1/…/listMethods, allowedMethods and
// getOpenAPI. They are X-Road's in other words: an application is a subsystem,
// a list is called member, names are in camel case.
//
// It is tolerant, as the specification and its tests do not agree in
// everything: the client may be named by any of three headers, /r1 may be left
// out or stand before listClients, and who is not in the network has an empty
// list of services. Errors are status 400 or 500 with the text as a JSON string.
//
// Source: GovStack Information Mediator, Directory Services API 1.0.
func GovStack(cfg GovStackConfig) http.Handler { return &govStack{cfg} }

type govStack struct{ GovStackConfig }

// govStackError is an error with its status; the text is public.
type govStackError struct {
	status int
	text   string
}

func (e *govStackError) Error() string { return e.text }

func badRequest(text string) error { return &govStackError{http.StatusBadRequest, text} }

var errNotFound = &govStackError{http.StatusNotFound, "There are /listClients and /r1/{instanceId}/{memberClass}/{memberCode}/{applicationCode}/listMethods, allowedMethods and getOpenAPI"}

func (g *govStack) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	kind, content, err := g.answer(w, r)
	status := http.StatusOK
	if err != nil {
		refusal := &govStackError{http.StatusInternalServerError, "Internal error"}
		errors.As(err, &refusal)
		status, kind = refusal.status, typeJSON
		content, _ = json.Marshal(refusal.text) // a string
	}
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(status)
	_, _ = patientWriter{w}.Write(content) // the asker may have gone
}

// answer returns what is asked for and its type.
func (g *govStack) answer(w http.ResponseWriter, r *http.Request) (kind string, content []byte, err error) {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		return "", nil, &govStackError{http.StatusMethodNotAllowed, "Only GET is supported"}
	}
	path := strings.Trim(strings.TrimPrefix(r.URL.EscapedPath(), "/r1/"), "/")
	if path == "listClients" {
		return g.listClients(r.URL.Query().Get("instanceId"))
	}
	at := strings.LastIndexByte(path, '/')
	if at < 0 {
		return "", nil, errNotFound
	}
	provider, err := id.ParseClient(path[:at])
	if err != nil || provider.IsMember() {
		return "", nil, errNotFound
	}
	switch service := path[at+1:]; strings.ToLower(service) {
	case "listmethods":
		return g.methods(w, r, provider, "listMethods")
	case "allowedmethods":
		return g.methods(w, r, provider, "allowedMethods")
	case "getopenapi":
		return g.openAPI(w, r, provider)
	}
	return "", nil, errNotFound
}

// The lists in GovStack's form.
type (
	govStackClients struct {
		Member []govStackClient `json:"member"`
	}
	govStackClient struct {
		Name string     `json:"name,omitempty"`
		ID   govStackID `json:"id"`
	}
	govStackID struct {
		ObjectType      string `json:"objectType"`
		InstanceID      string `json:"instanceId"`
		MemberClass     string `json:"memberClass"`
		MemberCode      string `json:"memberCode"`
		ApplicationCode string `json:"applicationCode,omitempty"`
	}
	govStackServices struct {
		Member []govStackService `json:"member"`
	}
	govStackService struct {
		govStackID
		ServiceType    string            `json:"serviceType"`
		ServiceCode    string            `json:"serviceCode"`
		ServiceVersion string            `json:"serviceVersion,omitempty"`
		EndpointList   govStackEndpoints `json:"endpointList"`
	}
	govStackEndpoints struct {
		Member []endpointJSON `json:"member"`
	}
)

// listClients lists an instance; one that is not visible has no members.
func (g *govStack) listClients(instance string) (string, []byte, error) {
	v, err := g.View()
	if err != nil {
		return "", nil, err
	}
	if instance == "" {
		instance = v.Instance()
	}
	list := govStackClients{[]govStackClient{}}
	for c, name := range v.Clients(instance) {
		kind := "MEMBER"
		if !c.IsMember() {
			kind = "APPLICATION"
		}
		member, subsystem := names(v, c, name)
		if subsystem == "" {
			subsystem = member
		}
		m := c.Member()
		list.Member = append(list.Member, govStackClient{subsystem, govStackID{kind, m.Instance(), m.Class(), m.Code(), c.Subsystem()}})
	}
	return encoded(list)
}

func encoded(v any) (string, []byte, error) {
	b, err := json.Marshal(v)
	return typeJSON, b, err
}

// methods asks a provider for its services and translates the answer.
func (g *govStack) methods(w http.ResponseWriter, r *http.Request, provider id.Client, service string) (string, []byte, error) {
	a, err := g.ask(w, r, provider, service, "")
	if err != nil {
		return "", nil, err
	}
	list := govStackServices{[]govStackService{}}
	switch {
	case strings.HasSuffix(a.code(), ".unknown_member"):
		return encoded(list)
	case a.code() != "" || a.status != http.StatusOK:
		return "", nil, a.refusal()
	}
	if bytes.Count(a.body.Bytes(), []byte(",")) > maxGovStackList {
		return "", nil, &govStackError{http.StatusInternalServerError, "The provider's answer is too long"}
	}
	var theirs servicesJSON
	if err := json.Unmarshal(a.body.Bytes(), &theirs); err != nil {
		return "", nil, &govStackError{http.StatusInternalServerError, "The provider's answer is malformed"}
	}
	for _, s := range theirs.Services {
		if s.Endpoints == nil {
			s.Endpoints = []endpointJSON{}
		}
		list.Member = append(list.Member, govStackService{
			govStackID:  govStackID{s.ObjectType, s.Instance, s.MemberClass, s.MemberCode, s.SubsystemCode},
			ServiceType: s.ServiceType, ServiceCode: s.ServiceCode, EndpointList: govStackEndpoints{s.Endpoints}})
	}
	return encoded(list)
}

// openAPI asks a provider for a document. It goes on as a string in JSON or, to
// who accepts YAML, as it is.
func (g *govStack) openAPI(w http.ResponseWriter, r *http.Request, provider id.Client) (string, []byte, error) {
	code := r.URL.Query().Get("serviceCode")
	if code == "" {
		return "", nil, badRequest("The parameter serviceCode is missing")
	}
	a, err := g.ask(w, r, provider, "getOpenAPI", "?"+url.Values{"serviceCode": {code}}.Encode())
	if err != nil {
		return "", nil, err
	}
	if a.code() != "" || a.status != http.StatusOK {
		return "", nil, a.refusal()
	}
	if strings.Contains(r.Header.Get("Accept"), "yaml") {
		return "text/yaml; charset=utf-8", a.body.Bytes(), nil
	}
	return encoded(a.body.String())
}

// client returns who asks: the first known client that a header names.
func (g *govStack) client(h http.Header) (id.Client, error) {
	for _, name := range []string{"X-GovStack-Client", "Information-Mediator-Client", "X-Road-Client"} {
		if c, err := id.ParseClient(h.Get(name)); err == nil && g.Known(c) {
			return c, nil
		}
	}
	if g.Default.IsZero() {
		return id.Client{}, badRequest("The header X-GovStack-Client must name an application of this security server, as instance/class/member/application")
	}
	return g.Default, nil
}

// ask calls a metadata service of a provider, as an information system would.
func (g *govStack) ask(w http.ResponseWriter, r *http.Request, provider id.Client, service, query string) (*govStackAnswer, error) {
	client, err := g.client(r.Header)
	if err != nil {
		return nil, err
	}
	question, err := http.NewRequestWithContext(r.Context(), http.MethodGet, "/r1/"+provider.String()+"/"+service+query, http.NoBody)
	if err != nil {
		return nil, badRequest("The path is malformed")
	}
	question.Header.Set("X-Road-Client", client.String())
	question.RemoteAddr, question.TLS = r.RemoteAddr, r.TLS
	a := &govStackAnswer{ResponseWriter: w, header: http.Header{}}
	g.Client.ServeHTTP(a, question)
	return a, nil
}

// maxGovStack bounds an answer that is translated, in bytes.
const maxGovStack = 16 << 20

// maxGovStackList bounds a list that is translated, in commas: an item of a few
// bytes takes hundreds in memory, and its provider may be anyone. An endpoint has
// two, a service ten.
const maxGovStackList = 200_000

// govStackAnswer keeps an answer of the client proxy in memory. Deadlines are
// those of the connection behind it.
type govStackAnswer struct {
	http.ResponseWriter
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *govStackAnswer) Header() http.Header { return a.header }

func (a *govStackAnswer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// Flush keeps the client proxy from sending what is not translated yet.
func (a *govStackAnswer) Flush() {}

func (a *govStackAnswer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

func (a *govStackAnswer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	if a.body.Len()+len(p) > maxGovStack {
		a.status = http.StatusBadGateway
		return 0, io.ErrShortWrite
	}
	return a.body.Write(p)
}

// code returns the code of a fault, empty if there is none. Peers and
// configurations differ in spelling.
func (a *govStackAnswer) code() string { return fault.Normalise(a.header.Get("X-Road-Error")) }

// refusal makes an error of a fault. X-Road has no codes for most mistakes of
// those who ask for documents.
func (a *govStackAnswer) refusal() error {
	var f struct{ Message string }
	if err := json.Unmarshal(a.body.Bytes(), &f); err != nil || f.Message == "" {
		return &govStackError{http.StatusInternalServerError, "The provider's answer cannot be passed on"}
	}
	for _, code := range []string{".unknown_member", ".unknown_service", ".invalid_request", ".service_type"} {
		if strings.HasSuffix(a.code(), code) {
			return badRequest(f.Message)
		}
	}
	for _, text := range []string{"Service not found: ", "Invalid service type: "} {
		if strings.HasPrefix(f.Message, text) {
			return badRequest(f.Message)
		}
	}
	return &govStackError{http.StatusInternalServerError, f.Message}
}
