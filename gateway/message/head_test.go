// SPDX-License-Identifier: Apache-2.0

package message_test

import (
	"archive/zip"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"kontor/gateway/message"
	"kontor/registry/id"
)

// start is a head that only lacks the fields under test.
const start = "GET\r\n/r1/DEV/COM/1234/TestService/mock1\r\n"

// tail makes a head complete.
const tail = "X-Road-Client:DEV/COM/4422/TestClient\r\nx-road-request-id:r\r\nx-road-id:i\r\n"

func TestReadRequest(t *testing.T) {
	t.Parallel()
	r := exampleRequest(t)
	if r.Client.String() != "DEV/COM/4422/TestClient" || r.Service.String() != "DEV/COM/1234/TestService/mock1" ||
		r.ServicePath != "/v1/pets" || r.Query != "limit=2" || r.ServiceTarget() != "/v1/pets?limit=2" ||
		r.ID != exampleID || r.RequestID != exampleRequestID || !r.Server.IsZero() || !r.RepresentedParty.IsZero() {
		t.Errorf("%+v", r)
	}
	if accept, ok := r.Head.Get("ACCEPT"); accept != "*/*" || !ok {
		t.Error("Get")
	}
	if h := r.Head.Header(); h.Get("Content-Type") != "application/json" || h.Get("X-Road-Id") != exampleID {
		t.Error("Header")
	}

	r, err := message.ReadRequest([]byte("DELETE\r\n/r1/DEV/COM/12%2F34/Test%20Service/mock1/?\r\n"+
		"x-road-client:DEV/COM/1\r\nX-Road-Client:DEV/COM/2/%C3%A4\r\nX-Road-Security-Server:DEV/COM/1/ss1\r\n"+
		"X-Road-Represented-Party:COM/7\r\nX-Road-UserId: \u00e4 \r\nX-Road-Issue:\r\nX-Road-Id:one\r\nx-road-ID:two\r\n"), "transport")
	if err != nil {
		t.Fatal(err)
	}
	if r.Client.Subsystem() != "\u00e4" || r.Service.Owner().Member().Code() != "12/34" || r.Server.Code() != "ss1" ||
		r.RepresentedParty.String() != "COM/7" || r.UserID != " \u00e4 " || r.Issue != "" || r.ID != "two" ||
		r.RequestID != "transport" || r.ServicePath != "/" || r.Query != "" || r.ServiceTarget() != "/?" {
		t.Errorf("%+v", r)
	}
}

func TestReadRequestRefuses(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", message.MaxTarget)
	for name, x := range map[string]struct {
		head string
		want error
	}{
		"nothing":             {"", message.ErrHead},
		"no target":           {"GET\r\n", message.ErrHead},
		"method":              {"CONNECT\r\n/r1/A/B/C/D/E\r\n" + tail, message.ErrMethod},
		"lower-case method":   {"get\r\n/r1/A/B/C/D/E\r\n" + tail, message.ErrMethod},
		"bare line feeds":     {strings.ReplaceAll(start+tail, "\r\n", "\n"), message.ErrHead},
		"bare returns":        {strings.ReplaceAll(start+tail, "\r\n", "\r"), message.ErrHead},
		"one bare line feed":  {start + "a:b\n" + tail, message.ErrHead},
		"one bare return":     {start + "a:b\rc:d\r\n" + tail, message.ErrHead},
		"empty line":          {start + tail + "\r\n", message.ErrHead},
		"empty line within":   {start + "\r\n" + tail, message.ErrHead},
		"no colon":            {start + "ab\r\n" + tail, message.ErrHead},
		"no line end":         {start + tail + "a:b", message.ErrHead},
		"blank in name":       {start + "a :b\r\n" + tail, message.ErrHeader},
		"folded line":         {start + "a:b\r\n c:d\r\n" + tail, message.ErrHeader},
		"no name":             {start + ":b\r\n" + tail, message.ErrHeader},
		"non-ASCII name":      {start + "\u00e4:b\r\n" + tail, message.ErrHeader},
		"NUL":                 {start + "a:\x00\r\n" + tail, message.ErrHeader},
		"not UTF-8":           {start + "a:\xff\r\n" + tail, message.ErrHead},
		"forbidden":           {start + "Content-Length:1\r\n" + tail, message.ErrHeader},
		"no client":           {start + "x-road-id:1\r\n", message.ErrMissingClient},
		"bad client":          {start + "x-road-client:DEV/COM\r\n" + tail, message.ErrIdentifier},
		"blank in client":     {start + tail + "x-road-client: DEV/COM/1\r\n", message.ErrIdentifier},
		"bad server":          {start + "x-road-security-server:DEV\r\n" + tail, message.ErrIdentifier},
		"bad party":           {start + "x-road-represented-party:A/B/C\r\n" + tail, message.ErrIdentifier},
		"no id":               {start + "x-road-client:DEV/COM/1\r\n", message.ErrHeader},
		"empty id":            {start + tail + "x-road-id:\r\n", message.ErrHeader},
		"other request id":    {start + tail + "x-road-request-id:other\r\n", message.ErrHeader},
		"not r1":              {"GET\r\n/r2/A/B/C/D/E\r\n" + tail, message.ErrTarget},
		"absolute target":     {"GET\r\nhttp://h/r1/A/B/C/D/E\r\n" + tail, message.ErrTarget},
		"authority":           {"GET\r\n//r1/A/B/C/D/E\r\n" + tail, message.ErrTarget},
		"no service":          {"GET\r\n/r1/A/B/C/D\r\n" + tail, message.ErrIdentifier},
		"blank service":       {"GET\r\n/r1/A/B/C/D/\r\n" + tail, message.ErrIdentifier},
		"blank subsystem":     {"GET\r\n/r1/A/B/C//E\r\n" + tail, message.ErrIdentifier},
		"fragment":            {"GET\r\n/r1/A/B/C/D/E#f\r\n" + tail, message.ErrTarget},
		"half escape":         {"GET\r\n/r1/A/B/C/D/E/%4\r\n" + tail, message.ErrTarget},
		"bad escape":          {"GET\r\n/r1/A/B/C/D/E?%zz\r\n" + tail, message.ErrTarget},
		"too long a target":   {"GET\r\n/r1/A/B/C/D/" + long + "\r\n" + tail, message.ErrTooLarge},
		"too many fields":     {start + strings.Repeat("a:b\r\n", message.MaxFields) + tail, message.ErrTooLarge},
		"too large":           {start + "a:" + strings.Repeat("b", message.MaxHead) + "\r\n" + tail, message.ErrTooLarge},
		"byte order mark":     {"\uFEFF" + start + tail, message.ErrMethod},
		"invalid escape UTF8": {"GET\r\n/r1/A/B/C/%ff/E\r\n" + tail, message.ErrIdentifier},
	} {
		r, err := message.ReadRequest([]byte(x.head), "r")
		if !errors.Is(err, x.want) || r != nil {
			t.Errorf("%s: %v, want %v", name, err, x.want)
		}
	}
	if _, err := message.ReadRequest([]byte(start+"x-road-client:DEV/COM/1\r\nx-road-id:1\r\n"), ""); !errors.Is(err, message.ErrHeader) {
		t.Errorf("no request id at all: %v", err)
	}
}

// What java.net.URI takes in a path or query, and what it does not.
func TestTargetCharacters(t *testing.T) {
	t.Parallel()
	for c := 0; c < 256; c++ {
		path := c < 0x80 && (isAlphanumeric(byte(c)) || strings.IndexByte("_-!.~'()*:@&=+$,;/?", byte(c)) >= 0)
		query := path || c == '[' || c == ']'
		for prefix, want := range map[string]bool{"/r1/A/B/C/D/E/": path, "/r1/A/B/C/D/E?": query} {
			_, err := message.ParseRequestHead([]byte("GET\r\n" + prefix + "x" + string([]byte{byte(c)}) + "y\r\n"))
			if (err == nil) != want {
				t.Errorf("%q in %s: %v", byte(c), prefix, err)
			}
		}
	}
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

func clientRequest(method, target string, h http.Header) *http.Request {
	if h == nil {
		h = http.Header{"X-Road-Client": {"DEV/COM/4422/TestClient"}}
	}
	return &http.Request{Method: method, RequestURI: target, Header: h}
}

func TestFromHTTPTargets(t *testing.T) {
	t.Parallel()
	const service = "/r1/DEV/COM/1234/TestService/mock1"
	for sent, want := range map[string]string{
		service:                             service,
		service + "?":                       service + "?",
		service + "/?a=b&c=%20[]":           service + "/?a=b&c=%20[]",
		service + "/../x":                   service + "/../x",
		service + "//x;v=1":                 service + "//x;v=1",
		"http://ss:8080" + service + "/x?y": service + "/x?y",
		"":                                  service + "/from%2furl?q",
	} {
		r := clientRequest("GET", sent, nil)
		r.URL, _ = url.Parse("http://h" + service + "/from%2furl?q")
		req, err := message.FromHTTP(r, "DEV", func() string { return "u" })
		if err != nil {
			t.Errorf("%s: %v", sent, err)
			continue
		}
		if req.Head.Target != want {
			t.Errorf("%s: %s, want %s", sent, req.Head.Target, want)
		}
	}
}

func TestFromHTTPFilters(t *testing.T) {
	t.Parallel()
	h := http.Header{"X-Road-Client": {"DEV/COM/1", "DEV/COM/4422/TestClient"}, "X-Road-Id": {"mine"}, "X-Custom": {"1", "0"}}
	for _, name := range []string{"Transfer-Encoding", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "TE", "Trailer",
		"Upgrade", "Connection", "User-Agent", "Host", "Content-Length", "Server", "Expect", "X-Road-Request-Id", "X-Road-Request-Hash"} {
		h.Set(name, "x")
	}
	req, err := message.FromHTTP(clientRequest("PUT", "/r1/A/B/C/D/E", h), "DEV", func() string { return "u" })
	if err != nil {
		t.Fatal(err)
	}
	want := "PUT\r\n/r1/A/B/C/D/E\r\nX-Custom:1\r\nX-Custom:0\r\nX-Road-Client:DEV/COM/1\r\n" +
		"X-Road-Client:DEV/COM/4422/TestClient\r\nX-Road-Id:mine\r\nx-road-request-id:u\r\n"
	if string(req.Raw) != want {
		t.Errorf("got %q\nwant %q", req.Raw, want)
	}
	if req.Client.Subsystem() != "TestClient" || req.ID != "mine" {
		t.Errorf("%+v", req)
	}
}

func TestFromHTTPRefuses(t *testing.T) {
	t.Parallel()
	with := func(name string, values ...string) http.Header {
		return http.Header{"X-Road-Client": {"DEV/COM/1"}, name: values}
	}
	const target = "/r1/A/B/C/D/E"
	for name, x := range map[string]struct {
		r    *http.Request
		want error
	}{
		"method":         {clientRequest("PROPFIND", target, nil), message.ErrMethod},
		"no client":      {clientRequest("GET", target, http.Header{}), message.ErrMissingClient},
		"bad client":     {clientRequest("GET", target, http.Header{"X-Road-Client": {"DEV"}}), message.ErrIdentifier},
		"line feed":      {clientRequest("GET", target, with("A", "b\nc:d")), message.ErrHeader},
		"return":         {clientRequest("GET", target, with("A", "b\rc:d")), message.ErrHeader},
		"NUL":            {clientRequest("GET", target, with("A", "b\x00")), message.ErrHeader},
		"non-ASCII":      {clientRequest("GET", target, with("X-Road-Userid", "J\u00fcri")), message.ErrHeader},
		"colon in name":  {clientRequest("GET", target, with("A:b", "c")), message.ErrHeader},
		"empty id":       {clientRequest("GET", target, with("X-Road-Id", "")), message.ErrHeader},
		"blank in path":  {clientRequest("GET", target+"/a b", nil), message.ErrTarget},
		"braces in path": {clientRequest("GET", target+"/{a}", nil), message.ErrTarget},
		"line in target": {clientRequest("GET", target+"\r\nx:y", nil), message.ErrTarget},
		"asterisk":       {clientRequest("OPTIONS", "*", nil), message.ErrTarget},
		"no path":        {clientRequest("GET", "http://h", nil), message.ErrTarget},
		"many fields":    {clientRequest("GET", target, with("A", make([]string, message.MaxFields)...)), message.ErrTooLarge},
		"large head":     {clientRequest("GET", target, with("A", strings.Repeat("b", message.MaxHead))), message.ErrTooLarge},
	} {
		req, err := message.FromHTTP(x.r, "DEV", func() string { return "u" })
		if !errors.Is(err, x.want) || req != nil {
			t.Errorf("%s: %v, want %v", name, err, x.want)
		}
		if err != nil && strings.Contains(err.Error(), "b\x00") {
			t.Errorf("%s: the error quotes a value: %v", name, err)
		}
	}
}

func TestResponse(t *testing.T) {
	t.Parallel()
	req := exampleRequest(t)
	h := http.Header{"Content-Type": {"application/json"}, "Content-Length": {"5"}, "Connection": {"close"}, "Server": {"x"},
		"X-Road-Id": {"forged"}, "X-Road-Request-Hash": {"forged"}, "X-Road-Client": {"forged"}, "X-Road-Request-Id": {"forged"},
		"Set-Cookie": {"b", "a"}, "X-Latin": {"J\xfcri"}, "X-Utf8": {"J\u00fcri"}}
	r, err := message.NewResponse(req, exampleHash, 404, "Not\tFound", h)
	if err != nil {
		t.Fatal(err)
	}
	want := "404\r\nNot\tFound\r\nContent-Type:application/json\r\nSet-Cookie:b\r\nSet-Cookie:a\r\nX-Latin:J\u00fcri\r\nX-Utf8:J\u00fcri\r\n" +
		"x-road-id:" + exampleID + "\r\nx-road-client:DEV/COM/4422/TestClient\r\nx-road-service:DEV/COM/1234/TestService/mock1\r\n" +
		"x-road-request-id:" + exampleRequestID + "\r\nx-road-request-hash:" + exampleHash + "\r\n"
	if string(r.Raw) != want {
		t.Errorf("got %q\nwant %q", r.Raw, want)
	}
	again, err := message.ReadResponse(r.Raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Answers(req, exampleHash); err != nil {
		t.Error(err)
	}
	if again.Head.Status != 404 || again.Head.Reason != "Not\tFound" || len(again.Head.Header()["Set-Cookie"]) != 2 {
		t.Errorf("%+v", again.Head)
	}
}

func TestNewResponseRefuses(t *testing.T) {
	t.Parallel()
	req := exampleRequest(t)
	for name, x := range map[string]struct {
		status int
		h      http.Header
		want   error
	}{
		"interim":     {101, nil, message.ErrHead},
		"status":      {1000, nil, message.ErrHead},
		"injection":   {200, http.Header{"A": {"b\r\nc:d"}}, message.ErrHeader},
		"name":        {200, http.Header{"A\r\nB": {"c"}}, message.ErrHeader},
		"many fields": {200, http.Header{"A": make([]string, message.MaxFields)}, message.ErrTooLarge},
		"large":       {200, http.Header{"A": {strings.Repeat("b", message.MaxHead)}}, message.ErrTooLarge},
	} {
		if _, err := message.NewResponse(req, "h", x.status, "", x.h); !errors.Is(err, x.want) {
			t.Errorf("%s: %v, want %v", name, err, x.want)
		}
	}
	r, err := message.NewResponse(req, "h", 200, "O\r\nK", nil)
	if err != nil || r.Head.Reason != "" {
		t.Errorf("a hostile reason phrase must be dropped: %v, %v", r, err)
	}
}

func TestReadResponseRefuses(t *testing.T) {
	t.Parallel()
	const rest = "x-road-id:i\r\nx-road-request-hash:h\r\n"
	for name, x := range map[string]struct {
		head string
		want error
	}{
		"nothing":        {"", message.ErrHead},
		"request":        {exampleHead, message.ErrHead},
		"interim":        {"100\r\n\r\n" + rest, message.ErrHead},
		"long status":    {"0200\r\nOK\r\n" + rest, message.ErrHead},
		"signed status":  {"+20\r\nOK\r\n" + rest, message.ErrHead},
		"reason":         {"200\r\nO\x00K\r\n" + rest, message.ErrHead},
		"empty line":     {"200\r\nOK\r\n" + rest + "\r\n", message.ErrHead},
		"forbidden":      {"200\r\nOK\r\nServer:x\r\n" + rest, message.ErrHeader},
		"no id":          {"200\r\nOK\r\nx-road-request-hash:h\r\n", message.ErrHeader},
		"empty hash":     {"200\r\nOK\r\n" + rest + "x-road-request-hash:\r\n", message.ErrHeader},
		"bad client":     {"200\r\nOK\r\nx-road-client:x\r\n" + rest, message.ErrIdentifier},
		"bad service":    {"200\r\nOK\r\nx-road-service:A/B/C/D\r\n" + rest, message.ErrIdentifier},
		"too many":       {"200\r\nOK\r\n" + strings.Repeat("a:b\r\n", 201), message.ErrTooLarge},
		"reason missing": {"200\r\n", message.ErrHead},
	} {
		if _, err := message.ReadResponse([]byte(x.head)); !errors.Is(err, x.want) {
			t.Errorf("%s: %v, want %v", name, err, x.want)
		}
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	req := exampleRequest(t)
	good := message.Response{ID: req.ID, Client: req.Client, Service: req.Service, RequestID: req.RequestID, RequestHash: "h"}
	if err := good.Answers(req, "h"); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*message.Response){
		"id":         func(r *message.Response) { r.ID = "x" },
		"client":     func(r *message.Response) { r.Client = r.Client.Member().Client() },
		"no client":  func(r *message.Response) { r.Client = id.Client{} },
		"service":    func(r *message.Response) { r.Service, _ = id.NewService(req.Service.Owner(), "x") },
		"version":    func(r *message.Response) { r.Service, _ = id.NewServiceVersion(req.Service.Owner(), "mock1", "") },
		"request id": func(r *message.Response) { r.RequestID = "" },
		"hash":       func(r *message.Response) { r.RequestHash = "H" },
	} {
		r := good
		change(&r)
		if err := r.Answers(req, "h"); !errors.Is(err, message.ErrInconsistent) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A response head from the container of a real security server.
func TestRealResponse(t *testing.T) {
	t.Parallel()
	z, err := zip.OpenReader("../../../shared/vectors/asic/valid-non-batch-rest.asice")
	if err != nil {
		t.Skip("no vectors of X-Road here:", err)
	}
	defer z.Close()
	f, err := z.Open("message.xml")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	r, err := message.ReadResponse(raw)
	if err != nil {
		t.Fatal(err)
	}
	if r.ID != exampleID || r.Client.String() != "DEV/COM/4422/TestClient" || r.Service.Code() != "mock1" || r.Head.Status != 200 {
		t.Errorf("%+v", r)
	}
	// Our own head of the same answer is the same.
	own, err := message.NewResponse(exampleRequest(t), r.RequestHash, 200, "OK", http.Header{
		"Content-Type": {"application/json"}, "mock-response": {"true"}, "Matched-Stub-Id": {"ef2dae0e-5673-46f1-80f9-f07177c7ce6a"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if sortLines(own.Raw) != sortLines(raw) {
		t.Errorf("got %q\nwant %q", own.Raw, raw)
	}
	last := bytes.Index(raw, []byte("x-road-id"))
	if !bytes.HasSuffix(own.Raw, raw[last:]) {
		t.Error("the appended headers differ")
	}
}

func sortLines(b []byte) string {
	lines := strings.Split(string(b), "\r\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func FuzzRequestHead(f *testing.F) {
	f.Add([]byte(exampleHead))
	f.Add([]byte(start + tail))
	f.Add([]byte(strings.ReplaceAll(exampleHead, "\r\n", "\n")))
	f.Add([]byte("GET\r\n/r1/A/B/C/D/E/%2e%2e/?%\r\n" + tail))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := message.ReadRequest(raw, "")
		if err != nil {
			return
		}
		if !bytes.Equal(r.Head.Append(nil), raw) {
			t.Fatalf("%q serialises to %q", raw, r.Head.Append(nil))
		}
		u, err := url.ParseRequestURI(r.Head.Target)
		if err != nil {
			t.Fatalf("net/url refuses the target %q: %v", r.Head.Target, err)
		}
		if u.Host != "" || u.RequestURI() != r.Head.Target {
			t.Fatalf("net/url reads %q as %q", r.Head.Target, u.RequestURI())
		}
		if !strings.HasSuffix(r.Head.Target, r.ServiceTarget()) || r.Client.IsZero() || r.Service.IsZero() || r.ID == "" || r.RequestID == "" {
			t.Fatalf("%+v", r)
		}
		message.RequestHash(raw, nil)
	})
}

func FuzzResponseHead(f *testing.F) {
	f.Add([]byte("200\r\nOK\r\nContent-Type:application/json\r\nx-road-id:1\r\nx-road-client:A/B/C\r\nx-road-service:A/B/C/D/E\r\nx-road-request-hash:h\r\n"))
	f.Add([]byte("204\r\n\r\nx-road-id:1\r\nx-road-request-hash:h\r\n"))
	f.Add([]byte("200\nOK\nx-road-id:1\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := message.ReadResponse(raw)
		if err != nil {
			return
		}
		if !bytes.Equal(r.Head.Append(nil), raw) {
			t.Fatalf("%q serialises to %q", raw, r.Head.Append(nil))
		}
		if r.Head.Status < 200 || r.Head.Status > 999 || r.ID == "" || r.RequestHash == "" {
			t.Fatalf("%+v", r)
		}
		for _, field := range r.Head.Fields {
			if strings.ContainsAny(field.Name+field.Value, "\r\n\x00") {
				t.Fatalf("%+v", field)
			}
		}
	})
}
