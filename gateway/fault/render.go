// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"bytes"
	"encoding/json"
	"strings"
	"unicode/utf8"
)

// Content types of rendered faults.
const (
	ContentTypeJSON    = "application/json"
	ContentTypeXML     = "application/xml;charset=utf-8"
	ContentTypeTextXML = "text/xml;charset=utf-8" // also of SOAP
)

// JSON returns {"type":…,"message":…,"detail":…}.
func (e *Error) JSON() []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	// Three strings cannot fail to encode.
	_ = enc.Encode(struct {
		Type    string `json:"type"`
		Message string `json:"message"`
		Detail  string `json:"detail"`
	}{e.code, e.Message(), e.detail})
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// XML returns the error document of the REST protocol, unindented.
func (e *Error) XML() []byte {
	b := []byte(`<?xml version="1.0" encoding="UTF-8" standalone="no"?><error>`)
	b = appendElement(b, "type", e.code)
	b = appendElement(b, "message", e.Message())
	b = appendElement(b, "detail", e.detail)
	return append(b, "</error>"...)
}

func appendElement(b []byte, name, text string) []byte {
	if text == "" {
		return append(append(append(b, '<'), name...), "/>"...)
	}
	b = append(append(append(b, '<'), name...), '>')
	b = appendEscaped(b, text, false)
	return append(append(append(b, "</"...), name...), '>')
}

// SOAP returns a SOAP 1.1 fault, or, for a fault read by [ParseSOAP], the very
// bytes that were read. The caller must not change them.
func (e *Error) SOAP() []byte {
	if e.raw != nil {
		return e.raw
	}
	b := []byte(`<?xml version="1.0" encoding="UTF-8"?>` +
		`<SOAP-ENV:Envelope xmlns:SOAP-ENV="` + soapNamespace + `"><SOAP-ENV:Body><SOAP-ENV:Fault><faultcode>`)
	b = appendEscaped(b, e.code, true)
	b = append(b, "</faultcode><faultstring>"...)
	b = appendEscaped(b, e.Message(), true)
	b = append(b, "</faultstring><faultactor>"...)
	b = appendEscaped(b, e.actor, true)
	b = append(b, "</faultactor>"...)
	if e.detail != "" {
		b = append(b, `<detail><faultDetail xmlns="">`...)
		b = appendEscaped(b, e.detail, true)
		b = append(b, "</faultDetail></detail>"...)
	}
	return append(b, "</SOAP-ENV:Fault></SOAP-ENV:Body></SOAP-ENV:Envelope>"...)
}

// appendEscaped appends s as XML 1.0 character data. What XML cannot carry
// becomes U+FFFD; a carriage return is written so that it survives parsing.
// X-Road escapes quotes in SOAP faults and leaves them alone in REST errors.
func appendEscaped(b []byte, s string, quotes bool) []byte {
	for _, r := range s {
		switch {
		case r == '&':
			b = append(b, "&amp;"...)
		case r == '<':
			b = append(b, "&lt;"...)
		case r == '>':
			b = append(b, "&gt;"...)
		case r == '"' && quotes:
			b = append(b, "&quot;"...)
		case r == '\'' && quotes:
			b = append(b, "&apos;"...)
		case r == '\r':
			b = append(b, "&#13;"...)
		case r < 0x20 && r != '\t' && r != '\n', r == 0xFFFE, r == 0xFFFF:
			b = utf8.AppendRune(b, utf8.RuneError)
		default:
			b = utf8.AppendRune(b, r) // ranging made invalid bytes U+FFFD
		}
	}
	return b
}

// NegotiateREST returns the body for a REST client and its content type: the
// first XML type in the Accept header wins, whatever its q; without one it is
// JSON.
func (e *Error) NegotiateREST(accept string) (contentType string, body []byte) {
	for entry := range strings.SplitSeq(accept, ",") {
		media, _, _ := strings.Cut(entry, ";")
		switch strings.ToLower(strings.TrimSpace(media)) {
		case "text/xml", "text/*":
			return ContentTypeTextXML, e.XML()
		case "application/xml":
			return ContentTypeXML, e.XML()
		}
	}
	return ContentTypeJSON, e.JSON()
}
