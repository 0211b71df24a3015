// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/google/uuid"

	"kontor/registry/id"
)

// The SOAP service of the sandbox: personQuery, which sends back whatever is
// attached to the question.

const (
	soapText = "text/xml; charset=UTF-8"

	// MTOM: an envelope whose body refers to an attachment (W3C XOP 1.0).
	soapXOP   = `application/xop+xml; charset=UTF-8; type="text/xml"`
	xopParams = `type="application/xop+xml"; start="<question@sandbox.example>"; start-info="text/xml"`
	xopForm   = `<form><xop:Include xmlns:xop="http://www.w3.org/2004/08/xop/include" href="cid:form@sandbox.example"/></form>`
)

// maxQuestion bounds the envelope that the sample service reads, in bytes.
const maxQuestion = 1 << 20

// soapBody finds the content of the body and its own name, prefix included.
var soapBody = regexp.MustCompile(`(?s)(<(?:[\w.-]+:)?Body\b[^>]*>)(.*)(</(?:[\w.-]+:)?Body\s*>)`)

// xopInclude finds what a body refers to.
var xopInclude = regexp.MustCompile(`<(?:[\w.-]+:)?Include\b[^>]*\bhref=["'](cid:[^"'<&]*)["']`)

// personCode finds the code of the person asked for.
var personCode = regexp.MustCompile(`<(?:[\w.-]+:)?code\b[^>]*>\s*([^<]*?)\s*</`)

// servePersonQuery answers with the header of the question, as the protocol
// wants it, and a body of its own.
func servePersonQuery(w http.ResponseWriter, r *http.Request) {
	media, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		http.Error(w, "no proper Content-Type", http.StatusUnsupportedMediaType)
		return
	}
	if media != "multipart/related" {
		question, err := io.ReadAll(io.LimitReader(r.Body, maxQuestion))
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		answer, status := answerPersonQuery(question)
		w.Header().Set("Content-Type", soapText)
		w.WriteHeader(status)
		_, _ = w.Write(answer) // the asker may have gone
		return
	}
	// Attachments go back while they come.
	if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
		panic(err)
	}
	in, out := multipart.NewReader(r.Body, params["boundary"]), multipart.NewWriter(w)
	for first := true; ; first = false {
		part, err := in.NextRawPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		var content io.Reader = part
		header := part.Header
		if first {
			question, err := io.ReadAll(io.LimitReader(part, maxQuestion))
			if err != nil {
				panic(http.ErrAbortHandler)
			}
			answer, status := answerPersonQuery(question)
			if status != http.StatusOK {
				w.Header().Set("Content-Type", soapText)
				w.WriteHeader(status)
				_, _ = w.Write(answer)
				return
			}
			// The answer is what the question was, MTOM too.
			params["boundary"] = out.Boundary()
			w.Header().Set("Content-Type", mime.FormatMediaType(media, params))
			content = bytes.NewReader(answer)
		}
		p, err := out.CreatePart(header)
		if err == nil {
			_, err = io.Copy(p, content)
		}
		if err != nil {
			panic(http.ErrAbortHandler) // half an answer must not look whole
		}
	}
	if err := out.Close(); err != nil {
		panic(http.ErrAbortHandler)
	}
}

func answerPersonQuery(question []byte) (answer []byte, status int) {
	refuse := func(text string) ([]byte, int) {
		return []byte(`<?xml version="1.0" encoding="UTF-8"?><e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Body><e:Fault><faultcode>e:Client</faultcode><faultstring>` +
			text + `</faultstring></e:Fault></e:Body></e:Envelope>`), http.StatusInternalServerError
	}
	m := soapBody.FindSubmatchIndex(question)
	if m == nil {
		return refuse("this is not a SOAP message")
	}
	code := personCode.FindSubmatch(question[m[4]:m[5]])
	if code == nil {
		return refuse("the question has no code")
	}
	p, ok := persons[string(code[1])]
	if !ok {
		return refuse("no such person")
	}
	var b bytes.Buffer
	b.Write(question[:m[4]])
	b.WriteString(`<p:personQueryResponse xmlns:p="http://sandbox.example/population">`)
	for _, field := range []string{"code", "name", "born", "residence"} {
		b.WriteString("<" + field + ">")
		_ = xml.EscapeText(&b, []byte(fmt.Sprint(p[field]))) // to memory
		b.WriteString("</" + field + ">")
	}
	if cid := xopInclude.FindSubmatch(question[m[4]:m[5]]); cid != nil {
		b.WriteString(`<form><xop:Include xmlns:xop="http://www.w3.org/2004/08/xop/include" href="` + string(cid[1]) + `"/></form>`)
	}
	b.WriteString("</p:personQueryResponse>")
	b.Write(question[m[5]:])
	return b.Bytes(), http.StatusOK
}

// envelopeFor makes the question of a client.
func envelopeFor(c sampleCall, messageID string) (string, error) {
	client, err := id.ParseClient(c.client)
	if err != nil {
		return "", err
	}
	service, err := id.ParseService(c.service)
	if err != nil {
		return "", err
	}
	owner := service.Owner()
	names := func(c id.Client) string {
		m := c.Member()
		return "<id:xRoadInstance>" + m.Instance() + "</id:xRoadInstance><id:memberClass>" + m.Class() + "</id:memberClass><id:memberCode>" + m.Code() +
			"</id:memberCode><id:subsystemCode>" + c.Subsystem() + "</id:subsystemCode>"
	}
	return `<?xml version="1.0" encoding="UTF-8"?>
<soap:Envelope xmlns:soap="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xro="http://x-road.eu/xsd/xroad.xsd" xmlns:id="http://x-road.eu/xsd/identifiers">
<soap:Header>
<xro:client id:objectType="SUBSYSTEM">` + names(client) + `</xro:client>
<xro:service id:objectType="SERVICE">` + names(owner) + `<id:serviceCode>` + service.Code() + `</id:serviceCode></xro:service>
<xro:id>` + messageID + `</xro:id>
<xro:protocolVersion>4.0</xro:protocolVersion>
</soap:Header>
<soap:Body><p:` + service.Code() + ` xmlns:p="http://sandbox.example/population">` + c.body + `</p:` + service.Code() + `></soap:Body>
</soap:Envelope>
`, nil
}

// soapMessage makes the question of a client with an attachment, to which the
// body refers if the call is by MTOM.
func soapMessage(c sampleCall, messageID, boundary string) (contentType string, content []byte, err error) {
	envelope, err := envelopeFor(c, messageID)
	if err != nil {
		return "", nil, err
	}
	first, params := textproto.MIMEHeader{"Content-Type": {soapText}}, `type="text/xml"`
	if c.method == methodMTOM {
		first = textproto.MIMEHeader{"Content-Type": {soapXOP}, "Content-ID": {"<question@sandbox.example>"}}
		params = xopParams
	}
	var b bytes.Buffer
	parts := multipart.NewWriter(&b)
	if err := parts.SetBoundary(boundary); err != nil {
		return "", nil, err
	}
	for _, p := range []struct {
		header  textproto.MIMEHeader
		content string
	}{
		{first, envelope},
		{textproto.MIMEHeader{"Content-Type": {"text/plain"}, "Content-ID": {"<form@sandbox.example>"}}, "A form, signed by hand.\n"},
	} {
		w, err := parts.CreatePart(p.header)
		if err == nil {
			_, err = io.WriteString(w, p.content)
		}
		if err != nil {
			return "", nil, err
		}
	}
	err = parts.Close() // before the bytes are taken
	return "multipart/related; " + params + "; boundary=" + boundary, b.Bytes(), err
}

// sandboxExamples are SOAP messages to send by hand.
var sandboxExamples = []struct{ what, file, contentType string }{
	{"ask by SOAP, with an attachment, which comes back", "attachment.mime", `multipart/related; type="text/xml"; boundary=` + exampleBoundary},
	{"ask by SOAP with MTOM", "mtom.mime", "multipart/related; " + xopParams + "; boundary=" + exampleBoundary},
}

const exampleBoundary = "sandbox-example"

// writeExamples writes the examples to files.
func (s *sandbox) writeExamples() error {
	if err := os.MkdirAll(s.path("examples"), 0o700); err != nil {
		return err
	}
	for i, c := range sampleCalls[len(sampleCalls)-len(sandboxExamples):] {
		_, content, err := soapMessage(c, sandboxInstance+"-example-"+strings.ToLower(c.method), exampleBoundary)
		if err != nil {
			return err
		}
		if err := os.WriteFile(s.path("examples", sandboxExamples[i].file), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// soapCall makes a call by SOAP.
func (s *sandbox) soapCall(ctx context.Context, c sampleCall) (*answered, error) {
	messageID := sandboxInstance + "-" + uuid.NewString()
	contentType, content, err := soapMessage(c, messageID, "sandbox-"+uuid.NewString())
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+sandboxGateways[c.gateway].ip+":8080/", bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("SOAPAction", `""`)
	began := time.Now()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return nil, err
	}
	a := &answered{resp.StatusCode, messageID, "", b, time.Since(began)}
	if _, code, ok := strings.Cut(string(b), "<faultcode>"); ok {
		a.errorCode, _, _ = strings.Cut(code, "<")
	}
	return a, nil
}
