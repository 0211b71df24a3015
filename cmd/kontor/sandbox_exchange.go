// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"kontor/pki/asic"
	"kontor/registry/globalconf"
	"kontor/registry/id"
)

// sampleCall is one exchange of the sandbox.
type sampleCall struct {
	method, client, service, path, body string
	gateway                             int // of the client
}

// sampleCalls go each way, by REST, to an endpoint, and by SOAP.
var sampleCalls = []sampleCall{
	{"GET", "SANDBOX/GOV/1001/portal", "SANDBOX/GOV/2002/population/persons", "/38001010001", "", 0},
	{"POST", "SANDBOX/GOV/2002/population", "SANDBOX/GOV/1001/portal/messages", "", `{"text":"Record 38001010001 was read."}`, 1},
	{"GET", "SANDBOX/GOV/1001/portal", "SANDBOX/GOV/2002/population/residents", "/addresses/38001010001", "", 0},
	{methodSOAP, "SANDBOX/GOV/1001/portal", "SANDBOX/GOV/2002/population/personQuery", "", "<code>46002020002</code>", 0},
	{methodMTOM, "SANDBOX/GOV/1001/portal", "SANDBOX/GOV/2002/population/personQuery", "", "<code>46002020002</code>" + xopForm, 0},
}

// These mark calls that are not of REST: SOAP with an attachment, and with one
// that the body refers to.
const (
	methodSOAP = "SOAP"
	methodMTOM = "MTOM"
)

// answered is what came back.
type answered struct {
	status    int
	messageID string
	errorCode string
	body      []byte
	took      time.Duration
}

func (s *sandbox) call(ctx context.Context, c sampleCall) (*answered, error) {
	if c.method == methodSOAP || c.method == methodMTOM {
		return s.soapCall(ctx, c)
	}
	url := "http://" + sandboxGateways[c.gateway].ip + ":8080/r1/" + c.service + c.path
	req, err := http.NewRequestWithContext(ctx, c.method, url, strings.NewReader(c.body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-Road-Client", c.client)
	if c.body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	began := time.Now()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	return &answered{resp.StatusCode, resp.Header.Get("X-Road-Id"), resp.Header.Get("X-Road-Error"), b, time.Since(began)}, nil
}

// evidence downloads the containers that a gateway holds of a message, once
// they are time-stamped, and returns the zip.
func (s *sandbox) evidence(ctx context.Context, gateway int, holder, messageID string) ([]byte, error) {
	c, err := id.ParseClient(holder)
	if err != nil {
		return nil, err
	}
	query := url.Values{"queryId": {messageID}, "xRoadInstance": {c.Instance()}, "memberClass": {c.Member().Class()},
		"memberCode": {c.Member().Code()}, "subsystemCode": {c.Subsystem()}}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+sandboxGateways[gateway].ip+":8080/asic?"+query.Encode(), nil)
		if err != nil {
			return nil, err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return nil, err
		}
		b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
		resp.Body.Close()
		if err != nil {
			return nil, err
		}
		if resp.StatusCode == http.StatusOK {
			return b, nil
		}
		select { // most likely the time-stamp is still to come
		case <-ctx.Done():
			return nil, fmt.Errorf("%s has no evidence of %s: status %d: %s", gatewayName(gateway), messageID, resp.StatusCode, bytes.TrimSpace(b))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// verify stores the containers of a zip in the evidence folder and judges them
// by the gateway's global configuration, whose signature is checked with the
// anchor.
func (s *sandbox) verify(gateway int, archive []byte) ([]*asic.Report, error) {
	anchor, err := os.ReadFile(s.path("anchor.xml"))
	if err != nil {
		return nil, err
	}
	view, err := globalconf.LoadSignedDir(s.path(gatewayName(gateway), "globalconf"), anchor)
	if err != nil {
		return nil, err
	}
	z, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		return nil, err
	}
	folder := s.path("evidence", gatewayName(gateway))
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	var reports []*asic.Report
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			return nil, err
		}
		b, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil {
			return nil, err
		}
		name := folder + string(os.PathSeparator) + f.Name
		if err := os.WriteFile(name, b, 0o600); err != nil {
			return nil, err
		}
		report := asic.VerifyReader(bytes.NewReader(b), int64(len(b)), view, asic.Options{ClientName: view.Name})
		report.File = name
		reports = append(reports, report)
	}
	return reports, nil
}

// exchange makes one call and verifies the evidence of both gateways.
func (s *sandbox) exchange(ctx context.Context, c sampleCall) (*answered, []*asic.Report, error) {
	a, err := s.call(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	if a.errorCode != "" || a.status >= 300 {
		return a, nil, fmt.Errorf("status %d: %s", a.status, bytes.TrimSpace(a.body))
	}
	service, err := id.ParseService(c.service)
	if err != nil {
		return a, nil, err
	}
	var all []*asic.Report
	for _, side := range []struct {
		gateway int
		holder  string
	}{{c.gateway, c.client}, {1 - c.gateway, service.Owner().String()}} {
		archive, err := s.evidence(ctx, side.gateway, side.holder, a.messageID)
		if err != nil {
			return a, all, err
		}
		reports, err := s.verify(side.gateway, archive)
		if err != nil {
			return a, all, err
		}
		if len(reports) != 2 {
			return a, all, fmt.Errorf("%s holds %d records of %s, not a request and a response", gatewayName(side.gateway), len(reports), a.messageID)
		}
		all = append(all, reports...)
	}
	return a, all, nil
}

// check runs exchanges each way, by SOAP and with endpoint rights, asks for
// metadata, and makes calls that must be refused.
func (s *sandbox) check(ctx context.Context, ready time.Duration) error {
	fmt.Fprintf(s.out, "Sandbox ready in %s: %s\n", ready.Round(time.Millisecond), s.dir)
	failed := false
	report := func(ok bool, format string, a ...any) {
		mark := "ok    "
		if !ok {
			mark, failed = "FAILED", true
		}
		fmt.Fprintf(s.out, "%s  %s\n", mark, fmt.Sprintf(format, a...))
	}
	for _, c := range sampleCalls {
		a, reports, err := s.exchange(ctx, c)
		if err != nil {
			report(false, "%s %s → %s: %v", c.method, c.client, c.service, err)
			continue
		}
		report(true, "%s %s → %s: status %d in %s, message %s", c.method, c.client, c.service, a.status, a.took.Round(10*time.Microsecond), a.messageID)
		for _, r := range reports {
			detail := fmt.Sprintf("signed by %s, time-stamped %s", r.Member.LogString(), r.Stamped.UTC().Format(time.RFC3339))
			for _, f := range r.Failed() {
				detail = f.Name + ": " + f.Err
			}
			report(r.Valid, "  %s: %s", strings.TrimPrefix(r.File, s.dir+string(os.PathSeparator)), detail)
		}
	}
	for _, c := range []sampleCall{
		{"GET", "SANDBOX/GOV/1001/stranger", sampleCalls[0].service, sampleCalls[0].path, "", 0},
		{"PUT", "SANDBOX/GOV/1001/portal", "SANDBOX/GOV/2002/population/residents", "/addresses/38001010001", `{"residence":"Helsinki"}`, 0},
	} {
		a, err := s.call(ctx, c)
		if err != nil {
			report(false, "%s: %v", c.client, err)
			continue
		}
		report(a.errorCode == "server.serverproxy.access_denied", "%s %s → %s%s: refused with %s", c.method, c.client, c.service, c.path, a.errorCode)
	}
	for _, m := range []struct{ path, want string }{
		{"/listMethods", `"/statistics"`}, {"/allowedMethods", `"residents"`}, {"/getOpenAPI?serviceCode=residents", "url: '/residents'"},
	} {
		c := metadata(m.path)
		a, err := s.call(ctx, c)
		if err != nil {
			report(false, "%s: %v", m.path, err)
			continue
		}
		report(a.status == http.StatusOK && bytes.Contains(a.body, []byte(m.want)), "GET %s → %s%s: status %d, %d bytes", c.client, c.service, c.path, a.status, len(a.body))
	}
	if failed {
		fmt.Fprintf(s.out, "The check failed. Logs: %s\n", s.path("logs"))
		return errReported
	}
	fmt.Fprintf(s.out, "All is well. Evidence: %s\n", s.path("evidence"))
	return nil
}

// announce tells what runs where.
func (s *sandbox) announce(ready time.Duration) {
	fmt.Fprintf(s.out, "Kontor sandbox, ready in %s\n\n", ready.Round(time.Millisecond))
	row := func(what, where, note string) { fmt.Fprintf(s.out, "  %-15s %-24s %s\n", what, where, note) }
	row("registry", registryAddr, "publishes the global configuration of instance "+sandboxInstance)
	row("trust services", trustAddr, "certification authority, OCSP responder, time-stamping authority")
	for i, g := range sandboxGateways {
		row(gatewayName(i), g.ip+":8080", g.member+", security server "+g.server)
	}
	row("sample service", sampleAddr, "behind gateway-2 as persons, residents (OpenAPI) and personQuery (SOAP), behind gateway-1 as messages")
	fmt.Fprintf(s.out, "\nState, logs, evidence: %s\n\n", s.dir)
}

// demonstrate shows one exchange and what it leaves behind.
func (s *sandbox) demonstrate(ctx context.Context) error {
	c := sampleCalls[0]
	fmt.Fprintf(s.out, "1. %s asks %s:\n\n   %s\n\n", c.client, c.service, curlFor(c))
	a, reports, err := s.exchange(ctx, c)
	if err != nil {
		return fmt.Errorf("the exchange failed: %w", err)
	}
	fmt.Fprintf(s.out, "2. The answer, %s later, through both gateways:\n\n   %s\n\n", a.took.Round(100*time.Microsecond), bytes.TrimSpace(a.body))
	fmt.Fprintf(s.out, "3. Request and response lie signed and time-stamped in both message logs, as ASiC-E containers:\n\n")
	for _, r := range reports {
		verdict := "valid"
		if !r.Valid {
			verdict = "INVALID"
		}
		fmt.Fprintf(s.out, "   %-7s  %s\n", verdict, r.File)
	}
	fmt.Fprintf(s.out, "\n4. What an auditor sees of the last one:\n\n")
	var text bytes.Buffer
	if err := reports[len(reports)-1].Print(&text); err != nil {
		return err
	}
	for line := range strings.Lines(text.String()) {
		fmt.Fprint(s.out, "   "+line)
	}
	fmt.Fprintln(s.out)
	for _, r := range reports {
		if !r.Valid {
			return errors.New("the evidence is not valid")
		}
	}
	return nil
}

func curlFor(c sampleCall) string {
	options := ""
	if c.method != http.MethodGet {
		options = "-X " + c.method + " -d '" + c.body + "' "
	}
	return fmt.Sprintf("curl %s-H 'X-Road-Client: %s' 'http://%s:8080/r1/%s%s'", options, c.client, sandboxGateways[c.gateway].ip, c.service, c.path)
}

// metadata is a question of the portal about what the population agency offers.
func metadata(path string) sampleCall {
	return sampleCall{http.MethodGet, "SANDBOX/GOV/1001/portal", "SANDBOX/GOV/2002/population", path, "", 0}
}

// suggest prints commands to try.
func (s *sandbox) suggest() {
	self, err := os.Executable()
	if err != nil {
		self = "kontor"
	}
	stranger := sampleCalls[0]
	stranger.client = "SANDBOX/GOV/1001/stranger"
	try := func(what, command string) { fmt.Fprintf(s.out, "  # %s\n  %s\n\n", what, command) }
	fmt.Fprintf(s.out, "Try, in another terminal:\n\n")
	try("ask for a record", curlFor(sampleCalls[0]))
	try("ask without the right to", curlFor(stranger))
	asking := self + " call " + sampleCalls[0].service + sampleCalls[0].path + " --sandbox " + s.dir
	try("see every hop of it, where the time went, and the evidence; then why one may not", asking+" -v\n  "+asking+" --client "+stranger.client)
	move := sampleCalls[2]
	move.method, move.body = http.MethodPut, `{"residence":"Helsinki"}`
	try("ask a service that is described by OpenAPI, then report a move, to which there is no right", curlFor(sampleCalls[2])+"\n  "+curlFor(move))
	consumer := "http://" + sandboxGateways[0].ip + ":8080"
	try("see who is in the network, what the provider offers, what of it the portal may use, and how it is described", "curl "+consumer+"/listClients\n  "+
		curlFor(metadata("/listMethods"))+"\n  "+curlFor(metadata("/allowedMethods"))+"\n  "+curlFor(metadata("/getOpenAPI?serviceCode=residents")))
	for _, e := range sandboxExamples {
		try(e.what, "curl -H '"+"Content-Type: "+e.contentType+"' --data-binary @"+s.path("examples", e.file)+" "+consumer+"/")
	}
	try("see the same in the form of GovStack's Information Mediator", "curl http://"+sandboxGateways[0].ip+":8088/listClients\n  "+
		"curl -H 'X-GovStack-Client: "+sampleCalls[0].client+"' http://"+sandboxGateways[0].ip+":8088/r1/SANDBOX/GOV/2002/population/allowedMethods")
	try("register a new client by a request, as its organisation and as the registry's operator", self+" client add SANDBOX/GOV/2002/fresh --connection http --config "+s.path("gateway-2.yaml")+
		" && "+self+" client register SANDBOX/GOV/2002/fresh --config "+s.path("gateway-2.yaml")+" && "+self+" request list --pending --config "+s.path("registry.yaml"))
	try("see what the portal's gateway has logged", self+" log find --config "+s.path("gateway-1.yaml")+" --newest --limit 10")
	try("export the evidence and verify it offline, against the configuration anchor",
		self+" log export --config "+s.path("gateway-1.yaml")+" --newest --limit 2 --force --out evidence.zip && \\\n  "+
			self+" verify evidence.zip --anchor "+s.path("anchor.xml")+" --conf "+s.path("gateway-1", "globalconf"))
	try("see metrics and readiness", "curl http://"+sandboxGateways[0].ip+":9100/metrics ; curl http://"+sandboxGateways[0].ip+":9100/readyz")
	fmt.Fprintln(s.out, "Running until Ctrl-C.")
}
