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
	"regexp"
	"strings"
	"time"

	"github.com/google/uuid"

	"kontor/registry/id"
)

// The SOAP service of the sandbox: personQuery, which sends back whatever is
// attached to the question.

const soapText = "text/xml; charset=UTF-8"

// maxQuestion bounds the envelope that the sample service reads, in bytes.
const maxQuestion = 1 << 20

// soapBody finds the content of the body and its own name, prefix included.
var soapBody = regexp.MustCompile(`(?s)(<(?:[\w.-]+:)?Body\b[^>]*>)(.*)(</(?:[\w.-]+:)?Body\s*>)`)

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
			w.Header().Set("Content-Type", mime.FormatMediaType("multipart/related", map[string]string{"type": "text/xml", "boundary": out.Boundary()}))
			content, header = bytes.NewReader(answer), textproto.MIMEHeader{"Content-Type": {soapText}}
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

// soapCall makes a call by SOAP, with an attachment.
func (s *sandbox) soapCall(ctx context.Context, c sampleCall) (*answered, error) {
	messageID := sandboxInstance + "-" + uuid.NewString()
	envelope, err := envelopeFor(c, messageID)
	if err != nil {
		return nil, err
	}
	var content bytes.Buffer
	parts := multipart.NewWriter(&content)
	for _, p := range [][2]string{{soapText, envelope}, {"text/plain", "A form, signed by hand.\n"}} {
		w, err := parts.CreatePart(textproto.MIMEHeader{"Content-Type": {p[0]}})
		if err == nil {
			_, err = io.WriteString(w, p[1])
		}
		if err != nil {
			return nil, err
		}
	}
	if err := parts.Close(); err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+sandboxGateways[c.gateway].ip+":8080/", &content)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", `multipart/related; type="text/xml"; boundary=`+parts.Boundary())
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
