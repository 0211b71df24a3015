// SPDX-License-Identifier: Apache-2.0

package testnet

import (
	"archive/zip"
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"

	"kontor/pki/asic"
	"kontor/registry/globalconf"
)

// Result is what an information system got from gateway A.
type Result struct {
	Status int
	Header http.Header
	Body   []byte
	ID     string // x-road-id of the answer
	Code   string // X-Road-Error
	Fault  struct {
		XMLName xml.Name `xml:"error" json:"-"`
		Type    string   `xml:"type" json:"type"`
		Message string   `xml:"message" json:"message"`
		Detail  string   `xml:"detail" json:"detail"`
	}
	Err error // the answer broke off
}

// Path returns the path of a service on the consumer's side.
func Path(service string) string { return "/r1/" + service }

// Call sends a request of client to gateway A by plain HTTP. header holds
// "Name: value" lines.
func (n *Network) Call(client, method, path string, body io.Reader, header ...string) *Result {
	n.tb.Helper()
	r := n.NewRequest(client, method, path, body, header...)
	return n.Do(http.DefaultTransport, r)
}

// NewRequest makes a request to gateway A. The path is sent as it is.
func (n *Network) NewRequest(client, method, path string, body io.Reader, header ...string) *http.Request {
	n.tb.Helper()
	r, err := http.NewRequestWithContext(n.Context(), method, "http://"+n.A.ip+":8080", body)
	if err != nil {
		n.tb.Fatal(err)
	}
	raw, query, found := strings.Cut(path, "?")
	r.URL = &url.URL{Scheme: "http", Host: n.A.ip + ":8080", Opaque: "//" + n.A.ip + ":8080" + raw, RawQuery: query, ForceQuery: found && query == ""}
	if client != "" {
		r.Header.Set("X-Road-Client", client)
	}
	for _, h := range header {
		name, value, _ := strings.Cut(h, ":")
		r.Header.Add(name, strings.TrimPrefix(value, " "))
	}
	return r
}

// Do sends any request.
func (n *Network) Do(t http.RoundTripper, r *http.Request) *Result {
	n.tb.Helper()
	resp, err := t.RoundTrip(r)
	if err != nil {
		return &Result{Err: err}
	}
	return readResult(resp)
}

func readResult(resp *http.Response) *Result {
	defer resp.Body.Close()
	res := &Result{Status: resp.StatusCode, Header: resp.Header, ID: resp.Header.Get("X-Road-Id"), Code: resp.Header.Get("X-Road-Error")}
	res.Body, res.Err = io.ReadAll(resp.Body)
	if res.Code == "" {
		return res
	}
	switch kind, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";"); kind {
	case "application/json":
		res.Err = json.Unmarshal(res.Body, &res.Fault)
	case "text/xml", "application/xml":
		res.Err = xml.Unmarshal(res.Body, &res.Fault)
	default:
		res.Err = fmt.Errorf("a fault of type %q", kind)
	}
	return res
}

// HTTPS returns a transport that speaks to gateway A by TLS, with a client
// certificate ("client", "wrong" or "").
func (n *Network) HTTPS(cert string) *http.Transport {
	conf := &tls.Config{InsecureSkipVerify: true}
	switch cert {
	case "client":
		conf.Certificates = []tls.Certificate{n.fix.client.TLS()}
	case "wrong":
		conf.Certificates = []tls.Certificate{n.fix.wrong.TLS()}
	}
	t := &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}
	n.tb.Cleanup(t.CloseIdleConnections)
	return t
}

// ToTLS directs a request of [Network.NewRequest] to the HTTPS listener.
func (n *Network) ToTLS(r *http.Request) *http.Request {
	r.URL.Scheme, r.URL.Host = "https", n.A.ip+":8443"
	r.URL.Opaque = strings.Replace(r.URL.Opaque, ":8080", ":8443", 1)
	r.Host = r.URL.Host
	return r
}

// Proof is one verified container.
type Proof struct {
	File      []byte
	Container *asic.Container
	Report    *asic.Report
	Message   []byte
	Body      []byte   // the first attachment; nil: none
	Bodies    [][]byte // all of them
}

// Proofs downloads and verifies the containers that a gateway holds of a
// message for one of its clients: request first, then response. They must be
// valid and bear a time-stamp.
func (n *Network) Proofs(g *Gateway, holder, messageID string) []*Proof {
	n.tb.Helper()
	view, err := globalconf.LoadSignedDir(filepath.Join(g.Cfg.DataDir, "globalconf"), n.Anchor)
	if err != nil {
		n.tb.Fatal(err)
	}
	c := ClientID(holder)
	query := url.Values{"queryId": {messageID}, "xRoadInstance": {c.Instance()}, "memberClass": {c.Member().Class()},
		"memberCode": {c.Member().Code()}, "subsystemCode": {c.Subsystem()}, "force": {""}}
	var archive []byte
	Eventually(n.tb, func() error {
		resp, err := http.Get("http://" + g.ip + ":8080/asic?" + query.Encode())
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		archive, err = io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("gateway %s has no evidence of %s: %s: %s", g.Name, messageID, resp.Status, archive)
		}
		return err
	})
	z, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		n.tb.Fatal(err)
	}
	var all []*Proof
	for _, f := range z.File {
		p := &Proof{}
		r := must(f.Open())
		p.File = must(io.ReadAll(r))
		r.Close()
		p.Report = asic.VerifyReader(bytes.NewReader(p.File), int64(len(p.File)), view, asic.Options{})
		if !p.Report.Valid {
			n.tb.Errorf("gateway %s: %s is not valid: %+v", g.Name, f.Name, p.Report.Failed())
			continue
		}
		if p.Container, err = asic.Open(bytes.NewReader(p.File), int64(len(p.File))); err != nil {
			n.tb.Fatal(err)
		}
		p.Message = p.Container.Message
		for _, a := range p.Container.Attachments {
			r := must(a.Open())
			p.Bodies = append(p.Bodies, must(io.ReadAll(r)))
			r.Close()
		}
		if len(p.Bodies) > 0 {
			p.Body = p.Bodies[0]
		}
		if strings.Contains(f.Name, "-request-") {
			all = append([]*Proof{p}, all...)
		} else {
			all = append(all, p)
		}
	}
	return all
}

// ReadResult reads the answer to a request that was written by hand.
func ReadResult(r *bufio.Reader, method string) (*Result, error) {
	resp, err := http.ReadResponse(r, &http.Request{Method: method})
	if err != nil {
		return nil, err
	}
	return readResult(resp), nil
}
