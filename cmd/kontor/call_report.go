// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"kontor/gateway/fault"
	"kontor/pki/asic"
	"kontor/registry/globalconf"
	"kontor/registry/id"
)

// callFault is why a call was refused, and what to do.
type callFault struct {
	Code    string `json:"code"`
	Where   string `json:"where"` // the hop that reports it
	Text    string `json:"text"`
	Meaning string `json:"meaning,omitempty"`
	Remedy  string `json:"remedy,omitempty"`
	Detail  string `json:"detail,omitempty"`
}

// findFault looks for a fault in the answer.
func (o *call) findFault(r *callResult) {
	if code := r.Header.Get("X-Road-Error"); code != "" {
		var doc struct {
			XMLName xml.Name `json:"-"`
			Message string   `json:"message" xml:"message"`
			Detail  string   `json:"detail" xml:"detail"`
		}
		if json.Unmarshal(r.begin, &doc) != nil {
			_ = xml.Unmarshal(r.begin, &doc) // else there is only the code
		}
		r.Fault = explain(code, doc.Message, doc.Detail)
		return
	}
	if !o.soap {
		return
	}
	if f, err := fault.ParseSOAP(r.begin); err == nil {
		r.Fault = explain(f.Code(), f.Message(), f.Detail())
	}
}

// explain finds a fault code in the table of all codes.
func explain(code, text, detail string) *callFault {
	f := &callFault{Code: code, Text: text, Detail: detail, Where: "the service itself"}
	normal := fault.Normalise(code)
	for _, o := range []struct{ prefix, where string }{
		{"client.", "the request, as the consumer's security server took it"},
		{"server.clientproxy.", "the consumer's security server"},
		{"server.serverproxy.", "the provider's security server"},
		{"signer.", "the keys of a security server"},
	} {
		if strings.HasPrefix(normal, o.prefix) {
			f.Where = o.where
			last := normal[strings.LastIndexByte(normal, '.')+1:]
			for _, e := range fault.Table() {
				if own := string(e.Code); own[strings.LastIndexByte(own, '.')+1:] == last {
					f.Meaning, f.Remedy = e.Meaning, e.Remedy
					f.Text, _, _ = strings.Cut(text, " Reported by ") // our own gateways say all of this in one line
				}
			}
		}
	}
	return f
}

func (f *callFault) print(w io.Writer) {
	fmt.Fprintf(w, "\nkontor: %s\n", f.Code)
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, l := range [][2]string{{"reported by", f.Where}, {"text", f.Text}, {"meaning", f.Meaning}, {"what to do", f.Remedy}} {
		if l[1] != "" {
			fmt.Fprintf(t, "  %s\t%s\n", l[0], l[1])
		}
	}
	if f.Detail != "" {
		fmt.Fprintf(t, "  detail\t%s, under which the log of that security server tells the cause\n", f.Detail)
	}
	_ = t.Flush() // the terminal may have gone
}

// callEvidence is what the own gateway can prove of the exchange.
type callEvidence struct {
	State   string        `json:"state"` // verified, invalid, not_stamped, none or unavailable
	Text    string        `json:"text"`
	Results *asic.Results `json:"results,omitempty"`
}

// errNotStamped: the time-stamp is still to come.
var errNotStamped = errors.New("not time-stamped yet")

// findEvidence downloads the evidence from the own gateway and verifies it.
func (o *call) findEvidence(ctx context.Context, r *callResult) {
	dir, err := os.MkdirTemp("", "kontor-call-")
	if err != nil {
		r.Evidence = &callEvidence{State: "unavailable", Text: err.Error()}
		return
	}
	defer os.RemoveAll(dir)
	found, err := o.download(ctx, filepath.Join(dir, "evidence.zip"))
	switch {
	case errors.Is(err, errNotStamped):
		r.Evidence = &callEvidence{State: "not_stamped", Text: "logged and signed, but " + err.Error() + "; fetch it later: " + o.evidenceURL()}
		return
	case err != nil:
		r.Evidence = &callEvidence{State: "unavailable", Text: err.Error()}
		return
	case !found:
		r.Evidence = &callEvidence{State: "none", Text: "the gateway has logged nothing: the request was refused before it was signed"}
		return
	}
	view, source, err := o.trust(ctx)
	if err != nil {
		r.Evidence = &callEvidence{State: "unavailable", Text: "whom to trust is not known: " + err.Error()}
		return
	}
	reports, err := o.verify(dir, view)
	if err != nil {
		r.Evidence = &callEvidence{State: "unavailable", Text: err.Error()}
		return
	}
	e := &callEvidence{State: "verified", Results: asic.NewResults(source, reports), Text: fmt.Sprintf("signed messages: %d", len(reports))}
	if !e.Results.Valid {
		e.State = "invalid"
	}
	r.Evidence = e
}

// verify judges each container in the evidence of an exchange. They may be as
// large as messages are, so they are unpacked into dir.
func (o *call) verify(dir string, view *globalconf.View) (reports []*asic.Report, err error) {
	z, err := zip.OpenReader(filepath.Join(dir, "evidence.zip"))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	for _, entry := range z.File {
		if err := func() error {
			f, err := os.Create(filepath.Join(dir, "container"))
			if err != nil {
				return err
			}
			defer f.Close()
			r, err := entry.Open()
			if err != nil {
				return err
			}
			defer r.Close()
			n, err := io.Copy(f, r)
			if err != nil {
				return err
			}
			report := asic.VerifyReader(f, n, view, asic.Options{ClientName: view.Name})
			report.File = entry.Name
			reports = append(reports, report)
			return nil
		}(); err != nil {
			return nil, err
		}
	}
	return reports, nil
}

// evidenceURL is where the own gateway has the evidence.
func (o *call) evidenceURL() string {
	c, err := id.ParseClient(o.client)
	if err != nil { // it has been read before
		panic(err)
	}
	q := url.Values{"queryId": {o.messageID}, "xRoadInstance": {c.Instance()}, "memberClass": {c.Member().Class()}, "memberCode": {c.Member().Code()}}
	if c.Subsystem() != "" {
		q.Set("subsystemCode", c.Subsystem())
	}
	return o.gateway + "/asic?" + q.Encode()
}

// download waits for the time-stamp and saves the zip of all signed documents of
// the exchange; it returns false if there are none.
func (o *call) download(ctx context.Context, file string) (bool, error) {
	for deadline := time.Now().Add(o.wait); ; {
		status, said, err := o.get(ctx, o.evidenceURL(), file)
		switch {
		case err != nil:
			return false, err
		case status == http.StatusOK:
			return true, nil
		case status == http.StatusNotFound:
			return false, nil
		case status != http.StatusInternalServerError || !bytes.Contains(said, []byte("timestamp")): // X-Road: "Message signature has not been timestamped yet!"
			return false, fmt.Errorf("the gateway refuses the evidence, with HTTP status %d: %s", status, bytes.TrimSpace(said))
		case time.Now().After(deadline):
			return false, errNotStamped
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// get saves what the gateway has at an address. Of anything but status 200 it
// returns the begin of the text.
func (o *call) get(ctx context.Context, url, file string) (status int, said []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, err
	}
	resp, err := o.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		said, err = io.ReadAll(io.LimitReader(resp.Body, 4<<10))
		return resp.StatusCode, said, err
	}
	f, err := os.Create(file)
	if err != nil {
		return 0, nil, err
	}
	_, err = io.Copy(f, resp.Body)
	return resp.StatusCode, nil, errors.Join(err, f.Close())
}

// trust returns the global configuration that evidence is judged by: the one
// that was named, the sandbox's, or the gateway's own word.
func (o *call) trust(ctx context.Context) (*globalconf.View, string, error) {
	conf, anchor := o.conf, o.anchor
	if conf == "" && o.place != nil {
		for _, g := range o.place.Gateways {
			if g.Consumer == o.gateway {
				conf, anchor = filepath.Join(g.Data, "globalconf"), o.place.Anchor
			}
		}
	}
	switch {
	case conf != "" && anchor != "":
		doc, err := os.ReadFile(anchor)
		if err != nil {
			return nil, "", err
		}
		view, err := globalconf.LoadSignedDir(conf, doc)
		return view, conf + ", verified with the anchor " + anchor, err
	case conf != "":
		view, err := globalconf.LoadDir(conf)
		return view, conf + ", trusted as it stands", err
	case anchor != "":
		return nil, "", errors.New("--anchor needs --conf")
	}
	return o.gatewayTrust(ctx)
}

// gatewayTrust takes the global configuration from the own gateway.
func (o *call) gatewayTrust(ctx context.Context) (*globalconf.View, string, error) {
	dir, err := os.MkdirTemp("", "kontor-call-")
	if err != nil {
		return nil, "", err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "conf.zip")
	status, _, err := o.get(ctx, o.gateway+"/verificationconf", file)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("the gateway has no /verificationconf: HTTP status %d; give --conf", status)
	}
	if err != nil {
		return nil, "", err
	}
	z, err := zip.OpenReader(file)
	if err != nil {
		return nil, "", err
	}
	defer z.Close()
	if err := os.CopyFS(dir, z); err != nil {
		return nil, "", err
	}
	view, err := globalconf.LoadDir(filepath.Join(dir, "verificationconf"))
	return view, "as the gateway at " + o.gateway + " tells it, which is no proof against that gateway; give --conf and --anchor for one", err
}

func (o *call) showEvidence(r *callResult) error {
	e := r.Evidence
	fmt.Fprintf(o.errs, "\nEvidence of message %s: %s, %s\n", r.MessageID, strings.ReplaceAll(e.State, "_", " "), e.Text)
	if e.Results == nil {
		return nil
	}
	return e.Results.Print(o.errs)
}
