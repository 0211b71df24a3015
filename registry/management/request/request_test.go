// SPDX-License-Identifier: Apache-2.0

package request_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"kontor/registry/id"
	"kontor/registry/management/request"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// sample is a request to a service with everything that it can say.
func sample(service request.Service) *request.Request {
	server := must(id.ParseSecurityServer("DEV/COM/4321/SS1"))
	r := &request.Request{
		Service: service, Sender: server.Owner().Client(), Provider: must(id.ParseClient("DEV/GOV/1234/MANAGEMENT")),
		ID: "0d9e4c3a-0000-4000-8000-000000000001", Server: server,
	}
	if service.HasClient() {
		r.Client = must(id.ParseClient("DEV/COM/4321/SUB"))
	}
	switch service {
	case request.AuthCertReg:
		r.Address, r.Certificate, r.DryRun = "ss1.example", []byte("\x30\x82certificate"), true
	case request.AuthCertDeletion:
		r.Certificate = []byte("\x30\x82certificate")
	case request.ClientReg, request.ClientRename:
		r.Name = "Naïve & <co> \"x\""
	case request.AddressChange:
		r.Address = "192.0.2.1"
	case request.MaintenanceEnable:
		r.Text = "zurück um 9"
	}
	return r
}

// example is a message as X-Road's security server writes it.
const example = `<?xml version="1.0" encoding="UTF-8"?><SOAP-ENV:Envelope xmlns:SOAP-ENV="http://schemas.xmlsoap.org/soap/envelope/" xmlns:id="http://x-road.eu/xsd/identifiers" xmlns:xroad="http://x-road.eu/xsd/xroad.xsd">
 <SOAP-ENV:Header>
  <xroad:client id:objectType="MEMBER"><id:xRoadInstance>DEV</id:xRoadInstance><id:memberClass>COM</id:memberClass><id:memberCode>4321</id:memberCode></xroad:client>
  <xroad:service id:objectType="SERVICE"><id:xRoadInstance>DEV</id:xRoadInstance><id:memberClass>GOV</id:memberClass><id:memberCode>1234</id:memberCode><id:subsystemCode>MANAGEMENT</id:subsystemCode><id:serviceCode>clientReg</id:serviceCode></xroad:service>
  <xroad:id>0d9e</xroad:id><xroad:protocolVersion>4.0</xroad:protocolVersion>
 </SOAP-ENV:Header>
 <SOAP-ENV:Body><xroad:clientReg>
  <xroad:server id:objectType="SERVER"><id:xRoadInstance>DEV</id:xRoadInstance><id:memberClass>COM</id:memberClass><id:memberCode>4321</id:memberCode><id:serverCode>SS1</id:serverCode></xroad:server>
  <xroad:client id:objectType="SUBSYSTEM"><id:xRoadInstance>DEV</id:xRoadInstance><id:memberClass>COM</id:memberClass><id:memberCode>4321</id:memberCode><id:subsystemCode>SUB</id:subsystemCode></xroad:client>
 </xroad:clientReg></SOAP-ENV:Body></SOAP-ENV:Envelope>`

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for _, service := range request.Services() {
		r := sample(service)
		soap := must(r.SOAP())
		got, err := request.Parse(soap)
		if err != nil {
			t.Errorf("%s: %v", service, err)
			continue
		}
		if !reflect.DeepEqual(got, r) {
			t.Errorf("%s: %+v, want %+v", service, got, r)
		}
		answer, err := request.Answer(soap, 17)
		if err != nil {
			t.Errorf("%s: %v", service, err)
		}
		if number, err := request.ParseAnswer(r, answer); err != nil || number != 17 {
			t.Errorf("%s: %d, %v", service, number, err)
		}
		other := *r
		other.ID = "another"
		if _, err := request.ParseAnswer(&other, answer); !errors.Is(err, &request.Fault{Code: request.CodeInconsistent}) {
			t.Errorf("%s: took the answer to another request: %v", service, err)
		}
		if _, err := request.ParseAnswer(r, soap); err == nil {
			t.Errorf("%s: took a request for its answer", service)
		}
	}
}

func TestExample(t *testing.T) {
	t.Parallel()
	r, err := request.Parse([]byte(example))
	if err != nil || r.Service != request.ClientReg || r.Server.String() != "DEV/COM/4321/SS1" || r.Client.String() != "DEV/COM/4321/SUB" ||
		r.Sender.String() != "DEV/COM/4321" || r.Provider.String() != "DEV/GOV/1234/MANAGEMENT" || r.ID != "0d9e" || r.Name != "" {
		t.Fatalf("%+v, %v", r, err)
	}
	answer := string(must(request.Answer([]byte(example), 5)))
	want := strings.NewReplacer("<xroad:clientReg>", "<xroad:clientRegResponse>", "</xroad:clientReg>", "<xroad:requestId>5</xroad:requestId></xroad:clientRegResponse>").Replace(example)
	if answer != want {
		t.Errorf("%s", answer)
	}
	// other ways to write the same: default namespace, attributes, byte order mark
	other := strings.NewReplacer("<xroad:clientReg>", `<clientReg xmlns="http://x-road.eu/xsd/xroad.xsd"
 >`, "</xroad:clientReg>", "</clientReg >", "xroad:server", "server").Replace("\xef\xbb\xbf" + example)
	if r, err = request.Parse([]byte(other)); err != nil || r.Client.String() != "DEV/COM/4321/SUB" {
		t.Fatalf("%+v, %v", r, err)
	}
	answer = string(must(request.Answer([]byte(other), 5)))
	if number, err := request.ParseAnswer(r, []byte(answer)); err != nil || number != 5 || !strings.HasPrefix(answer, "\xef\xbb\xbf<?xml") {
		t.Errorf("%d, %v: %s", number, err, answer)
	}
}

func TestStrictSOAP(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ old, new, code string }{
		"doctype":             {`encoding="UTF-8"?>`, `encoding="UTF-8"?><!DOCTYPE x [<!ENTITY e "x">]>`, request.CodeInvalidXML},
		"entity":              {"0d9e", "&e;", request.CodeInvalidXML},
		"instruction":         {" <SOAP-ENV:Header>", "<?php ?><SOAP-ENV:Header>", request.CodeInvalidXML},
		"encoding":            {`encoding="UTF-8"`, `encoding="ISO-8859-1"`, request.CodeInvalidXML},
		"not UTF-8":           {"0d9e", "\xff", request.CodeInvalidXML},
		"control character":   {"0d9e", "\x01", request.CodeInvalidXML},
		"cut":                 {"</SOAP-ENV:Envelope>", "", request.CodeInvalidXML},
		"two documents":       {"</SOAP-ENV:Envelope>", "</SOAP-ENV:Envelope><x/>", request.CodeInvalidXML},
		"text between":        {"<xroad:clientReg>", "<xroad:clientReg>text", request.CodeInvalidXML},
		"attribute twice":     {`id:objectType="SERVER"`, `id:objectType="SERVER" id:objectType="SERVER"`, request.CodeInvalidXML},
		"deep":                {"0d9e", strings.Repeat("<a>", 20) + strings.Repeat("</a>", 20), request.CodeInvalidXML},
		"many":                {"0d9e", strings.Repeat("<a/>", 300), request.CodeInvalidXML},
		"SOAP 1.2":            {"http://schemas.xmlsoap.org/soap/envelope/", "http://www.w3.org/2003/05/soap-envelope", request.CodeInvalidSOAP},
		"no header":           {"SOAP-ENV:Header", "SOAP-ENV:Heap", request.CodeInvalidBody},
		"two bodies":          {"<SOAP-ENV:Body>", "<SOAP-ENV:Body><xroad:x/></SOAP-ENV:Body><SOAP-ENV:Body>", request.CodeInvalidBody},
		"two in a body":       {"<SOAP-ENV:Body>", "<SOAP-ENV:Body><xroad:clientReg/>", request.CodeInvalidBody},
		"fault":               {"xroad:clientReg>", "SOAP-ENV:Fault>", request.CodeInvalidBody},
		"header field twice":  {"<xroad:id>0d9e</xroad:id>", "<xroad:id>0d9e</xroad:id><xroad:id>0d9e</xroad:id>", request.CodeDuplicateHeader},
		"no id":               {"<xroad:id>0d9e</xroad:id>", "", request.CodeMissingHeader},
		"empty id":            {"0d9e", "", request.CodeInvalidSOAP},
		"long id":             {"0d9e", strings.Repeat("x", 256), request.CodeInvalidSOAP},
		"id with line":        {"0d9e", "0d9e\n", request.CodeInvalidSOAP},
		"protocol":            {">4.0<", ">3.0<", request.CodeProtocolVersion},
		"service":             {"clientReg<", "clientDel<", request.CodeInvalidRequest},
		"body of another":     {"xroad:clientReg>", "xroad:clientDeletion>", request.CodeInconsistent},
		"namespace":           {"<xroad:clientReg>", `<xroad:clientReg xmlns:xroad="urn:x">`, request.CodeInconsistent},
		"no server":           {"<xroad:server ", "<xroad:serve ", request.CodeInvalidXML},
		"order":               {"<xroad:clientReg>", "<xroad:clientReg><xroad:subsystemName>x</xroad:subsystemName>", request.CodeInvalidRequest},
		"unknown element":     {"</xroad:clientReg>", "<xroad:more/></xroad:clientReg>", request.CodeInvalidRequest},
		"element twice":       {"</xroad:clientReg>", "<xroad:subsystemName>x</xroad:subsystemName><xroad:subsystemName>y</xroad:subsystemName></xroad:clientReg>", request.CodeInvalidRequest},
		"children in text":    {"</xroad:clientReg>", "<xroad:subsystemName><x/></xroad:subsystemName></xroad:clientReg>", request.CodeInvalidRequest},
		"object type":         {`id:objectType="SERVER"`, `id:objectType="MEMBER"`, request.CodeInvalidRequest},
		"no object type":      {` id:objectType="SERVER"`, ``, request.CodeInvalidRequest},
		"two object types":    {`id:objectType="SERVER"`, `id:objectType="SERVER MEMBER"`, request.CodeInvalidRequest},
		"subsystem as member": {`id:objectType="SUBSYSTEM"`, `id:objectType="MEMBER"`, request.CodeInvalidRequest},
		"part twice":          {"<id:serverCode>SS1</id:serverCode>", "<id:serverCode>SS1</id:serverCode><id:serverCode>SS1</id:serverCode>", request.CodeInvalidRequest},
		"blank part":          {"<id:serverCode>SS1<", "<id:serverCode> <", request.CodeInvalidIdentifier},
	} {
		doc := strings.ReplaceAll(example, tt.old, tt.new)
		if doc == example {
			t.Fatalf("%s: nothing was replaced", name)
		}
		if r, err := request.Parse([]byte(doc)); !errors.Is(err, &request.Fault{Code: tt.code}) {
			t.Errorf("%s: %+v, %v; want %s", name, r, err, tt.code)
		}
	}
}

func TestImpossibleRequests(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*request.Request){
		"service":            func(r *request.Request) { r.Service = "x" },
		"no sender":          func(r *request.Request) { r.Sender = id.Client{} },
		"no client":          func(r *request.Request) { r.Client = id.Client{} },
		"superfluous client": func(r *request.Request) { r.Service = request.AddressChange },
		"no id":              func(r *request.Request) { r.ID = "" },
		"control":            func(r *request.Request) { r.ID = "a\nb" },
		"not UTF-8":          func(r *request.Request) { r.Name = "\xff" },
	} {
		r := sample(request.ClientReg)
		change(r)
		if _, err := r.SOAP(); err == nil {
			t.Errorf("%s: written", name)
		}
	}
}

func certify(key crypto.Signer) *request.Credential {
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotBefore: time.Unix(0, 0), NotAfter: time.Now().AddDate(1, 0, 0)}
	der := must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	return &request.Credential{Key: key, Cert: must(x509.ParseCertificate(der)), OCSP: []byte("OCSP response")}
}

func TestSignatures(t *testing.T) {
	t.Parallel()
	soap := must(sample(request.ClientReg).SOAP())
	ec, rs := certify(must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))), certify(must(rsa.GenerateKey(rand.Reader, 2048)))
	for _, c := range []*request.Credential{ec, rs} {
		m, err := request.Seal(soap, nil, c)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Signature.Verify(c.Cert, soap); err != nil {
			t.Error(err)
		}
		if err := m.Signature.Verify(c.Cert, append([]byte(" "), soap...)); err == nil {
			t.Error("the signature holds for other bytes")
		}
		m.Signature.Algorithm = "SHA1withRSA"
		if err := m.Signature.Verify(c.Cert, soap); err == nil {
			t.Error("SHA-1 accepted")
		}
	}
	// the padding of the Java name SHA512withRSAandMGF1
	digest := crypto.SHA512.New()
	digest.Write(soap)
	pss := &request.Signature{Algorithm: "SHA512withRSAandMGF1", Value: must(rsa.SignPSS(rand.Reader, rs.Key.(*rsa.PrivateKey), crypto.SHA512, digest.Sum(nil), &rsa.PSSOptions{SaltLength: 64}))}
	if err := pss.Verify(rs.Cert, soap); err != nil {
		t.Error(err)
	}
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	if _, err := request.Seal(soap, nil, certify(ed)); err == nil {
		t.Error("signed with a key that X-Road has no name for")
	}
	if _, err := request.Seal(soap, nil, nil); err == nil {
		t.Error("sealed without a key")
	}
	if _, err := request.Seal(must(sample(request.AuthCertReg).SOAP()), nil, ec); err == nil {
		t.Error("sealed without the authentication key")
	}
	if _, err := request.Seal([]byte("x"), nil, ec); err == nil {
		t.Error("sealed what is no request")
	}
	if m, err := request.Seal(must(sample(request.ClientDeletion).SOAP()), nil, nil); err != nil || m.Complete() != nil {
		t.Error(err)
	}
}

func sealed(service request.Service) *request.Message {
	key := certify(must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)))
	return must(request.Seal(must(sample(service).SOAP()), key, key))
}

// TestMultipart has the standard library read what we write, and us read it back.
func TestMultipart(t *testing.T) {
	t.Parallel()
	for service, types := range map[request.Service][]string{
		request.AuthCertReg: {"text/xml; charset=UTF-8", "SHA512withECDSA", "SHA512withECDSA", "", "", ""},
		request.ClientReg:   {"text/xml; charset=UTF-8", "SHA512withECDSA", "", ""},
	} {
		m := sealed(service)
		contentType, body := m.Encode()
		base, params, err := mime.ParseMediaType(contentType)
		if err != nil || base != "multipart/related" || params["type"] != "application/octet-stream" {
			t.Fatalf("%s: %v", contentType, err)
		}
		r := multipart.NewReader(bytes.NewReader(body), params["boundary"])
		for i, want := range types {
			p, err := r.NextRawPart()
			if err != nil {
				t.Fatal(err)
			}
			got := p.Header.Get("signature-algorithm-id")
			if i == 0 {
				got = p.Header.Get("content-type")
			}
			if content, err := io.ReadAll(p); err != nil || got != want || len(content) == 0 || i == 0 && !bytes.Equal(content, m.SOAP) {
				t.Errorf("%s, part %d: %q, %d bytes, %v", service, i, got, len(content), err)
			}
		}
		if _, err := r.NextRawPart(); !errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", service, err)
		}
		if !bytes.Contains(body, []byte("\r\nsignature-algorithm-id: SHA512withECDSA\r\n")) {
			t.Error("the name of the algorithm's header is not in lower case")
		}
		got, err := request.Decode(contentType, body)
		if err != nil || !reflect.DeepEqual(got, m) || got.Complete() != nil {
			t.Errorf("%s: %+v, %v", service, got, err)
		}
	}
	contentType, body := sealed(request.ClientDeletion).Encode()
	if got, err := request.Decode(contentType, body); err != nil || contentType != "text/xml; charset=UTF-8" || got.Complete() != nil {
		t.Errorf("%s: %v", contentType, err)
	}
}

func TestStrictMultipart(t *testing.T) {
	t.Parallel()
	m := sealed(request.AuthCertReg)
	contentType, body := m.Encode()
	_, params, _ := mime.ParseMediaType(contentType)
	boundary := "--" + params["boundary"]
	part := "\r\n" + boundary + "\r\ncontent-type:application/octet-stream\r\n\r\nx"
	replaced := func(old, new string) string { return strings.Replace(string(body), old, new, 1) }
	for name, tt := range map[string]struct{ contentType, body, code string }{
		"preamble":          {contentType, "hello\r\n" + string(body), request.CodeMIME},
		"epilogue":          {contentType, string(body) + "more", request.CodeMIME},
		"another boundary":  {strings.Replace(contentType, "boundary=", "boundary=x", 1), string(body), request.CodeMIME},
		"no boundary":       {"multipart/related", string(body), request.CodeMIME},
		"cut":               {contentType, string(body[:len(body)-6]), request.CodeMIME},
		"empty":             {contentType, "", request.CodeMIME},
		"no parts":          {contentType, boundary + "--\r\n", request.CodeMIME},
		"seventh part":      {contentType, replaced("\r\n"+boundary+"--", part+"\r\n"+boundary+"--"), request.CodeInvalidRequest},
		"many parts":        {contentType, replaced("\r\n"+boundary+"--", strings.Repeat(part, 9)+"\r\n"+boundary+"--"), request.CodeMIME},
		"header twice":      {contentType, replaced("content-type:application/octet-stream", "content-type:application/octet-stream\r\nContent-Type: application/octet-stream"), request.CodeMIME},
		"header malformed":  {contentType, replaced("content-type:application/octet-stream", "content-type application/octet-stream"), request.CodeMIME},
		"folded header":     {contentType, replaced("content-type:application/octet-stream", "content-type:application/octet-stream\r\n x"), request.CodeMIME},
		"bare newlines":     {contentType, strings.ReplaceAll(string(body), "\r\n", "\n"), request.CodeMIME},
		"SOAP twice":        {contentType, replaced("content-type:application/octet-stream", "content-type:text/xml"), request.CodeContentType},
		"SOAP is no XML":    {contentType, replaced("content-type:text/xml", "content-type:text/html"), request.CodeContentType},
		"charset":           {contentType, replaced("charset=UTF-8", "charset=UTF-16"), request.CodeContentType},
		"no type":           {contentType, replaced("content-type:application/octet-stream", "x:y"), request.CodeContentType},
		"transfer encoding": {contentType, replaced("content-type:application/octet-stream", "content-type:application/octet-stream\r\ncontent-transfer-encoding: base64"), request.CodeContentType},
		"content type":      {"multipart/mixed; boundary=x", string(body), request.CodeContentType},
		"bad content type":  {";", string(body), request.CodeContentType},
		"no content type":   {"", string(body), request.CodeContentType},
		"JSON":              {"application/json", "{}", request.CodeContentType},
	} {
		if got, err := request.Decode(tt.contentType, []byte(tt.body)); !errors.Is(err, &request.Fault{Code: tt.code}) {
			t.Errorf("%s: %+v, %v; want %s", name, got, err, tt.code)
		}
	}
	fifth := *sealed(request.ClientReg)
	contentType, body = fifth.Encode()
	_, params, _ = mime.ParseMediaType(contentType)
	end := "\r\n--" + params["boundary"] + "--"
	more := strings.Replace(string(body), end, "\r\n--"+params["boundary"]+"\r\nContent-Type: application/octet-stream\r\n\r\nx"+end, 1)
	if _, err := request.Decode(contentType, []byte(more)); !errors.Is(err, &request.Fault{Code: request.CodeInvalidRequest}) {
		t.Errorf("fifth part: %v", err)
	}
}

func TestMissingParts(t *testing.T) {
	t.Parallel()
	for _, service := range []request.Service{request.AuthCertReg, request.ClientReg} {
		whole := sealed(service)
		for name, drop := range map[string]func(*request.Message){
			"auth signature":  func(m *request.Message) { m.AuthSignature = nil },
			"signature":       func(m *request.Message) { m.Signature = nil },
			"algorithm":       func(m *request.Message) { m.Signature = &request.Signature{Value: m.Signature.Value} },
			"empty signature": func(m *request.Message) { m.Signature = &request.Signature{Algorithm: m.Signature.Algorithm} },
			"auth cert":       func(m *request.Message) { m.AuthCert = nil },
			"cert":            func(m *request.Message) { m.Cert = nil },
			"OCSP":            func(m *request.Message) { m.OCSP = nil },
		} {
			m := *whole
			drop(&m)
			if err := m.Complete(); service == request.ClientReg && strings.HasPrefix(name, "auth") != (err == nil) ||
				service == request.AuthCertReg && !errors.Is(err, &request.Fault{Code: request.CodeInvalidRequest}) {
				t.Errorf("%s without %s: %v", service, name, err)
			}
		}
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	r := sample(request.ClientReg)
	f := &request.Fault{Code: request.CodeCertificate, Text: `it is <bad> & "old"`, Detail: "abc-1"}
	_, err := request.ParseAnswer(r, f.SOAP())
	if got := (*request.Fault)(nil); !errors.As(err, &got) || *got != *f {
		t.Errorf("%+v", err)
	}
	for written, want := range map[string]string{
		"InvalidRequest":                    request.CodeInvalidRequest,
		"invalid_request":                   request.CodeInvalidRequest,
		"Server.ServerProxy.AccessDenied":   "access_denied",
		"server.clientproxy.internal_error": request.CodeInternal,
		"CertValidation":                    request.CodeCertificate,
		"IncorrectValidationInfo":           request.CodeOCSP,
	} {
		_, err := request.ParseAnswer(r, (&request.Fault{Code: written, Text: "x"}).SOAP())
		if !errors.Is(err, &request.Fault{Code: want}) {
			t.Errorf("%s: %v, want %s", written, err, want)
		}
	}
	if f.Error() != `cert_validation: it is <bad> & "old"` {
		t.Error(f)
	}
}

func TestClient(t *testing.T) {
	t.Parallel()
	m := sealed(request.ClientReg)
	answer := must(request.Answer(m.SOAP, 8))
	var status int
	var contentType string
	var body []byte
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != -1 || len(r.TransferEncoding) != 1 {
			t.Error("not sent in chunks")
		}
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(status)
		_, _ = w.Write(body)
	}))
	defer srv.Close()
	client := request.Registration(srv.URL, srv.Certificate())
	for name, tt := range map[string]struct {
		status      int
		contentType string
		body        []byte
		number      uint64
		want        string
	}{
		"accepted":       {200, "text/xml;charset=UTF-8", answer, 8, ""},
		"fault":          {500, "text/xml", (&request.Fault{Code: "x", Text: "y"}).SOAP(), 0, "x: y"},
		"fault with 200": {200, "text/xml", (&request.Fault{Code: "x", Text: "y"}).SOAP(), 0, "x: y"},
		"500 no fault":   {500, "text/xml", answer, 0, "without a fault"},
		"429":            {429, "text/plain", []byte("slow down"), 0, "answered 429"},
		"redirect":       {302, "text/xml", nil, 0, "answered 302"},
		"HTML":           {200, "text/html", answer, 0, "of \"text/html\""},
		"no type":        {200, "", answer, 0, "of \"\""},
		"huge":           {200, "text/xml", bytes.Repeat([]byte(" "), 1<<20+1), 0, "answered 200"},
		"malformed":      {200, "text/xml", []byte("<a>"), 0, "invalid_xml"},
	} {
		status, contentType, body = tt.status, tt.contentType, tt.body
		number, err := client.Send(t.Context(), m)
		if number != tt.number || fmt.Sprint(err) != "<nil>" && !strings.Contains(err.Error(), tt.want) || (err == nil) != (tt.want == "") {
			t.Errorf("%s: %d, %v", name, number, err)
		}
	}
	// the certificate must be the very one
	stranger := certify(must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))).Cert
	for _, cert := range []*x509.Certificate{nil, stranger} {
		if _, err := request.Registration(srv.URL, cert).Send(t.Context(), m); err == nil || !strings.Contains(err.Error(), "not the one") {
			t.Errorf("%v", err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, service := range request.Services() {
		f.Add(must(sample(service).SOAP()))
	}
	f.Add([]byte(example))
	f.Add((&request.Fault{Code: "InvalidRequest", Text: "x", Detail: "y"}).SOAP())
	f.Fuzz(func(t *testing.T, soap []byte) {
		r, err := request.Parse(soap)
		_, _ = request.ParseAnswer(sample(request.ClientReg), soap)
		if err != nil {
			if fault := (*request.Fault)(nil); !errors.As(err, &fault) {
				t.Fatalf("not a fault: %v", err)
			}
			return
		}
		again, err := request.Parse(must(r.SOAP()))
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Certificate) == 0 { // nil or empty
			again.Certificate = r.Certificate
		}
		if !reflect.DeepEqual(again, r) {
			t.Fatalf("%+v became %+v", r, again)
		}
		answer, err := request.Answer(soap, 3)
		if err != nil {
			t.Fatal(err)
		}
		if number, err := request.ParseAnswer(r, answer); err != nil || number != 3 {
			t.Fatalf("%d, %v: %s", number, err, answer)
		}
	})
}

func FuzzDecode(f *testing.F) {
	for _, service := range []request.Service{request.AuthCertReg, request.ClientReg, request.ClientDeletion} {
		m := sealed(service)
		contentType, body := m.Encode()
		f.Add(contentType, body)
	}
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		m, err := request.Decode(contentType, body)
		if err != nil {
			if fault := (*request.Fault)(nil); !errors.As(err, &fault) {
				t.Fatalf("not a fault: %v", err)
			}
			return
		}
		if !bytes.Contains(body, m.SOAP) {
			t.Fatal("the SOAP is not what came")
		}
		if m.Complete() != nil {
			return
		}
		contentType, body = m.Encode()
		if again, err := request.Decode(contentType, body); err != nil || !reflect.DeepEqual(again, m) {
			t.Fatalf("%+v, %v", again, err)
		}
	})
}
