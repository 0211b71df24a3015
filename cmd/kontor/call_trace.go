// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"kontor/gateway/admin"
)

// callTiming is what this program measures of a call.
type callTiming struct {
	Connect   time.Duration `json:"connect_ns"` // with the name's look-up
	TLS       time.Duration `json:"tls_ns,omitempty"`
	FirstByte time.Duration `json:"first_byte_ns"` // of the answer
	Total     time.Duration `json:"total_ns"`

	began, handshake time.Time
}

// watch returns a context in which a request is measured.
func (t *callTiming) watch(ctx context.Context) context.Context {
	t.began = time.Now()
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		ConnectDone:          func(string, string, error) { t.Connect = time.Since(t.began) },
		TLSHandshakeStart:    func() { t.handshake = time.Now() },
		TLSHandshakeDone:     func(tls.ConnectionState, error) { t.TLS = time.Since(t.handshake) },
		GotFirstResponseByte: func() { t.FirstByte = time.Since(t.began) },
	})
}

func (t *callTiming) end() { t.Total = time.Since(t.began) }

// callTLS is the connection to the own gateway.
type callTLS struct {
	Version     string    `json:"version"`
	Certificate string    `json:"certificate"` // subject
	SHA256      string    `json:"sha256"`
	NotAfter    time.Time `json:"not_after"`
}

func describeTLS(s *tls.ConnectionState) *callTLS {
	if s == nil || len(s.PeerCertificates) == 0 {
		return nil
	}
	c := s.PeerCertificates[0]
	return &callTLS{tls.VersionName(s.Version), c.Subject.String(), fmt.Sprintf("%x", sha256.Sum256(c.Raw)), c.NotAfter}
}

// callHop is where some of the time went.
type callHop struct {
	Where  string `json:"where"`
	What   string `json:"what"`
	Millis int64  `json:"ms"`
}

// inside tells whether the operational data of a gateway can be read.
func (o *call) inside() bool { return o.place != nil || o.config != "" }

// recordPatience is how long a record of the exchange is waited for: a gateway
// writes it after it has answered.
const recordPatience = 3 * time.Second

// trace finds out from the operational data of gateways where the time went.
func (o *call) trace(ctx context.Context, r *callResult) {
	if !o.inside() {
		return
	}
	var files []string
	if o.config != "" {
		files = append(files, o.config)
	} else {
		for _, g := range o.place.Gateways {
			files = append(files, g.Config)
		}
	}
	var consumer, provider *admin.Exchange
	for _, file := range files {
		records, err := o.records(ctx, file, o.config != "" || file == o.consumerConfig())
		if err != nil {
			fmt.Fprintf(o.errs, "kontor: no operational data: %v\n", err)
			continue
		}
		for i := range records {
			if records[i].SecurityServerType == "Client" {
				consumer = &records[i]
			} else {
				provider = &records[i]
			}
		}
	}
	r.Hops = hops(consumer, provider)
}

// consumerConfig is the configuration of the sandbox's gateway that was called.
func (o *call) consumerConfig() string {
	for _, g := range o.place.Gateways {
		if g.Consumer == o.gateway {
			return g.Config
		}
	}
	return ""
}

// records asks a gateway for its operational data of the message. If it must
// have some, it is given time to write it.
func (o *call) records(ctx context.Context, config string, must bool) ([]admin.Exchange, error) {
	api, err := (&gatewayFlags{config: config}).client()
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(recordPatience); ; {
		records, err := api.Exchanges(ctx, o.messageID, time.Time{}, 0)
		if err != nil || len(records) > 0 || !must && time.Now().Add(recordPatience-300*time.Millisecond).After(deadline) || time.Now().After(deadline) {
			return records, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// hops tells where the time of an exchange went. Clocks of different machines
// are never compared.
func hops(consumer, provider *admin.Exchange) []callHop {
	var all []callHop
	add := func(where, what string, from, to int64) {
		if from > 0 && to >= from {
			all = append(all, callHop{where, what, to - from})
		}
	}
	in := func(e *admin.Exchange) (string, string) {
		return strings.TrimSpace("consumer's security server " + e.ClientSecurityServerAddress), strings.TrimSpace("provider's security server " + e.ServiceSecurityServerAddress)
	}
	if consumer == nil {
		if provider == nil {
			return nil
		}
		consumer = &admin.Exchange{}
	}
	if c := consumer; c.RequestInTS > 0 {
		own, far := in(c)
		switch {
		case c.RequestOutTS == 0:
			add(own, "took the request, and refused it", c.RequestInTS, c.ResponseOutTS)
			return all
		default:
			add(own, "took the request, signed and logged it", c.RequestInTS, c.RequestOutTS)
		}
		if p := provider; p != nil && c.ResponseInTS > 0 {
			if there := p.ResponseOutTS - p.RequestInTS; c.ResponseInTS-c.RequestOutTS >= there {
				all = append(all, callHop{"network between the two", "both ways, with the connection if it is new", c.ResponseInTS - c.RequestOutTS - there})
			}
		} else if c.ResponseInTS > 0 {
			add(far, "with the network, and the service behind it", c.RequestOutTS, c.ResponseInTS)
		} else {
			add(far, "gave no answer, or could not be reached", c.RequestOutTS, c.ResponseOutTS)
		}
	}
	if p := provider; p != nil {
		_, far := in(p)
		switch {
		case p.RequestOutTS == 0:
			add(far, "took the request, and refused it", p.RequestInTS, p.ResponseOutTS)
		case p.ResponseInTS == 0:
			add(far, "verified, authorised and logged the request", p.RequestInTS, p.RequestOutTS)
			add("service", "gave no proper answer", p.RequestOutTS, p.ResponseOutTS)
		default:
			add(far, "verified, authorised and logged the request", p.RequestInTS, p.RequestOutTS)
			add("service", "answered", p.RequestOutTS, p.ResponseInTS)
			add(far, "signed and logged the response", p.ResponseInTS, p.ResponseOutTS)
		}
	}
	if c := consumer; c.ResponseInTS > 0 {
		own, _ := in(c)
		what := "verified and logged the response"
		if c.FaultCode != "" {
			what = "passed the fault on, or made its own of the response"
		}
		add(own, what, c.ResponseInTS, c.ResponseOutTS)
	}
	return all
}

func (o *call) showRequest(req *http.Request) {
	fmt.Fprintf(o.errs, "* %s asks through the gateway at %s\n", o.client, o.gateway)
	fmt.Fprintf(o.errs, "> %s %s\n", req.Method, req.URL.RequestURI())
	printHeader(o.errs, "> ", req.Header)
	for i, a := range o.attached {
		size := "of unknown length"
		if a.size >= 0 {
			size = fmt.Sprintf("%d bytes", a.size)
		}
		fmt.Fprintf(o.errs, "* with attachment %d, %q, %s, which the body names as cid:%s\n", i+1, a.contentType, size, a.contentID)
	}
	if req.ContentLength > 0 {
		fmt.Fprintf(o.errs, "* with a body of %d bytes\n", req.ContentLength)
	}
}

func (o *call) showAnswer(r *callResult) {
	if t := r.TLS; t != nil {
		fmt.Fprintf(o.errs, "* %s with the gateway, which has the certificate %s, valid until %s, SHA-256 %s\n", t.Version, t.Certificate, t.NotAfter.Format(time.DateOnly), t.SHA256)
	} else {
		fmt.Fprintln(o.errs, "* no TLS between here and the gateway")
	}
	fmt.Fprintf(o.errs, "< %s %s\n", r.http.Proto, r.http.Status)
	printHeader(o.errs, "< ", r.Header)
}

func (o *call) showTrace(r *callResult) {
	ms := func(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d)/float64(time.Millisecond)) }
	fmt.Fprintln(o.errs, "\nWhere the time went, in ms:")
	t := tabwriter.NewWriter(o.errs, 0, 8, 2, ' ', tabwriter.AlignRight)
	line := func(took, where, what string) { fmt.Fprintf(t, "%s\t  %s\n", took, where+": "+what) }
	line(ms(r.Timing.Connect), "here", "connected to the gateway")
	if r.Timing.TLS > 0 {
		line(ms(r.Timing.TLS), "here", "TLS with the gateway")
	}
	for _, h := range r.Hops {
		line(fmt.Sprint(h.Millis), h.Where, h.What)
	}
	line(ms(r.Timing.FirstByte), "here", "until the answer began")
	line(ms(r.Timing.Total), "here", "all of it")
	_ = t.Flush() // the terminal may have gone
	if !o.inside() {
		fmt.Fprintln(o.errs, "What happened inside: on the gateway's machine, with --config.")
	}
}

func printHeader(w io.Writer, mark string, h http.Header) {
	for _, name := range slices.Sorted(maps.Keys(h)) {
		for _, v := range h[name] {
			fmt.Fprintf(w, "%s%s: %s\n", mark, name, v)
		}
	}
}

// textOrBase64 returns bytes as JSON can hold them.
func textOrBase64(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	return base64.StdEncoding.EncodeToString(b)
}
