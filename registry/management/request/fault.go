// SPDX-License-Identifier: Apache-2.0

package request

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
)

// Codes of faults that management services answer with.
const (
	CodeInvalidRequest    = "invalid_request"
	CodeInvalidXML        = "invalid_xml"
	CodeInvalidSOAP       = "invalid_soap"
	CodeInvalidBody       = "invalid_body"
	CodeContentType       = "invalid_content_type"
	CodeMIME              = "mime_parsing_failed"
	CodeMissingHeader     = "missing_header_field"
	CodeDuplicateHeader   = "duplicate_header_field"
	CodeProtocolVersion   = "invalid_protocol_version"
	CodeInconsistent      = "inconsistent_headers"
	CodeInvalidIdentifier = "invalid_client_identifier"
	CodeCertificate       = "cert_validation"
	CodeSignature         = "invalid_signature_value"
	CodeOCSP              = "incorrect_validation_info"
	CodeOutdated          = "global_conf_outdated"
	CodeInternal          = "internal_error" // with the registry's code and reason in the text, if it refused

	// A request that is sent again after its decision is answered so.
	CodeDeclined = "management_request_declined"
	CodeRevoked  = "management_request_revoked"
)

// Fault is a refusal as it is answered.
type Fault struct {
	Code   string // as above; prefixes such as "server.serverproxy." tell which hop refused
	Text   string
	Detail string // finds the refusal in the server's log
}

func (f *Fault) Error() string { return f.Code + ": " + f.Text }

// Is makes errors.Is compare faults by code.
func (f *Fault) Is(target error) bool {
	t, ok := target.(*Fault)
	return ok && t.Text == "" && t.Detail == "" && (f.Code == t.Code || strings.HasSuffix(f.Code, "."+t.Code))
}

func faultf(code, format string, args ...any) error {
	return &Fault{Code: code, Text: fmt.Sprintf(format, args...)}
}

// SOAP writes the fault.
func (f *Fault) SOAP() []byte {
	var b bytes.Buffer
	b.WriteString(`<?xml version="1.0" encoding="UTF-8"?><SOAP-ENV:Envelope xmlns:SOAP-ENV="` + soapNS + `"><SOAP-ENV:Body><SOAP-ENV:Fault>`)
	b.WriteString(`<faultcode>` + escape(f.Code) + `</faultcode><faultstring>` + escape(f.Text) + `</faultstring>`)
	if f.Detail != "" {
		b.WriteString(`<detail><faultDetail xmlns="">` + escape(f.Detail) + `</faultDetail></detail>`)
	}
	b.WriteString(`</SOAP-ENV:Fault></SOAP-ENV:Body></SOAP-ENV:Envelope>`)
	return b.Bytes()
}

// fault reads a fault element.
func (n *node) fault() *Fault {
	f := &Fault{Code: CodeInternal}
	for _, c := range n.children {
		switch c.name.Local {
		case "faultcode":
			f.Code = canonical(strings.TrimSpace(c.text))
		case "faultstring":
			f.Text = c.text
		case "detail":
			for _, d := range c.children {
				f.Detail = d.text
			}
		}
	}
	return f
}

// canonical writes the codes of older releases, as Server.ServerProxy.InvalidRequest,
// as they are written today.
func canonical(code string) string {
	segments := strings.Split(code, ".")
	for i, s := range segments {
		if s == "ClientProxy" || s == "ServerProxy" {
			segments[i] = strings.ToLower(s)
			continue
		}
		var b strings.Builder
		for j, r := range s {
			if unicode.IsUpper(r) {
				if j > 0 && !strings.HasSuffix(b.String(), "_") {
					b.WriteByte('_')
				}
				r = unicode.ToLower(r)
			}
			b.WriteRune(r)
		}
		segments[i] = b.String()
	}
	return strings.Join(segments, ".")
}
