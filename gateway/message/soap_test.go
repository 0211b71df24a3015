// SPDX-License-Identifier: Apache-2.0

package message_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"kontor/gateway/message"
)

// soapMessage is the transport message of a SOAP request with two attachments.
const soapMessage = "--" + exampleBoundary + "\r\n" +
	"content-type: application/ocsp-response\r\n\r\n<ocsp>\r\n--" + exampleBoundary + "\r\n" +
	"content-type: text/xml; charset=UTF-8\r\nContent-ID: <envelope>\r\n\r\n%s\r\n--" + exampleBoundary + "\r\n" +
	"content-type: multipart/mixed; charset=UTF-8; boundary=" + attachmentBoundary + "\r\n\r\n" +
	"\r\n--" + attachmentBoundary + "\r\ncontent-type: text/plain\r\nContent-ID: <x>\r\nContent-Transfer-Encoding: base64\r\n\r\nb25l" +
	"\r\n--" + attachmentBoundary + "\r\ncontent-type: image/png\r\n\r\n" +
	"\r\n--" + attachmentBoundary + "--\r\n" +
	"\r\n--" + exampleBoundary + "\r\n" +
	"content-type: application/hash-chain-result\r\n\r\n<result>\n\r\n--" + exampleBoundary + "\r\n" +
	"content-type: application/hash-chain\r\n\r\n<chain>\n\r\n--" + exampleBoundary + "\r\n" +
	"content-type: signature/bdoc-1.0/ts\r\n\r\n<signature>\r\n--" + exampleBoundary + "--\r\n"

const attachmentBoundary = "xattAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

var envelopePart = message.Part{Kind: message.SOAPRequest, ContentType: "text/xml; charset=UTF-8",
	Fields: []message.Field{{Name: "Content-ID", Value: "<envelope>"}}}

func soapRequest(t testing.TB, doc string) *message.Request {
	t.Helper()
	r, err := message.ReadRequestPart(envelopePart, []byte(doc), exampleRequestID)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSOAPMessageOnTheWire(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	e := message.NewEncoderWithBoundary(&out, exampleBoundary)
	e.OCSP([]byte("<ocsp>"))
	e.Request(soapRequest(t, soapExample))
	e.StartAttachment("text/plain", []message.Field{{Name: "Content-ID", Value: "<x>"}, {Name: "Content-Transfer-Encoding", Value: "base64"}})
	io.WriteString(e.BodyWriter(), "b2")
	io.WriteString(e.BodyWriter(), "5l")
	e.StartPart(message.Part{Kind: message.SOAPAttachment, ContentType: "image/png"})
	e.HashChain([]byte("<result>\n"), []byte("<chain>\n"))
	e.Signature([]byte("<signature>"))
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf(soapMessage, soapExample)
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
	for sname, source := range sources {
		for rname, read := range readers {
			have, err := decode(source(strings.NewReader(want)), exampleType, message.SOAPRequest, message.Limits{}, read)
			if err != nil || fmt.Sprint(have) != fmt.Sprintf("[OCSP response \"<ocsp>\" SOAP request %q SOAP attachment \"b25l\" SOAP attachment \"\" hash chain result \"<result>\\n\" hash chain \"<chain>\\n\" signature \"<signature>\"]", soapExample) {
				t.Errorf("%s, %s: %v, %v", sname, rname, have, err)
			}
		}
	}
}

// Wherever a message with attachments is cut off, it is not taken for complete.
func TestSOAPCutOff(t *testing.T) {
	t.Parallel()
	doc := fmt.Sprintf(soapMessage, "<x/>")
	end := len(doc) - len("\r\n")
	for i := range doc {
		_, err := decode(strings.NewReader(doc[:i]), exampleType, message.SOAPRequest, message.Limits{}, message.Part.ReadAll)
		if i < end && (!errors.Is(err, message.ErrMalformed) || !errors.Is(err, io.ErrUnexpectedEOF)) || i >= end && err != nil {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
}

func TestAttachmentsFromPeers(t *testing.T) {
	t.Parallel()
	compose := func(ctype, nested string) string {
		return "--B\r\n" + parts['x'] + "<x>\r\n--B\r\ncontent-type: " + ctype + "\r\n\r\n" + nested + "\r\n--B\r\n" + parts['s'] + "<s>\r\n--B--\r\n"
	}
	const ctype = "multipart/mixed; boundary=A"
	one := "--A\r\ncontent-type: a/b\r\n\r\n<1>\r\n"
	for name, x := range map[string]struct {
		ctype, nested string
		want          string
		err           error
	}{
		"one":               {ctype, one + "--A--\r\n", "<1>", nil},
		"as Java writes":    {ctype, "\r\n" + one + "--A--\r\n", "<1>", nil},
		"three":             {ctype, "\r\n" + one + one + one + "--A--", "<1><1><1>", nil},
		"line feeds":        {ctype, strings.ReplaceAll("\r\n"+one+one+"--A--\r\n", "\r\n", "\n"), "<1><1>", nil},
		"none":              {ctype, "\r\n--A--\r\n", "", message.ErrMalformed},
		"nothing":           {ctype, "", "", message.ErrMalformed},
		"other boundary":    {ctype, strings.ReplaceAll(one+"--A--", "--A", "--C"), "", message.ErrMalformed},
		"open":              {ctype, one, "", message.ErrMalformed},
		"text behind":       {ctype, one + "--A--\r\nx", "", message.ErrMalformed},
		"second multipart":  {ctype, one + "--A--\r\n" + one + "--A--\r\n", "", message.ErrMalformed},
		"without type":      {ctype, "--A\r\ncontent-id: x\r\n\r\n<1>\r\n--A--\r\n", "", message.ErrContentType},
		"without boundary":  {"multipart/mixed", one + "--A--\r\n", "", message.ErrContentType},
		"not mixed":         {"multipart/related; boundary=A", one + "--A--\r\n", "", message.ErrContentType},
		"many":              {ctype, strings.Repeat(one, 101) + "--A--\r\n", "", message.ErrTooLarge},
		"as many as may be": {ctype, strings.Repeat(one, 100) + "--A--\r\n", strings.Repeat("<1>", 100), nil},
		"outer boundary":    {ctype, "--A\r\ncontent-type: a/b\r\n\r\n<1>\r\n--B\r\n" + one + "--A--\r\n", "", message.ErrMalformed},
	} {
		for sname, source := range sources {
			have, err := decode(source(strings.NewReader(compose(x.ctype, x.nested))), typeB, message.SOAPRequest, message.Limits{}, message.Part.ReadAll)
			if !errors.Is(err, x.err) || (err == nil) != (x.err == nil) {
				t.Errorf("%s, %s: %v, want %v", name, sname, err, x.err)
			}
			if err != nil {
				continue
			}
			got := ""
			for _, p := range have[1 : len(have)-1] {
				got += p.content
			}
			if got != x.want || have[len(have)-1].kind != message.Signature {
				t.Errorf("%s, %s: %v", name, sname, have)
			}
		}
	}
}

// decodeHTTP reads what an information system sent.
func decodeHTTP(r io.Reader, contentType string, l message.Limits, read func(message.Part) ([]byte, error)) (have []message.Part, contents []string, err error) {
	d, err := message.NewSOAPDecoder(r, contentType, message.SOAPRequest, l)
	if err != nil {
		return nil, nil, err
	}
	defer d.Close()
	for {
		p, err := d.Next()
		if err == io.EOF {
			return have, contents, nil
		}
		if err != nil {
			return have, contents, err
		}
		content, err := read(p)
		if err != nil {
			return have, contents, err
		}
		have, contents = append(have, p), append(contents, string(content))
	}
}

func TestSOAPOverHTTP(t *testing.T) {
	t.Parallel()
	const related = `multipart/related; type="text/xml"; start="<root>"; boundary="----=_Part_0"`
	first := "------=_Part_0\r\nContent-Type: text/xml; charset=UTF-8\r\n\r\n<x/>\r\n"
	second := "------=_Part_0\r\nContent-Type: image/png\r\nContent-ID: <y>\r\nX: \t1 \r\n\r\n\x00\r\n\r\n"
	last := "------=_Part_0--\r\n"
	for name, x := range map[string]struct {
		ctype, doc string
		want       []string
		err        error
	}{
		"bare":                 {"text/xml", "<x/>", []string{"<x/>"}, nil},
		"bare with charset":    {`Text/XML; charset="utf-8"`, "<x/>", []string{"<x/>"}, nil},
		"XOP":                  {`application/xop+xml; type="text/xml"`, "<x/>", []string{"<x/>"}, nil},
		"empty charset":        {`text/xml; charset=""`, "<x/>", []string{"<x/>"}, nil},
		"Latin-1":              {`text/xml; charset=ISO-8859-1`, "<x/>", nil, message.ErrContentType},
		"UTF-16":               {`text/xml; charset=UTF-16`, "<x/>", nil, message.ErrContentType},
		"SOAP 1.2":             {"application/soap+xml", "<x/>", nil, message.ErrContentType},
		"no type":              {"", "<x/>", nil, message.ErrContentType},
		"nonsense":             {"text/xml; charset", "<x/>", nil, message.ErrContentType},
		"long type":            {"text/xml; x=" + long(1000), "<x/>", nil, message.ErrContentType},
		"related":              {related, first + second + last, []string{"<x/>", "\x00\r\n"}, nil},
		"without attachments":  {related, first + last, []string{"<x/>"}, nil},
		"preamble":             {related, "This is MIME.\r\n" + first + second + last, []string{"<x/>", "\x00\r\n"}, nil},
		"line break before":    {related, "\r\n" + first + last, []string{"<x/>"}, nil},
		"epilogue":             {related, first + last + "bye\r\n" + first, []string{"<x/>"}, nil},
		"line feeds":           {related, strings.ReplaceAll(first+last, "\r\n", "\n"), []string{"<x/>"}, nil},
		"folded":               {related, strings.Replace(first, "text/xml; ", "text/xml;\r\n ", 1) + strings.Replace(second, "<y>", "\r\n\t<y>", 1) + last, []string{"<x/>", "\x00\r\n"}, nil},
		"multipart in it":      {related, first + strings.Replace(second, "image/png", "multipart/mixed; boundary=x", 1) + last, []string{"<x/>", "\x00\r\n"}, nil},
		"no boundary":          {"multipart/related", first + last, nil, message.ErrContentType},
		"mixed":                {strings.Replace(related, "related", "mixed", 1), first + last, nil, message.ErrContentType},
		"long preamble":        {related, strings.Repeat("hello\r\n", 20000) + first + last, nil, message.ErrMalformed},
		"long epilogue":        {related, first + last + strings.Repeat("hello\r\n", 20000), nil, message.ErrMalformed},
		"preamble only":        {related, "hello", nil, message.ErrMalformed},
		"nothing":              {related, "", nil, message.ErrMalformed},
		"no parts":             {related, last, nil, message.ErrMissingHead},
		"cut":                  {related, first + second, nil, message.ErrMalformed},
		"first of other type":  {related, second + first + last, nil, message.ErrContentType},
		"first without type":   {related, strings.Replace(first, "Content-Type", "X", 1) + last, nil, message.ErrContentType},
		"second without type":  {related, first + strings.Replace(second, "Content-Type", "Y", 1) + last, nil, message.ErrContentType},
		"envelope in Latin-1":  {related, strings.Replace(first, "UTF-8", "latin1", 1) + last, nil, message.ErrContentType},
		"OCSP response first":  {related, strings.Replace(first, "text/xml", "application/ocsp-response", 1) + last, nil, message.ErrContentType},
		"signature":            {related, first + strings.Replace(second, "image/png", "signature/bdoc-1.0/ts", 1) + last, []string{"<x/>", "\x00\r\n"}, nil},
		"attachments":          {related, first + strings.Repeat(second, 1000) + last, nil, message.ErrTooLarge},
		"large header":         {related, first + strings.Replace(second, "X: ", strings.Repeat("X: "+long(900)+"\r\n", 20), 1) + last, nil, message.ErrTooLarge},
		"control in a fold":    {related, strings.Replace(first, "text/xml; ", "text/xml;\r\n \x01", 1) + last, nil, message.ErrMalformed},
		"endless fold":         {related, strings.Replace(first, "text/xml; ", "text/xml;"+strings.Repeat("\r\n "+long(90), 20), 1) + last, nil, message.ErrTooLarge},
		"fold without a field": {related, strings.Replace(first, "Content-Type", " x\r\nContent-Type", 1) + last, nil, message.ErrMalformed},
	} {
		for sname, source := range sources {
			for rname, read := range readers {
				have, contents, err := decodeHTTP(source(strings.NewReader(x.doc)), x.ctype, message.Limits{}, read)
				if !errors.Is(err, x.err) || (err == nil) != (x.err == nil) {
					t.Fatalf("%s, %s, %s: %v, want %v", name, sname, rname, err, x.err)
				}
				if err != nil {
					continue
				}
				if !slices.Equal(contents, x.want) {
					t.Errorf("%s, %s, %s: %q", name, sname, rname, contents)
				}
				for i, p := range have {
					if (p.Kind == message.SOAPRequest) != (i == 0) || (p.Kind == message.SOAPAttachment) != (i > 0) {
						t.Errorf("%s: part %d is %v", name, i, p.Kind)
					}
				}
			}
		}
	}
	have, _, err := decodeHTTP(strings.NewReader(strings.Replace(first, "text/xml; ", "text/xml;\r\n\t", 1)+second+last), related, message.Limits{}, message.Part.ReadAll)
	if err != nil || have[0].ContentType != "text/xml;\tcharset=UTF-8" || have[1].ContentType != "image/png" ||
		!slices.Equal(have[1].Fields, []message.Field{{Name: "Content-ID", Value: "<y>"}, {Name: "X", Value: "1"}}) {
		t.Errorf("%+v, %v", have, err)
	}
}

func TestSOAPLimits(t *testing.T) {
	t.Parallel()
	doc := func(envelope, a, b int) string {
		return "--B\r\nContent-Type: text/xml\r\n\r\n" + long(envelope) + "\r\n--B\r\nContent-Type: a/b\r\n\r\n" + long(a) +
			"\r\n--B\r\nContent-Type: a/b\r\n\r\n" + long(b) + "\r\n--B--\r\n"
	}
	limits := message.Limits{SOAP: 100, Body: 200}
	for _, x := range []struct {
		envelope, a, b int
		ok             bool
	}{{100, 100, 100, true}, {101, 1, 1, false}, {1, 100, 101, false}, {1, 200, 0, true}, {1, 200, 1, false}, {1, 0, 200, true}, {1, 201, 0, false}} {
		for rname, read := range readers {
			_, _, err := decodeHTTP(strings.NewReader(doc(x.envelope, x.a, x.b)), `multipart/related; boundary=B`, limits, read)
			if (err == nil) != x.ok || err != nil && !errors.Is(err, message.ErrTooLarge) {
				t.Errorf("%v by %s: %v", x, rname, err)
			}
		}
	}
	_, _, err := decodeHTTP(strings.NewReader(long(101)), "text/xml", limits, message.Part.ReadAll)
	if !errors.Is(err, message.ErrTooLarge) {
		t.Error(err)
	}
	// Attachments between servers are bounded together, syntax included.
	nested := "\r\n--A\r\ncontent-type: a/b\r\n\r\n" + long(170) + "\r\n--A--\r\n"
	_, err = decode(strings.NewReader("--B\r\n"+parts['x']+"<x>\r\n--B\r\ncontent-type: multipart/mixed; boundary=A\r\n\r\n"+nested+"\r\n--B\r\n"+parts['s']+"s\r\n--B--"),
		typeB, message.SOAPRequest, limits, message.Part.ReadAll)
	if !errors.Is(err, message.ErrTooLarge) {
		t.Error(err)
	}
}

func TestEncoderOfSOAPRefusesDisorder(t *testing.T) {
	t.Parallel()
	req := soapRequest(t, soapExample)
	resp, err := message.NewSOAPResponse(req, req.Hash(nil), envelopePart, []byte(soapExample))
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		parts string
		ok    bool
	}{
		{"qs", true}, {"oqacs", true}, {"qaaas", true}, {"ps", true}, {"pacs", true}, {"pf", true}, {"paf", true}, {"pacf", true}, {"qcs", true},
		{"a", false}, {"as", false}, {"qa", false}, {"qbs", false}, {"qcas", false}, {"qsa", false}, {"ras", false}, {"rbas", false},
		{"op", false}, {"qq", false}, {"qaq", false}, {"qao", false}, {"paaE", false}, {"fa", false},
	} {
		var out bytes.Buffer
		e := message.NewEncoderWithBoundary(&out, "B")
		for _, p := range x.parts {
			switch p {
			case 'o':
				e.OCSP([]byte("o"))
			case 'r':
				e.Head(message.RESTRequest, []byte("r"))
			case 'q':
				e.Request(req)
			case 'p':
				e.Response(resp)
			case 'a':
				e.StartAttachment("a/b", nil)
				io.WriteString(e.BodyWriter(), "a")
			case 'b':
				io.WriteString(e.BodyWriter(), "b")
			case 'E':
				e.EndBody()
				e.StartBody()
			case 'c':
				e.HashChain([]byte("h"), []byte("c"))
			case 's':
				e.Signature([]byte("s"))
			case 'f':
				e.Fault([]byte("f"))
			}
		}
		if err := e.Close(); (err == nil) != x.ok || err != nil && !errors.Is(err, message.ErrOrder) {
			t.Errorf("%q: %v", x.parts, err)
		}
		if x.ok {
			want := message.SOAPRequest
			if strings.Contains(x.parts, "p") {
				want = message.SOAPResponse
			}
			have, err := decode(&out, typeB, want, message.Limits{}, message.Part.ReadAll)
			if err != nil || len(have) != len(x.parts)+strings.Count(x.parts, "c") {
				t.Errorf("%q: own message refused: %v, %v", x.parts, have, err)
			}
		}
	}
	for _, f := range []message.Field{{Name: "a b", Value: "x"}, {Name: "a", Value: "x\r\ny: z"}, {Name: "", Value: "x"}, {Name: "a:", Value: ""}} {
		e := message.NewEncoder(io.Discard)
		e.Request(req)
		if err := e.StartAttachment("a/b", []message.Field{f}); !errors.Is(err, message.ErrHeader) {
			t.Errorf("%v: %v", f, err)
		}
	}
	e := message.NewEncoder(io.Discard)
	e.Request(req)
	if err := e.StartAttachment("a/b\r\n\r\nx", nil); !errors.Is(err, message.ErrHeader) {
		t.Error(err)
	}
}

func TestSOAPAnswers(t *testing.T) {
	t.Parallel()
	optional := "<xroad:userId>EE1</xroad:userId><xroad:issue>1</xroad:issue><repr:representedParty><repr:partyCode>p</repr:partyCode></repr:representedParty>"
	doc := envelope(soapHead + optional)
	req := soapRequest(t, doc)
	hash := req.Hash(nil)
	if hash != message.EnvelopeHash([]byte(doc)) || req.Kind() != message.SOAPRequest || req.AnswerKind() != message.SOAPResponse || req.RequestID != exampleRequestID {
		t.Errorf("%+v", req)
	}
	answer := func(doc string) (*message.Response, error) {
		return message.NewSOAPResponse(req, hash, envelopePart, []byte(strings.Replace(doc, "prod:getRandom", "prod:getRandomResponse", 1)))
	}
	good, err := answer(doc)
	if err != nil {
		t.Fatal(err)
	}
	if err := good.Answers(req, hash); err != nil || good.RequestHash != hash || good.ID != req.ID {
		t.Errorf("%+v, %v", good, err)
	}
	same := strings.NewReplacer("4.0<", "4.1<", "<xroad:id>", `<xroad:securityServer id:objectType="SERVER"><id:xRoadInstance>D</id:xRoadInstance><id:memberClass>C</id:memberClass>
		<id:memberCode>1</id:memberCode><id:serverCode>s</id:serverCode></xroad:securityServer><xroad:id>`).Replace(doc)
	if r, err := answer(same); err != nil || r.Answers(req, hash) != nil {
		t.Errorf("fields that may differ: %v", err)
	}
	for name, other := range map[string]string{
		"client":   strings.Replace(doc, "TestClient", "testClient", 1),
		"member":   strings.Replace(doc, "<id:subsystemCode>TestClient</id:subsystemCode>", "", 1),
		"service":  strings.Replace(doc, "TestService", "OtherService", 1),
		"version":  strings.Replace(doc, "<id:serviceVersion>v1</id:serviceVersion>", "", 1),
		"id":       strings.Replace(doc, "dd19fe68", "dd19fe68 ", 1),
		"user":     strings.Replace(doc, "EE1", "EE2", 1),
		"no user":  strings.Replace(doc, "<xroad:userId>EE1</xroad:userId>", "", 1),
		"issue":    strings.Replace(doc, ">1</xroad:issue>", "></xroad:issue>", 1),
		"no issue": strings.Replace(doc, "<xroad:issue>1</xroad:issue>", "", 1),
		"party":    strings.Replace(doc, "<repr:partyCode>", "<repr:partyClass>c</repr:partyClass><repr:partyCode>", 1),
	} {
		if other == doc {
			t.Fatal(name)
		}
		if _, err := answer(other); !errors.Is(err, message.ErrInconsistentHeaders) {
			t.Errorf("%s: %v", name, err)
		}
		with := readEnvelope(t, other).WithRequestHash(hash)
		r, err := message.ReadResponsePart(message.Part{Kind: message.SOAPResponse}, with)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Answers(req, hash); !errors.Is(err, message.ErrInconsistent) || !errors.Is(err, message.ErrInconsistentHeaders) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, raw := range [][]byte{[]byte(doc), readEnvelope(t, doc).WithRequestHash("other")} {
		r, err := message.ReadResponsePart(message.Part{Kind: message.SOAPResponse}, raw)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Answers(req, hash); !errors.Is(err, message.ErrInconsistent) || errors.Is(err, message.ErrInconsistentHeaders) {
			t.Errorf("hash %q: %v", r.RequestHash, err)
		}
		if err := r.Answers(exampleRequest(t), hash); !errors.Is(err, message.ErrInconsistent) {
			t.Errorf("answer to a REST request: %v", err)
		}
	}
	// An empty field is not the same as none.
	empty := soapRequest(t, envelope(soapHead+"<xroad:userId/>"))
	if _, err := message.NewSOAPResponse(empty, "h", envelopePart, []byte(soapExample)); !errors.Is(err, message.ErrInconsistentHeaders) {
		t.Error(err)
	}

	fault := []byte(soapStart + "<SOAP-ENV:Body><SOAP-ENV:Fault/></SOAP-ENV:Body>" + soapEnd)
	if _, err := message.ReadRequestPart(envelopePart, fault, "1"); !errors.Is(err, message.ErrFault) {
		t.Error(err)
	}
	if _, err := message.ReadResponsePart(message.Part{Kind: message.SOAPResponse}, fault); !errors.Is(err, message.ErrFault) {
		t.Error(err)
	}
	if _, err := message.NewSOAPResponse(req, hash, envelopePart, fault); !errors.Is(err, message.ErrFault) {
		t.Error(err)
	}
	if _, err := message.ReadRequestPart(envelopePart, []byte(doc), ""); !errors.Is(err, message.ErrHeader) {
		t.Error(err)
	}
}

func TestReadPartsOfREST(t *testing.T) {
	t.Parallel()
	req, err := message.ReadRequestPart(message.Part{Kind: message.RESTRequest}, []byte(exampleHead), exampleRequestID)
	if err != nil || req.SOAP != nil || req.Kind() != message.RESTRequest || req.AnswerKind() != message.RESTResponse || req.Hash(nil) != exampleHeadHash {
		t.Fatalf("%+v, %v", req, err)
	}
	if h := req.Hash(message.Content{{Body: bodyOf(t, spool(t), exampleBody)}}); h != exampleHash {
		t.Error(h)
	}
	made, err := message.NewResponse(req, exampleHash, 200, "OK", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := message.ReadResponsePart(message.Part{Kind: message.RESTResponse}, made.Raw)
	if err != nil || resp.Answers(req, exampleHash) != nil {
		t.Errorf("%+v, %v", resp, err)
	}
	var byHead, byRequest bytes.Buffer
	e := message.NewEncoderWithBoundary(&byHead, "B")
	e.Head(message.RESTRequest, req.Raw)
	e.Flush()
	e = message.NewEncoderWithBoundary(&byRequest, "B")
	e.Request(req)
	e.Flush()
	if !bytes.Equal(byHead.Bytes(), byRequest.Bytes()) {
		t.Error(byRequest.String())
	}
}

func TestSOAPAction(t *testing.T) {
	t.Parallel()
	for action, ok := range map[string]bool{
		"": true, `""`: true, `"urn:x"`: true, `"http://example.org/a?b=c#d"`: true, `"a/b%20c"`: true,
		`urn:x`: false, `"`: false, `"urn:x`: false, `urn:x"`: false, `"a b"`: false, `"a"b"`: false, `"%zz"`: false, `"a\b"`: false,
		"\"\u00e4\"": false, `"<x>"`: false, `":x"`: false, `"` + long(9000) + `"`: false, ` "urn:x"`: false,
	} {
		got, err := message.CheckSOAPAction([]string{action})
		if (err == nil) != ok || err != nil && !errors.Is(err, message.ErrSOAPAction) || ok && got != action {
			t.Errorf("%s: %q, %v", action, got, err)
		}
	}
	if got, err := message.CheckSOAPAction(nil); got != "" || err != nil {
		t.Error(err)
	}
	if _, err := message.CheckSOAPAction([]string{"", ""}); !errors.Is(err, message.ErrSOAPAction) {
		t.Error(err)
	}
}

// content makes attachments.
func content(t testing.TB, s *message.Spool, contents ...string) message.Content {
	t.Helper()
	var c message.Content
	for i, x := range contents {
		a := s.NewAttachment(message.Part{ContentType: fmt.Sprintf("text/plain; n=%d", i), Fields: []message.Field{{Name: "Content-ID", Value: "<a>"}}})
		if _, err := io.WriteString(a.Body, x); err != nil {
			t.Fatal(err)
		}
		c = append(c, a)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestContent(t *testing.T) {
	t.Parallel()
	s := spool(t)
	c := content(t, s, "one", "")
	d := c.Digests()
	if len(d) != 2 || d[0] != bodyOf(t, s, "one").Digest() || d[1] != (*message.Body)(nil).Digest() || c.Size() != 3 || !c[1].Body.Present() || c.Body() != c[0].Body {
		t.Errorf("%x", d)
	}
	if none := message.Content(nil); none.Digests() != nil || none.Body() != nil || none.Close() != nil || none.Size() != 0 {
		t.Error("none is something")
	}
}

func TestHTTPBody(t *testing.T) {
	t.Parallel()
	s := &message.Spool{Dir: t.TempDir(), Reserve: -1, MemoryLimit: 1 << 10}
	soap := &message.SOAP{ContentType: "text/xml", Fields: []message.Field{{Name: "Content-ID", Value: "<root>"}}}
	raw := []byte("<x/>")
	read := func(b *message.HTTPBody) string {
		t.Helper()
		r, err := b.Open()
		if err != nil {
			t.Fatal(err)
		}
		doc, err := io.ReadAll(r)
		if err != nil || int64(len(doc)) != b.Size {
			t.Errorf("%d bytes, not %d: %v", len(doc), b.Size, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		return string(doc)
	}

	b, err := message.NewHTTPBody("application/xop+xml", soap, raw, nil)
	if err != nil || b.ContentType != "text/xml; charset=UTF-8" || read(b) != "<x/>" {
		t.Errorf("%+v, %v", b, err)
	}
	const related = `multipart/related; type="text/xml"; boundary="=_1"`
	b, err = message.NewHTTPBody(related, soap, raw, nil)
	if err != nil || b.ContentType != related || read(b) != "--=_1\r\nContent-Type: text/xml\r\nContent-ID: <root>\r\n\r\n<x/>\r\n--=_1--\r\n" {
		t.Errorf("%+v, %v", b, err)
	}
	c := content(t, s, "one", long(5000), "")
	want := "--=_1\r\nContent-Type: text/xml\r\nContent-ID: <root>\r\n\r\n<x/>" +
		"\r\n--=_1\r\nContent-Type: text/plain; n=0\r\nContent-ID: <a>\r\n\r\none" +
		"\r\n--=_1\r\nContent-Type: text/plain; n=1\r\nContent-ID: <a>\r\n\r\n" + long(5000) +
		"\r\n--=_1\r\nContent-Type: text/plain; n=2\r\nContent-ID: <a>\r\n\r\n\r\n--=_1--\r\n"
	b, err = message.NewHTTPBody(related, soap, raw, c)
	if err != nil || b.ContentType != related || read(b) != want || read(b) != want {
		t.Errorf("%+v, %v", b, err)
	}

	// A boundary that cannot be used is replaced, and the parts are those that
	// were sent.
	spread := long(64<<10-3) + "\r\n--=_1\r\nContent-Type: a/b\r\n\r\nsmuggled"
	for original, c := range map[string]message.Content{
		related:                          content(t, s, "\r\n--=_1--\r\n"),
		related + "; x=y":                content(t, s, spread),
		"text/xml":                       content(t, s, "one"),
		"":                               content(t, s, "one"),
		"multipart/mixed; boundary=B":    content(t, s, "one"),
		"multipart/related":              content(t, s, "one"),
		`multipart/related; boundary=""`: content(t, s, "one"),
		`multipart/related; boundary="a` + "\r\n" + `x: y"`:  content(t, s, "one"),
		`multipart/related; boundary=B; x="a` + "\r\n" + `"`: content(t, s, "one"),
	} {
		b, err := message.NewHTTPBody(original, soap, raw, c)
		if err != nil {
			t.Fatal(err)
		}
		_, params, err := mime.ParseMediaType(b.ContentType)
		if err != nil || len(params["boundary"]) != 34 || strings.ContainsAny(b.ContentType, "\r\n") {
			t.Errorf("%q became %q, %v", original, b.ContentType, err)
		}
		doc := read(b)
		r := multipart.NewReader(strings.NewReader(doc), params["boundary"])
		for i := 0; ; i++ {
			p, err := r.NextRawPart()
			if err == io.EOF && i == 2 {
				break
			}
			if err != nil {
				t.Fatalf("%q: part %d: %v", original, i, err)
			}
			got, _ := io.ReadAll(p)
			want := raw
			if i == 1 {
				f, _ := c[0].Body.Open()
				want, _ = io.ReadAll(f)
				f.Close()
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%q: part %d is %q", original, i, got)
			}
		}
	}
	if _, err := message.NewHTTPBody(related, &message.SOAP{ContentType: "a\r\nb"}, raw, nil); !errors.Is(err, message.ErrHeader) {
		t.Error(err)
	}
	if _, err := message.NewHTTPBody(related, soap, raw, message.Content{{ContentType: "a/b", Fields: []message.Field{{Name: "x", Value: "\n"}}, Body: s.New()}}); !errors.Is(err, message.ErrHeader) {
		t.Error(err)
	}
}

func TestWithUTF8(t *testing.T) {
	t.Parallel()
	for have, want := range map[string]string{
		"text/xml; charset=UTF-8":                          "text/xml; charset=UTF-8",
		`multipart/related; boundary="a=b"; charset=utf-8`: `multipart/related; boundary="a=b"; charset=utf-8`,
		`multipart/related; boundary="a=b"`:                `multipart/related; boundary="a=b";charset=utf-8`,
		`text/xml; charset=latin1`:                         `text/xml; charset=utf-8`,
		"nonsense;":                                        "nonsense;;charset=utf-8",
		";":                                                ";",
	} {
		if got := message.WithUTF8(have); got != want {
			t.Errorf("%s became %s, not %s", have, got, want)
		}
	}
}

// FuzzAttachments: what strangers send as multipart/related is refused or read,
// the same however it arrives, and what is read arrives, through another
// server, as it was sent; mime/multipart reads the same parts.
func FuzzAttachments(f *testing.F) {
	first := "--B\r\nContent-Type: text/xml; charset=UTF-8\r\n\r\n<x/>\r\n"
	second := "--B\r\nContent-Type: image/png;\r\n x=y\r\nContent-ID: <y>\r\n\r\n\x00\r\n\r\n"
	f.Add([]byte(first + second + "--B--\r\n"))
	f.Add([]byte("preamble\r\n" + first + second + second + "--B--\r\nepilogue"))
	f.Add([]byte(strings.ReplaceAll(first+second+"--B--\r\n", "\r\n", "\n")))
	f.Add([]byte(first + strings.Repeat(second, 11) + "--B--\r\n"))
	f.Add([]byte("--B \t\r\nContent-Type: text/xml\r\n\r\n--B--"))
	f.Fuzz(func(t *testing.T, doc []byte) {
		const ctype = "multipart/related; boundary=B"
		limits := message.Limits{SOAP: 1 << 10, Body: 1 << 12, Attachments: 10}
		have, contents, err := decodeHTTP(bytes.NewReader(doc), ctype, limits, message.Part.ReadAll)
		_, again, againErr := decodeHTTP(iotest.OneByteReader(bytes.NewReader(doc)), ctype, limits, readers["bytes"])
		if !slices.Equal(contents, again) || fmt.Sprint(err) != fmt.Sprint(againErr) {
			t.Fatalf("at once:      %q, %v\nbyte by byte: %q, %v", contents, err, again, againErr)
		}
		if err != nil {
			return
		}
		// mime/multipart has its own view of other line ends, and of what else
		// may follow a boundary.
		count := func(s string) int { return bytes.Count(doc, []byte(s)) }
		if breaks := count("\r\n"); bytes.HasPrefix(doc, []byte("--B\r\n")) &&
			count("\n") == breaks && count("\r") == breaks && count("--B") == count("--B\r\n")+count("--B--\r\n") {
			std := multipart.NewReader(bytes.NewReader(doc), "B")
			for i := range have {
				p, err := std.NextRawPart()
				if err != nil {
					t.Fatalf("mime/multipart, part %d: %v", i, err)
				}
				if b, err := io.ReadAll(p); err != nil || string(b) != contents[i] {
					t.Fatalf("mime/multipart, part %d: %q, %v, not %q", i, b, err, contents[i])
				}
			}
		}
		if strings.Contains(string(doc), exampleBoundary) || strings.Contains(string(doc), attachmentBoundary) {
			t.Skip()
		}
		var out bytes.Buffer
		e := message.NewEncoderWithBoundary(&out, exampleBoundary)
		e.Request(&message.Request{SOAP: &message.SOAP{ContentType: have[0].ContentType, Fields: have[0].Fields}, Raw: []byte(contents[0])})
		s := &message.Spool{Dir: t.TempDir(), Reserve: -1}
		var kept message.Content
		for i, p := range have[1:] {
			e.StartPart(p)
			io.WriteString(e.BodyWriter(), contents[1+i])
			a := s.NewAttachment(p)
			io.WriteString(a.Body, contents[1+i])
			kept = append(kept, a)
		}
		defer kept.Close()
		e.Signature([]byte("s"))
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		far, err := decode(&out, exampleType, message.SOAPRequest, message.Limits{}, message.Part.ReadAll)
		if err != nil || len(far) != len(have)+1 {
			t.Fatalf("%v, %v", far, err)
		}
		for i := range have {
			if far[i].content != contents[i] {
				t.Fatalf("part %d is %q, was %q", i, far[i].content, contents[i])
			}
		}
		body, err := message.NewHTTPBody(ctype, &message.SOAP{ContentType: have[0].ContentType, Fields: have[0].Fields}, []byte(contents[0]), kept)
		if err != nil {
			t.Fatal(err)
		}
		r, err := body.Open()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		end, ends, err := decodeHTTP(r, body.ContentType, message.Limits{}, message.Part.ReadAll)
		if err != nil || !slices.Equal(ends, contents) {
			t.Fatalf("delivered as %q, %v; was %q", ends, err, contents)
		}
		for i := range end {
			if end[i].ContentType != have[i].ContentType || !slices.Equal(end[i].Fields, have[i].Fields) {
				t.Fatalf("part %d has %q %v, had %q %v", i, end[i].ContentType, end[i].Fields, have[i].ContentType, have[i].Fields)
			}
		}
	})
}
