// SPDX-License-Identifier: Apache-2.0

package request

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"mime"
	"strings"
)

const (
	xmlType      = "text/xml; charset=UTF-8"
	binaryType   = "application/octet-stream"
	algorithmKey = "signature-algorithm-id" // X-Road reads it in lower case only

	maxParts       = 8
	maxPartHeaders = 16
	maxHeaderLine  = 1024
)

// Signature is a signature over the bytes of a request's SOAP.
type Signature struct {
	Algorithm string // by its Java name, such as SHA512withRSA
	Value     []byte // of ECDSA, in DER
}

// Message is a management request as it is transmitted. Fields that the form
// lacks, or that did not come, are nil.
type Message struct {
	SOAP    []byte // what the signatures cover, byte for byte
	Request *Request

	AuthSignature *Signature // of AuthCertReg: by the authentication key
	Signature     *Signature // by the signing key of the member
	AuthCert      []byte     // of AuthCertReg: certificate of the authentication key
	Cert          []byte     // certificate of the signing key
	OCSP          []byte     // response about Cert
}

// Encode writes the message as the body of an HTTP request.
func (m *Message) Encode() (contentType string, body []byte) {
	if !m.Request.Service.Signed() {
		return xmlType, m.SOAP
	}
	w := multipartWriter{boundary: "jetty" + rand.Text(), header: "Content-Type: "}
	if m.Request.Service == AuthCertReg {
		w = multipartWriter{boundary: "xroad" + rand.Text(), header: "content-type:"}
	}
	w.part(xmlType, "", m.SOAP)
	for _, s := range []*Signature{m.AuthSignature, m.Signature} {
		if s != nil {
			w.part(binaryType, s.Algorithm, s.Value)
		}
	}
	for _, p := range [][]byte{m.AuthCert, m.Cert, m.OCSP} {
		if p != nil {
			w.part(binaryType, "", p)
		}
	}
	return `multipart/related; type="` + binaryType + `"; charset=UTF-8; boundary=` + w.boundary, w.close()
}

type multipartWriter struct {
	boundary, header string
	b                bytes.Buffer
}

func (w *multipartWriter) part(contentType, algorithm string, body []byte) {
	if w.b.Len() > 0 {
		w.b.WriteString("\r\n")
	}
	w.b.WriteString("--" + w.boundary + "\r\n" + w.header + contentType + "\r\n")
	if algorithm != "" {
		w.b.WriteString(algorithmKey + ": " + algorithm + "\r\n")
	}
	w.b.WriteString("\r\n")
	w.b.Write(body)
}

func (w *multipartWriter) close() []byte {
	w.b.WriteString("\r\n--" + w.boundary + "--\r\n")
	return w.b.Bytes()
}

// Decode reads the body of an HTTP request: a multipart, or the SOAP alone.
// Missing parts are left to Complete, so that the message can tell what it is;
// superfluous ones are refused. The error is a *Fault.
func Decode(contentType string, body []byte) (*Message, error) {
	base, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return nil, faultf(CodeContentType, "invalid content type '%.80s'", contentType)
	}
	var all []bodyPart
	switch base {
	case "text/xml":
		all = []bodyPart{{header: map[string]string{"content-type": contentType}, content: body}}
	case "multipart/related":
		if all, err = splitParts(body, params["boundary"]); err != nil {
			return nil, faultf(CodeMIME, "malformed multipart: %v", err)
		}
	default:
		return nil, faultf(CodeContentType, "invalid content type '%.80s'", base)
	}
	for i, p := range all {
		if err := p.check(i == 0); err != nil {
			return nil, faultf(CodeContentType, "part %d: %v", i+1, err)
		}
	}
	m := &Message{SOAP: all[0].content}
	if m.Request, err = Parse(m.SOAP); err != nil {
		return nil, err
	}
	return m, m.attach(all[1:])
}

// attach gives the parts behind the SOAP their meaning, by their order.
func (m *Message) attach(all []bodyPart) error {
	signature := func(to **Signature) func(bodyPart) {
		return func(p bodyPart) { *to = &Signature{p.header[algorithmKey], p.content} }
	}
	content := func(to *[]byte) func(bodyPart) { return func(p bodyPart) { *to = p.content } }
	var slots []func(bodyPart)
	switch s := m.Request.Service; {
	case s == AuthCertReg:
		slots = []func(bodyPart){signature(&m.AuthSignature), signature(&m.Signature), content(&m.AuthCert), content(&m.Cert), content(&m.OCSP)}
	case s.Signed():
		slots = []func(bodyPart){signature(&m.Signature), content(&m.Cert), content(&m.OCSP)}
	}
	if len(all) > len(slots) {
		return faultf(CodeInvalidRequest, "%s has %d parts, there must be %d", m.Request.Service, len(all)+1, len(slots)+1)
	}
	for i, p := range all {
		slots[i](p)
	}
	return nil
}

// Complete tells which part is missing. The error is a *Fault.
func (m *Message) Complete() error {
	missing := func(what string) error { return faultf(CodeInvalidRequest, "%s is missing", what) }
	if m.Request.Service == AuthCertReg {
		switch {
		case m.AuthSignature == nil || m.AuthSignature.Algorithm == "":
			return missing("Auth signature algorithm id")
		case len(m.AuthSignature.Value) == 0:
			return missing("Auth signature")
		}
	}
	if m.Request.Service.Signed() {
		switch {
		case m.Signature == nil || m.Signature.Algorithm == "":
			return missing("Owner or client signature algorithm id")
		case len(m.Signature.Value) == 0:
			return missing("Owner or client signature")
		case m.Request.Service == AuthCertReg && len(m.AuthCert) == 0:
			return missing("Auth certificate")
		case len(m.Cert) == 0:
			return missing("Owner or client certificate")
		case len(m.OCSP) == 0:
			return missing("Owner or client certificate OCSP")
		}
	}
	return nil
}

// bodyPart is one part of a multipart, its header names in lower case.
type bodyPart struct {
	header  map[string]string
	content []byte
}

func (p *bodyPart) check(soap bool) error {
	base, params, err := mime.ParseMediaType(p.header["content-type"])
	if err != nil {
		return errors.New("no valid content type")
	}
	want := binaryType
	if soap {
		want = "text/xml"
		if c, ok := params["charset"]; ok && !strings.EqualFold(c, "UTF-8") {
			return fmt.Errorf("charset %.20q is not UTF-8", c)
		}
	}
	if base != want {
		return fmt.Errorf("content type %.80q is not %s", base, want)
	}
	switch strings.ToLower(p.header["content-transfer-encoding"]) {
	case "", "binary", "7bit", "8bit":
		return nil
	}
	return errors.New("the content is transfer-encoded")
}

// splitParts takes a multipart apart (RFC 2046, 5.1), without preamble and epilogue.
func splitParts(body []byte, boundary string) ([]bodyPart, error) {
	if len(boundary) == 0 || len(boundary) > 70 {
		return nil, errors.New("no valid boundary")
	}
	delimiter := []byte("\r\n--" + boundary)
	rest, ok := bytes.CutPrefix(body, delimiter[2:])
	if !ok {
		if rest, ok = bytes.CutPrefix(body, delimiter); !ok {
			return nil, errors.New("it does not begin with its boundary")
		}
	}
	var all []bodyPart
	for {
		if end, ok := bytes.CutPrefix(rest, []byte("--")); ok {
			if len(bytes.TrimSpace(end)) > 0 {
				return nil, errors.New("bytes follow the last part")
			}
			if len(all) == 0 {
				return nil, errors.New("no parts")
			}
			return all, nil
		}
		line, after, ok := bytes.Cut(rest, []byte("\r\n"))
		if !ok || len(bytes.Trim(line, " \t")) > 0 {
			return nil, errors.New("a boundary is not alone on its line")
		}
		if len(all) == maxParts {
			return nil, fmt.Errorf("more than %d parts", maxParts)
		}
		header, after, err := splitHeader(after)
		if err != nil {
			return nil, err
		}
		at := bytes.Index(after, delimiter)
		if bytes.HasPrefix(after, delimiter[2:]) {
			return nil, errors.New("a boundary takes the place of a part")
		}
		if at < 0 {
			return nil, errors.New("the last boundary is missing")
		}
		all = append(all, bodyPart{header, after[:at]})
		rest = after[at+len(delimiter):]
	}
}

func splitHeader(b []byte) (map[string]string, []byte, error) {
	header := map[string]string{}
	for {
		line, rest, ok := bytes.Cut(b, []byte("\r\n"))
		if !ok || len(line) > maxHeaderLine {
			return nil, nil, errors.New("a part's header does not end")
		}
		if len(line) == 0 {
			return header, rest, nil
		}
		name, value, ok := strings.Cut(string(line), ":")
		name = strings.ToLower(name)
		if !ok || name == "" || strings.ContainsAny(name, " \t") {
			return nil, nil, errors.New("a part's header is malformed")
		}
		if _, twice := header[name]; twice || len(header) == maxPartHeaders {
			return nil, nil, fmt.Errorf("header %.40q of a part occurs twice, or there are too many", name)
		}
		header[name], b = strings.TrimSpace(value), rest
	}
}
