// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"kontor/cmd/roles"
	"kontor/registry/id"
)

// call is one request through a gateway, as the command line describes it.
type call struct {
	service string // what stands behind /r1/, or the service of a SOAP request
	method  string
	headers []string
	data    string
	soap    bool
	version string // of a SOAP service

	client, server, gateway, user  string
	certFile, keyFile, gatewayCert string
	insecure                       bool

	sandbox, config, conf, anchor string
	wait, timeout                 time.Duration
	verbose, head                 bool
	out, output                   string

	attach      []string // files that go with a SOAP request
	attachments string   // folder for those of the answer
	attached    []*attachment

	place     *sandboxFile // nil: not in a sandbox
	http      *http.Client
	messageID string
	errs      io.Writer // what is told beside the answer
}

const callHelp = `Send one request through a gateway, as an information system does, and print
the answer. SERVICE is what stands behind /r1/ in its path:

  instance/class/member/subsystem/service[/path][?query]

With --soap it is instance/class/member[/subsystem]/service, and -d is the
element in the body, a whole envelope, or nothing: then it is an empty element.
--attach sends a file with it (multipart/related, the envelope first), which the
body can name as cid:CONTENT-ID. Attachments of the answer are counted, and kept
by --save-attachments, decoded if they come as base64 or quoted-printable.

The answer is written while it comes, whatever its length; only --output json
holds it in memory, up to 256 MiB, unless -o names a file for the body.

-v shows the request, the certificate of the gateway, where the time went, and
the evidence, verified as an auditor does it: who signed, when, with which
certificate, and which authority stamped it. What happened inside a gateway
comes from its operational data, which --config gives access to, on its machine.

If it fails, the code is explained: which hop refused, what it means, and what
to do next.

In a folder with a running sandbox (./sandbox/sandbox.json), its gateways,
clients and anchor are the defaults.

Exit status: 0 answered, 1 refused, failed, or answered with an HTTP status of
400 and more, 2 wrong usage.`

func newCall() *cobra.Command {
	o := &call{}
	c := &cobra.Command{
		Use: "call SERVICE", Short: "Send one request through a gateway, and find out what happened to it", Long: callHelp,
		Example: `  kontor call SANDBOX/GOV/2002/population/persons/38001010001 -v
  kontor call DEV/GOV/2002/population/orders -d @order.json --client DEV/GOV/1001/portal --gateway http://10.0.0.1:8080
  kontor call --soap SANDBOX/GOV/2002/population/personQuery -d '<p:personQuery xmlns:p="http://sandbox.example/population"><code>46002020002</code></p:personQuery>'
  kontor call --soap SANDBOX/GOV/2002/population/personQuery -d @question.xml --attach 'form.pdf;type=application/pdf;id=form@example' --save-attachments answer
  kontor call --soap SANDBOX/GOV/2002/getSecurityServerHealthData`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, a []string) error {
			o.service, o.errs = strings.TrimPrefix(strings.TrimPrefix(a[0], "/r1"), "/"), c.ErrOrStderr()
			return o.run(c.Context(), c.InOrStdin(), c.OutOrStdout(), c.Flags().Changed("data"))
		},
	}
	f := c.Flags()
	f.StringVarP(&o.method, "request", "X", "", "HTTP method; GET, or POST with -d, unless given")
	f.StringArrayVarP(&o.headers, "header", "H", nil, `header line, "Name: value"; may be repeated`)
	f.StringVarP(&o.data, "data", "d", "", "body; @FILE reads it from a file, @- from standard input")
	f.BoolVar(&o.soap, "soap", false, "send a SOAP message")
	f.StringVar(&o.version, "service-version", "", "with --soap: version of the service")
	f.StringArrayVar(&o.attach, "attach", nil, "with --soap: attached file, `FILE[;type=TYPE][;id=CONTENT-ID]`; may be repeated (default id: attachment1@kontor, attachment2@kontor …)")
	f.StringVar(&o.attachments, "save-attachments", "", "with --soap: folder for the attachments of the answer")
	f.StringVar(&o.client, "client", "", "who asks: instance/class/member/subsystem")
	f.StringVar(&o.server, "server", "", "security server that is to answer: instance/class/member/server")
	f.StringVar(&o.user, "user", "", "value of X-Road-UserId")
	f.StringVar(&o.gateway, "gateway", "", "address of the own gateway for information systems (default http://localhost:8080)")
	f.StringVar(&o.certFile, "cert", "", "file with the TLS certificate of the client, PEM")
	f.StringVar(&o.keyFile, "key", "", "file with its key, PEM")
	f.StringVar(&o.gatewayCert, "gateway-cert", "", "file with the TLS certificate of the gateway (internal.pem of its data_dir)")
	f.BoolVarP(&o.insecure, "insecure", "k", false, "take any TLS certificate of the gateway")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "show request, hops, timing and evidence")
	f.BoolVarP(&o.head, "include", "i", false, "print status and headers of the answer, too")
	f.StringVarP(&o.out, "out", "o", "", "file for the body of the answer")
	f.DurationVar(&o.timeout, "max-time", 5*time.Minute, "give up after this")
	f.DurationVar(&o.wait, "wait", 5*time.Second, "with -v: wait so long for the time-stamp")
	f.StringVar(&o.config, "config", "", "with -v: configuration file of the own gateway, on its machine")
	f.StringVar(&o.conf, "conf", "", "with -v: folder with the global configuration that evidence is judged by (default: the gateway's own)")
	f.StringVar(&o.anchor, "anchor", "", "with -v: configuration anchor that it is verified with")
	f.StringVar(&o.sandbox, "sandbox", "sandbox", "folder of the sandbox")
	outputFlag(c, &o.output)
	c.MarkFlagsRequiredTogether("cert", "key")
	c.MarkFlagsMutuallyExclusive("gateway-cert", "insecure")
	for _, flag := range []string{"save-attachments", "sandbox"} {
		if err := c.MarkFlagDirname(flag); err != nil {
			panic(err)
		}
	}
	return c
}

// callResult is all that is known of a call.
type callResult struct {
	MessageID   string           `json:"message_id"`
	Status      int              `json:"status,omitempty"`
	Header      http.Header      `json:"header,omitempty"`
	Body        string           `json:"body,omitempty"` // base64 if it is not text; of a SOAP message the envelope
	Attachments []callAttachment `json:"attachments,omitempty"`
	Fault       *callFault       `json:"fault,omitempty"`
	Timing      *callTiming      `json:"timing,omitempty"`
	Hops        []callHop        `json:"hops,omitempty"`
	Evidence    *callEvidence    `json:"evidence,omitempty"`
	TLS         *callTLS         `json:"tls,omitempty"`

	begin []byte // of the body: enough for a fault
	http  *http.Response
}

func (o *call) run(ctx context.Context, in io.Reader, out io.Writer, hasData bool) error {
	if err := o.settle(); err != nil {
		return err
	}
	body, err := o.body(in)
	if err != nil {
		return err
	}
	defer o.closeAttachments()
	if err := o.openAttachments(); err != nil {
		return err
	}
	req, err := o.request(ctx, body, hasData)
	if err != nil {
		return err
	}
	if o.verbose {
		o.showRequest(req)
	}
	r, err := o.send(req)
	if err != nil {
		return o.unreachable(err)
	}
	defer r.http.Body.Close()
	if o.output == "table" {
		o.begin(out, r)
	}
	if err := o.take(out, r); err != nil {
		return err
	}
	o.findFault(r)
	if o.verbose || o.output == "json" && o.inside() {
		o.trace(ctx, r)
	}
	if o.verbose {
		o.findEvidence(ctx, r)
	}
	if o.output == "json" {
		if err := printJSON(out, r); err != nil {
			return err
		}
	} else if err := o.finish(r); err != nil {
		return err
	}
	if r.Fault != nil || r.Status >= http.StatusBadRequest {
		return errReported
	}
	return nil
}

// settle fills in what was not given, from the sandbox if there is one.
func (o *call) settle() error {
	if o.gateway == "" {
		place, err := readSandbox(o.sandbox)
		if err != nil {
			return err
		}
		o.place = place
		o.gateway = "http://localhost:8080"
		if place != nil {
			c, err := place.client(o.client)
			if err != nil {
				return err
			}
			o.client, o.gateway = c.ID, place.Gateways[c.Gateway].Consumer
		}
	}
	if o.client == "" {
		return usageError{errors.New("who asks? Give --client instance/class/member/subsystem")}
	}
	u, err := url.Parse(o.gateway)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" {
		return usageError{fmt.Errorf("--gateway %q is not an address such as http://10.0.0.1:8080", o.gateway)}
	}
	o.gateway = u.Scheme + "://" + u.Host
	return o.connect()
}

// connect makes the HTTP client: of TLS it takes the certificate that was named,
// one that the system trusts, or any.
func (o *call) connect() error {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.certFile != "" {
		pair, err := tls.LoadX509KeyPair(o.certFile, o.keyFile)
		if err != nil {
			return fmt.Errorf("--cert and --key: %w", err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	if o.gatewayCert != "" || o.insecure {
		conf.InsecureSkipVerify = true // the certificate itself is compared, not its chain
	}
	if o.gatewayCert != "" {
		der, err := roles.ReadDER(o.gatewayCert, "CERTIFICATE")
		if err != nil {
			return err
		}
		conf.VerifyConnection = func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 || !bytes.Equal(s.PeerCertificates[0].Raw, der) {
				return fmt.Errorf("the gateway's certificate is not that in %s", o.gatewayCert)
			}
			return nil
		}
	}
	o.http = &http.Client{
		Transport:     &http.Transport{TLSClientConfig: conf, DisableCompression: true, Proxy: nil},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       o.timeout,
	}
	return nil
}

func (o *call) body(in io.Reader) ([]byte, error) {
	name, ok := strings.CutPrefix(o.data, "@")
	switch {
	case !ok:
		return []byte(o.data), nil
	case name == "-":
		return io.ReadAll(in)
	}
	return os.ReadFile(name)
}

// request makes the request, and chooses its message id.
func (o *call) request(ctx context.Context, body []byte, hasData bool) (*http.Request, error) {
	client, err := id.ParseClient(o.client)
	if err != nil {
		return nil, usageError{fmt.Errorf("--client: %w", err)}
	}
	o.messageID = client.Instance() + "-" + uuid.NewString()
	if o.soap {
		return o.soapRequest(ctx, client, body)
	}
	if strings.Count(strings.TrimSuffix(o.service, "?"), "/") < 4 {
		return nil, usageError{fmt.Errorf("%q is no service; give instance/class/member/subsystem/service[/path][?query]", o.service)}
	}
	method := strings.ToUpper(o.method)
	if method == "" {
		method = http.MethodGet
		if hasData {
			method = http.MethodPost
		}
	}
	var content io.Reader
	if hasData {
		content = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, o.gateway+"/r1/"+o.service, content)
	if err != nil {
		return nil, usageError{err}
	}
	h := req.Header
	h.Set("X-Road-Client", client.String())
	h.Set("X-Road-Id", o.messageID)
	h["User-Agent"] = nil
	if o.server != "" {
		h.Set("X-Road-Security-Server", o.server)
	}
	if o.user != "" {
		h.Set("X-Road-UserId", o.user)
	}
	switch {
	case hasData && json.Valid(body):
		h.Set("Content-Type", "application/json")
	case hasData && utf8.Valid(body):
		h.Set("Content-Type", "text/plain; charset=utf-8")
	}
	if err := o.addHeaders(h); err != nil {
		return nil, err
	}
	o.messageID = h.Get("X-Road-Id")
	return req, nil
}

// addHeaders adds the header lines of the command, in place of our own.
func (o *call) addHeaders(h http.Header) error {
	given := map[string]bool{}
	for _, line := range o.headers {
		name, value, ok := strings.Cut(line, ":")
		if !ok || strings.TrimSpace(name) == "" {
			return usageError{fmt.Errorf(`-H %q is no header line; write "Name: value"`, line)}
		}
		name = http.CanonicalHeaderKey(strings.TrimSpace(name))
		if !given[name] {
			h.Del(name)
		}
		given[name] = true
		h.Add(name, strings.TrimSpace(value))
	}
	return nil
}

// send makes the call. The body of the answer is still to be read, and to be
// closed.
func (o *call) send(req *http.Request) (*callResult, error) {
	timing := new(callTiming)
	resp, err := o.http.Do(req.WithContext(timing.watch(req.Context())))
	if err != nil {
		return nil, err
	}
	return &callResult{MessageID: o.messageID, Status: resp.StatusCode, Header: resp.Header, Timing: timing, TLS: describeTLS(resp.TLS), http: resp}, nil
}

// unreachable tells why there is no answer, and what to do.
func (o *call) unreachable(err error) error {
	var inner *url.Error
	if errors.As(err, &inner) {
		err = inner.Err
	}
	next := "is it running? On its machine: kontor gateway status"
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	switch {
	case errors.As(err, &unknown), errors.As(err, &name):
		next = "give its certificate with --gateway-cert (internal.pem of its data_dir), or -k"
	case errors.Is(err, context.DeadlineExceeded):
		next = "raise --max-time, or see with -v in the gateway's log what it waits for"
	case o.place == nil && o.gateway == "http://localhost:8080":
		next = "give --gateway, or start a sandbox here: kontor sandbox"
	case o.place != nil:
		next = "does the sandbox still run? Start it again: kontor sandbox"
	}
	return fmt.Errorf("no answer from the gateway at %s: %w; %s", o.gateway, err, next)
}
