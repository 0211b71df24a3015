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

// decoded is one part, read to its end.
type decoded struct {
	kind    message.Kind
	content string
}

func (d decoded) String() string { return fmt.Sprintf("%v %q", d.kind, d.content) }

// decode reads a whole message; read says how the content is taken.
func decode(r io.Reader, contentType string, want message.Kind, l message.Limits, read func(message.Part) ([]byte, error)) ([]decoded, error) {
	d, err := message.NewDecoder(r, contentType, want, l)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	var parts []decoded
	for {
		p, err := d.Next()
		if err == io.EOF {
			return parts, nil
		}
		if err != nil {
			return parts, err
		}
		content, err := read(p)
		if err != nil {
			return parts, err
		}
		parts = append(parts, decoded{p.Kind, string(content)})
	}
}

// readers are the ways in which the content of a part is taken.
var readers = map[string]func(message.Part) ([]byte, error){
	"ReadAll": message.Part.ReadAll,
	"Read":    func(p message.Part) ([]byte, error) { return io.ReadAll(struct{ io.Reader }{p.Reader}) },
	"bytes":   func(p message.Part) ([]byte, error) { return io.ReadAll(iotest.OneByteReader(p.Reader)) },
	"WriteTo": func(p message.Part) ([]byte, error) {
		var b bytes.Buffer
		_, err := p.Reader.(io.WriterTo).WriteTo(&b)
		return b.Bytes(), err
	},
}

// sources are the ways in which bytes arrive.
var sources = map[string]func(io.Reader) io.Reader{
	"whole":    func(r io.Reader) io.Reader { return r },
	"bytes":    iotest.OneByteReader,
	"halves":   iotest.HalfReader,
	"with EOF": iotest.DataErrReader,
}

// parts of messages, by the first letter of their kind; R is a REST response.
var parts = map[byte]string{
	'o': "content-type: application/ocsp-response\r\n\r\n",
	'r': "content-type: application/x-road-rest-request\r\n\r\n",
	'R': "content-type: application/x-road-rest-response\r\n\r\n",
	'b': "content-type: application/x-road-rest-body\r\n\r\n",
	'h': "content-type: application/hash-chain-result\r\n\r\n",
	'c': "content-type: application/hash-chain\r\n\r\n",
	's': "content-type: signature/bdoc-1.0/ts\r\n\r\n",
	'x': "content-type: text/xml; charset=UTF-8\r\n\r\n",
	'p': "Content-Type: application/xop+xml\r\nContent-ID: <1>\r\n\r\n",
	'a': "content-type: multipart/mixed; charset=UTF-8; boundary=xattB\r\n\r\n",
	'?': "content-type: application/json\r\n\r\n",
	'-': "content-id: 1\r\n\r\n",
}

// compose writes a message of the named parts.
func compose(names string) string {
	var b strings.Builder
	for i := range len(names) {
		content := "<" + names[i:i+1] + ">"
		if names[i] == 'a' {
			content = "\r\n--xattB\r\ncontent-type: a/b\r\n\r\n<a>\r\n--xattB--\r\n"
		}
		b.WriteString("--B\r\n" + parts[names[i]] + content + "\r\n")
	}
	return b.String() + "--B--\r\n"
}

const typeB = `multipart/mixed; charset=UTF-8; boundary=B`

func TestPartOrder(t *testing.T) {
	t.Parallel()
	const (
		req  = message.RESTRequest
		resp = message.RESTResponse
		sreq = message.SOAPRequest
		sres = message.SOAPResponse
	)
	for _, x := range []struct {
		want  message.Kind
		parts string
		err   error
	}{
		{req, "rs", nil},
		{req, "ors", nil},
		{req, "ooorbhcs", nil},
		{req, "rbs", nil},
		{req, "rhcs", nil},
		{req, "rcs", nil}, // whether a chain is of use is for the signature's verifier to say
		{req, "rhs", nil},
		{req, "", message.ErrMissingHead},
		{req, "o", message.ErrMissingHead},
		{req, "r", message.ErrMissingSignature},
		{req, "orb", message.ErrMissingSignature},
		{req, "rbhc", message.ErrMissingSignature},
		{req, "s", message.ErrUnexpectedPart},
		{req, "b", message.ErrUnexpectedPart},
		{req, "os", message.ErrUnexpectedPart},
		{req, "Rs", message.ErrUnexpectedPart},
		{req, "rrs", message.ErrUnexpectedPart},
		{req, "ros", message.ErrUnexpectedPart},
		{req, "rbbs", message.ErrUnexpectedPart},
		{req, "rhbs", message.ErrUnexpectedPart},
		{req, "rchs", message.ErrUnexpectedPart},
		{req, "rhhs", message.ErrUnexpectedPart},
		{req, "rccs", message.ErrUnexpectedPart},
		{req, "rss", message.ErrAfterSignature},
		{req, "rsb", message.ErrAfterSignature},
		{req, "rs?", message.ErrAfterSignature},
		{req, "rs-", message.ErrAfterSignature},
		{req, "rx", message.ErrContentType}, // requests have no faults
		{req, "x", message.ErrContentType},
		{req, "ras", message.ErrContentType}, // attachments are SOAP's
		{req, "r?s", message.ErrContentType},
		{req, "?", message.ErrContentType},
		{req, "-", message.ErrContentType},
		{req, strings.Repeat("o", 16) + "rs", nil},
		{req, strings.Repeat("o", 17) + "rs", message.ErrTooLarge},
		{resp, "Rs", nil},
		{resp, "Rbhcs", nil},
		{resp, "x", nil},
		{resp, "Rx", nil},
		{resp, "Rbx", nil},
		{resp, "Rbhx", nil},
		{resp, "Rbhcx", nil},
		{resp, "xR", message.ErrAfterSignature},
		{resp, "Rsx", message.ErrAfterSignature},
		{resp, "xx", message.ErrAfterSignature},
		{resp, "oRs", message.ErrUnexpectedPart},
		{resp, "rs", message.ErrUnexpectedPart},
		{resp, "", message.ErrMissingHead},
		{resp, "Rb", message.ErrMissingSignature},
		{sreq, "oxs", nil},
		{sreq, "opas", nil},
		{sreq, "oxahcs", nil},
		{sreq, "oxx", message.ErrContentType},
		{sreq, "xbs", message.ErrUnexpectedPart},
		{sreq, "xaas", message.ErrUnexpectedPart},
		{sreq, "rs", message.ErrUnexpectedPart},
		{sres, "xas", nil},
		{sres, "xx", nil},
		{sres, "xax", nil},
		{sres, "oxs", message.ErrUnexpectedPart},
		{sres, "x", message.ErrMissingSignature}, // unless the caller finds that it is a fault
	} {
		doc := compose(x.parts)
		have, err := decode(strings.NewReader(doc), typeB, x.want, message.Limits{}, message.Part.ReadAll)
		if !errors.Is(err, x.err) || (x.err == nil) != (err == nil) {
			t.Errorf("%v %q: %v, want %v", x.want, x.parts, err, x.err)
		}
		for i, p := range have {
			if p.content != "<"+x.parts[i:i+1]+">" {
				t.Errorf("%q: part %d is %q", x.parts, i, p.content)
			}
		}
		if err == nil && len(have) != len(x.parts) {
			t.Errorf("%q: %d parts", x.parts, len(have))
		}
		if err != nil {
			// The error is repeated, nothing more is given out.
			d, _ := message.NewDecoder(strings.NewReader(doc), typeB, x.want, message.Limits{})
			var first error
			for first == nil {
				_, first = d.Next()
			}
			if _, again := d.Next(); again != first {
				t.Errorf("%q: first %v, then %v", x.parts, first, again)
			}
		}
	}
}

func TestSOAPPartHeaders(t *testing.T) {
	t.Parallel()
	d, err := message.NewDecoder(strings.NewReader(compose("ps")), typeB, message.SOAPRequest, message.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := d.Next()
	if err != nil {
		t.Fatal(err)
	}
	if p.Kind != message.SOAPRequest || p.ContentType != "application/xop+xml" || !slices.Equal(p.Fields, []message.Field{{Name: "Content-ID", Value: "<1>"}}) {
		t.Errorf("%+v", p)
	}
}

func TestMessageContentTypes(t *testing.T) {
	t.Parallel()
	for ct, ok := range map[string]bool{
		typeB:                                      true,
		`Multipart/Mixed; BOUNDARY="B"`:            true,
		`multipart/mixed; boundary="B:1=2?"`:       true,
		`multipart/mixed`:                          false,
		`multipart/mixed; boundary=`:               false,
		`multipart/mixed; boundary=""`:             false,
		`multipart/mixed; boundary="a b"`:          false,
		`multipart/mixed; boundary="` + "\u00e4":   false,
		`multipart/mixed; boundary=B; boundary=C`:  false,
		`multipart/mixed; boundary=` + long(71):    false,
		`multipart/mixed; boundary=` + long(70):    true,
		`multipart/related; boundary=B`:            false,
		`application/json`:                         false,
		`text/xml`:                                 false,
		``:                                         false,
		"multipart/mixed; boundary=\"B\r\nx: y\"":  false,
		`multipart/mixed; boundary*=utf-8''B%0d%0`: false,
	} {
		_, err := message.NewDecoder(strings.NewReader(""), ct, message.RESTRequest, message.Limits{})
		if (err == nil) != ok || err != nil && !errors.Is(err, message.ErrContentType) {
			t.Errorf("%q: %v", ct, err)
		}
	}
}

func long(n int) string { return strings.Repeat("x", n) }

func TestPlainFault(t *testing.T) {
	t.Parallel()
	for name, source := range sources {
		for _, doc := range []string{"<fault/>", "", long(9000)} {
			have, err := decode(source(strings.NewReader(doc)), "text/xml;charset=utf-8", message.RESTResponse, message.Limits{}, message.Part.ReadAll)
			if err != nil || len(have) != 1 || have[0] != (decoded{message.Fault, doc}) {
				t.Errorf("%s: %v, %v", name, len(have), err)
			}
		}
	}
	_, err := decode(strings.NewReader(long(1<<20+1)), "text/xml", message.RESTResponse, message.Limits{}, message.Part.ReadAll)
	if !errors.Is(err, message.ErrTooLarge) {
		t.Error(err)
	}
	gone := errors.New("gone")
	_, err = decode(iotest.ErrReader(gone), "text/xml", message.RESTResponse, message.Limits{}, message.Part.ReadAll)
	if !errors.Is(err, gone) {
		t.Error(err)
	}
}

// Bodies that look like boundaries, at all places relative to the buffer.
func TestContentIsExact(t *testing.T) {
	t.Parallel()
	contents := []string{"", "x", "\r", "\n", "\r\n", "\r\n\r\n", "--", "\r\n--", "--Bx", "\n--Bx", "\r\n--Bx", "\r\n--B-", "\r\n--B -", "\r\n--B\rx", "\r\n--B \t \tx",
		"\r\n--b\r\n", "\r\n-B", "\n\n--", "\r\r\n-", "a\r\n--B:\r\n--C--\r\n", strings.Repeat("\r\n--Bx", 20000),
		"\r\n--B" + strings.Repeat(" ", 200) + "\r\n", strings.Repeat("\n", 70000), strings.Repeat("\r\n--", 20000)}
	for _, at := range []int{65300, 65436, 65480, 65490, 65500, 65520, 65530, 65534, 65535, 65536, 65537, 65600, 131072, 200000} {
		contents = append(contents, long(at), long(at)+"\r\n--Bx\r", long(at)+"\r")
	}
	for i, content := range contents {
		doc := "--B\r\n" + parts['r'] + "h\r\n--B\r\n" + parts['b'] + content + "\r\n--B\r\n" + parts['s'] + "s\r\n--B--\r\n"
		for sname, source := range sources {
			for rname, read := range readers {
				if len(content) > 1000 && (sname == "bytes" && i%7 != 0 || rname == "bytes" && i%7 != 1) {
					continue // slow, and every seventh shows as much
				}
				have, err := decode(source(strings.NewReader(doc)), typeB, message.RESTRequest, message.Limits{}, read)
				if err != nil || len(have) != 3 || have[1].content != content || have[2].content != "s" {
					t.Fatalf("content %d (%d bytes), source %s, reader %s: %d parts, %v", i, len(content), sname, rname, len(have), err)
				}
			}
		}
	}
}

func TestEmptyParts(t *testing.T) {
	t.Parallel()
	for name, doc := range map[string]string{
		"line break of the boundary": "--B\r\n" + parts['r'] + "\r\n--B\r\n" + parts['s'] + "\r\n--B--",
		"line break of the header":   "--B\r\n" + parts['r'] + "--B\r\n" + parts['s'] + "--B--",
	} {
		for sname, source := range sources {
			have, err := decode(source(strings.NewReader(doc)), typeB, message.RESTRequest, message.Limits{}, message.Part.ReadAll)
			if err != nil || len(have) != 2 || have[0].content != "" || have[1].content != "" {
				t.Errorf("%s, %s: %v, %v", name, sname, have, err)
			}
		}
	}
}

func TestTolerance(t *testing.T) {
	t.Parallel()
	good := compose("rbs")
	for name, doc := range map[string]string{
		"as written":             good,
		"line feeds":             strings.ReplaceAll(good, "\r\n", "\n"),
		"leading line break":     "\r\n" + good,
		"leading line feed":      "\n" + good,
		"no last line break":     strings.TrimSuffix(good, "\r\n"),
		"white space at the end": good + " \r\n\t\n",
		"padded boundaries":      strings.ReplaceAll(good, "--B\r\n", "--B \t\r\n"),
		"header names":           strings.ReplaceAll(good, "content-type: ", "Content-TYPE:"),
		"header values":          strings.ReplaceAll(good, "application/", "Application/"),
		"parameters":             strings.ReplaceAll(good, "\r\n\r\n", " ; x=y\r\n\r\n"),
		"other headers":          strings.ReplaceAll(good, "content-type", "Content-Transfer-Encoding: base64\r\ncontent-type"),
	} {
		for sname, source := range sources {
			have, err := decode(source(strings.NewReader(doc)), typeB, message.RESTRequest, message.Limits{}, message.Part.ReadAll)
			if err != nil || fmt.Sprint(have) != `[REST request "<r>" REST body "<b>" signature "<s>"]` {
				t.Errorf("%s, %s: %v, %v", name, sname, have, err)
			}
		}
	}
}

func TestMalformed(t *testing.T) {
	t.Parallel()
	head := func(h string) string {
		return "--B\r\n" + h + "\r\n\r\n<r>\r\n--B\r\n" + parts['s'] + "<s>\r\n--B--\r\n"
	}
	const rest = "content-type: application/x-road-rest-request"
	for name, x := range map[string]struct {
		doc  string
		want error
	}{
		"nothing":               {"", message.ErrMalformed},
		"preamble":              {"hello\r\n" + compose("rs"), message.ErrMalformed},
		"two leading breaks":    {"\r\n\r\n" + compose("rs"), message.ErrMalformed},
		"leading return":        {"\r" + compose("rs"), message.ErrMalformed},
		"other boundary":        {strings.ReplaceAll(compose("rs"), "--B", "--C"), message.ErrMalformed},
		"longer boundary":       {strings.ReplaceAll(compose("rs"), "--B", "--BB"), message.ErrMalformed},
		"text at the end":       {compose("rs") + "x", message.ErrAfterSignature},
		"parts after the end":   {compose("rs") + compose("rs"), message.ErrAfterSignature},
		"blanks without end":    {compose("rs") + strings.Repeat(" ", 5000), message.ErrMalformed},
		"header without colon":  {head(rest + "\r\nabc"), message.ErrMalformed},
		"header without name":   {head(": x"), message.ErrMalformed},
		"blank in header name":  {head("content-type : x"), message.ErrMalformed},
		"folded header":         {head(rest + ";\r\n x=y"), message.ErrMalformed},
		"control in header":     {head(rest + "\x00"), message.ErrMalformed},
		"return in header":      {head(rest + "\rx: y"), message.ErrMalformed},
		"two content types":     {head(rest + "\r\n" + rest), message.ErrMalformed},
		"long line":             {head(rest + "; " + long(1000)), message.ErrTooLarge},
		"line without end":      {"--B\r\n" + long(100000), message.ErrTooLarge},
		"many lines":            {head(rest + strings.Repeat("\r\na: b", 100)), message.ErrTooLarge},
		"boundary in header":    {"--B\r\n" + rest + "\r\n--B\r\n" + rest + "\r\n\r\n", message.ErrMalformed},
		"no header, no content": {"--B\r\n\r\n--B--\r\n", message.ErrContentType},
	} {
		for sname, source := range sources {
			_, err := decode(source(strings.NewReader(x.doc)), typeB, message.RESTRequest, message.Limits{}, message.Part.ReadAll)
			if !errors.Is(err, x.want) {
				t.Errorf("%s, %s: %v, want %v", name, sname, err, x.want)
			}
		}
	}
}

// Wherever a message is cut off, it is not taken for complete, and a broken
// connection is told from a malformed message.
func TestCutOff(t *testing.T) {
	t.Parallel()
	gone := errors.New("gone")
	end := len(exampleMessage) - len("\r\n")
	for i := range len(exampleMessage) {
		cut := exampleMessage[:i]
		_, err := decode(strings.NewReader(cut), exampleType, message.RESTRequest, message.Limits{}, message.Part.ReadAll)
		if i < end && (!errors.Is(err, message.ErrMalformed) || !errors.Is(err, io.ErrUnexpectedEOF)) || i >= end && err != nil {
			t.Fatalf("cut at %d: %v", i, err)
		}
		_, err = decode(io.MultiReader(strings.NewReader(cut), iotest.ErrReader(gone)), exampleType, message.RESTRequest, message.Limits{}, message.Part.ReadAll)
		if !errors.Is(err, gone) || errors.Is(err, message.ErrMalformed) {
			t.Fatalf("broken at %d: %v", i, err)
		}
	}
	_, err := decode(stuck{}, typeB, message.RESTRequest, message.Limits{}, message.Part.ReadAll)
	if !errors.Is(err, io.ErrNoProgress) {
		t.Error(err)
	}
}

type stuck struct{}

func (stuck) Read([]byte) (int, error) { return 0, nil }

func TestDecoderLimits(t *testing.T) {
	t.Parallel()
	limits := message.Limits{Head: 100, Part: 200, Body: 300, OCSP: 1}
	for _, x := range []struct {
		kind byte
		max  int
	}{{'o', 200}, {'r', 100}, {'b', 300}, {'h', 200}, {'c', 200}, {'s', 200}} {
		for _, over := range []int{0, 1, 100000} {
			doc := strings.Replace(compose("orbhcs"), "<"+string(x.kind)+">", long(x.max+over), 1)
			for rname, read := range readers {
				_, err := decode(strings.NewReader(doc), typeB, message.RESTRequest, limits, read)
				if (over == 0) != (err == nil) || err != nil && !errors.Is(err, message.ErrTooLarge) {
					t.Errorf("%c with %d bytes by %s: %v", x.kind, x.max+over, rname, err)
				}
			}
			// Nor may a part that nobody reads be longer.
			d, err := message.NewDecoder(strings.NewReader(doc), typeB, message.RESTRequest, limits)
			if err != nil {
				t.Fatal(err)
			}
			for err == nil {
				_, err = d.Next()
			}
			if (over == 0) != (err == io.EOF) {
				t.Errorf("%c with %d bytes, skipped: %v", x.kind, x.max+over, err)
			}
		}
	}
}

func TestDecoderClose(t *testing.T) {
	t.Parallel()
	d, err := message.NewDecoder(strings.NewReader(compose("rbs")), typeB, message.RESTRequest, message.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := d.Next()
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
	d.Close()
	if _, err := d.Next(); err == nil || err == io.EOF {
		t.Errorf("a closed decoder gave %v", err)
	}
	if b, err := p.ReadAll(); err == nil {
		t.Errorf("a closed decoder gave %q", b)
	}
}

// recorder counts the writes that reach the wire.
type recorder struct {
	bytes.Buffer
	writes int
	fail   error
}

func (r *recorder) Write(p []byte) (int, error) {
	r.writes++
	if r.fail != nil {
		return 0, r.fail
	}
	return r.Buffer.Write(p)
}

func TestEncoderGathers(t *testing.T) {
	t.Parallel()
	var out recorder
	e := message.NewEncoder(&out)
	e.OCSP(make([]byte, 1000))
	e.Head(message.RESTRequest, []byte(exampleHead))
	io.WriteString(e.BodyWriter(), exampleBody)
	e.Signature(make([]byte, 5000))
	if out.writes != 0 {
		t.Error("written before it was asked to")
	}
	if err := e.Close(); err != nil || out.writes != 1 {
		t.Errorf("%d writes, %v", out.writes, err)
	}
	whole := out.String()

	out = recorder{}
	e = message.NewEncoder(&out)
	e.Head(message.RESTRequest, []byte(exampleHead))
	e.Flush()
	if out.writes != 1 || !strings.Contains(out.String(), exampleHead) {
		t.Error("not flushed")
	}
	large := bytes.Repeat([]byte("x"), 100<<10)
	if n, err := e.BodyWriter().Write(large); n != len(large) || err != nil || out.writes != 3 {
		t.Errorf("%d writes, %v", out.writes, err)
	}
	if _, params, _ := mime.ParseMediaType(e.ContentType()); strings.Contains(whole, params["boundary"]) {
		t.Error("two messages with one boundary")
	}
}

func TestEncoderRefusesDisorder(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		parts string
		ok    bool
	}{
		{"rs", true}, {"orbcs", true}, {"rcs", true}, {"Rbs", true}, {"f", true}, {"Rf", true}, {"Rbf", true}, {"Rcf", true}, {"REs", true}, {"Res", true},
		{"", false}, {"r", false}, {"rb", false}, {"ro", false}, {"oR", false}, {"b", false}, {"s", false}, {"rcb", false}, {"rcc", false},
		{"rsb", false}, {"rss", false}, {"rsf", false}, {"fs", false}, {"rr", false}, {"rbeb", false}, {"rE" + "cE", false}, {"S", false},
	} {
		var out bytes.Buffer
		e := message.NewEncoderWithBoundary(&out, "B")
		for _, p := range x.parts {
			switch p {
			case 'o':
				e.OCSP([]byte("o"))
			case 'r':
				e.Head(message.RESTRequest, []byte("r"))
			case 'R':
				e.Head(message.RESTResponse, []byte("R"))
			case 'S':
				e.Head(message.SOAPRequest, []byte("S"))
			case 'b':
				io.WriteString(e.BodyWriter(), "b")
			case 'E':
				e.StartBody()
			case 'e':
				e.EndBody()
			case 'c':
				e.HashChain([]byte("h"), []byte("c"))
			case 's':
				e.Signature([]byte("s"))
			case 'f':
				e.Fault([]byte("f"))
			}
		}
		err := e.Close()
		if (err == nil) != x.ok || err != nil && !errors.Is(err, message.ErrOrder) {
			t.Errorf("%q: %v", x.parts, err)
		}
		if again := e.Close(); (again == nil) != x.ok {
			t.Errorf("%q: closed again: %v", x.parts, again)
		}
		if x.ok {
			want := message.RESTRequest
			if !strings.Contains(x.parts, "r") {
				want = message.RESTResponse
			}
			if _, err := decode(&out, typeB, want, message.Limits{}, message.Part.ReadAll); err != nil {
				t.Errorf("%q: own message refused: %v", x.parts, err)
			}
		} else if strings.HasSuffix(out.String(), "--B--\r\n") {
			t.Errorf("%q: a wrong message was completed", x.parts)
		}
	}
}

func TestEncoderErrorsStick(t *testing.T) {
	t.Parallel()
	out := recorder{fail: errors.New("gone")}
	e := message.NewEncoder(&out)
	e.Head(message.RESTRequest, []byte(exampleHead))
	if _, err := e.BodyWriter().Write(make([]byte, 100<<10)); err != out.fail {
		t.Error(err)
	}
	out.fail = nil
	e.Signature([]byte("s"))
	if err := e.Close(); err == nil || out.Len() != 0 {
		t.Errorf("a broken message was completed: %v", err)
	}
}

func TestBoundaryIsOfLetters(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 100 {
		_, params, err := mime.ParseMediaType(message.NewEncoder(io.Discard).ContentType())
		if err != nil {
			t.Fatal(err)
		}
		b := params["boundary"]
		if len(b) != 34 || !strings.HasPrefix(b, "xtop") || strings.Trim(b, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") != "" || seen[b] {
			t.Errorf("boundary %q", b)
		}
		seen[b] = true
	}
}

func ExampleEncoder() {
	var wire bytes.Buffer
	enc := message.NewEncoder(&wire)
	enc.Head(message.RESTResponse, []byte("200\r\nOK\r\nContent-Type:text/plain\r\n"))
	io.WriteString(enc.BodyWriter(), "hello")
	enc.Signature([]byte("<signature/>"))
	if err := enc.Close(); err != nil { // repeats the first error
		fmt.Println(err)
	}

	dec, err := message.NewDecoder(&wire, enc.ContentType(), message.RESTResponse, message.Limits{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer dec.Close()
	for {
		part, err := dec.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			fmt.Println(err)
			return
		}
		content, _ := part.ReadAll()
		fmt.Printf("%v: %d bytes\n", part.Kind, len(content))
	}
	// Output:
	// REST response: 34 bytes
	// REST body: 5 bytes
	// signature: 12 bytes
}

// encode writes a message with the given contents; nil leaves a part out.
func encode(t testing.TB, boundary string, want message.Kind, ocsp int, head, body, chain, last []byte, faulty bool) []byte {
	t.Helper()
	var out bytes.Buffer
	e := message.NewEncoderWithBoundary(&out, boundary)
	for range ocsp {
		e.OCSP(last)
	}
	e.Head(want, head)
	if body != nil {
		e.StartBody()
		e.BodyWriter().Write(body)
		e.EndBody()
	}
	if chain != nil {
		e.HashChain(chain, chain)
	}
	if faulty {
		e.Fault(last)
	} else {
		e.Signature(last)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// FuzzRoundTrip: what the encoder writes is what the decoder and mime/multipart
// read.
func FuzzRoundTrip(f *testing.F) {
	f.Add(uint8(1), []byte(exampleHead), []byte(exampleBody), []byte("<c/>\n"), []byte("<s/>"), uint8(0))
	f.Add(uint8(0), []byte(""), []byte("\r\n--xtop\r\n--"), []byte("\r"), []byte("\n"), uint8(7))
	f.Add(uint8(3), []byte("\r\n\r\n"), bytes.Repeat([]byte("\r\n--xtopA"), 10000), []byte(""), []byte("--"), uint8(2))
	f.Fuzz(func(t *testing.T, ocsp uint8, head, body, chain, last []byte, flags uint8) {
		want, faulty := message.RESTRequest, false
		if flags&1 != 0 {
			want, ocsp, faulty = message.RESTResponse, 0, flags&8 != 0
		}
		if flags&2 != 0 {
			body = nil
		}
		if flags&4 != 0 {
			chain = nil
		}
		if len(head) > message.MaxHead || bytes.Contains(slices.Concat(head, body, chain, last), []byte(exampleBoundary)) {
			t.Skip()
		}
		ocsp %= 17
		doc := encode(t, exampleBoundary, want, int(ocsp), head, body, chain, last, faulty)

		var expected []decoded
		for range ocsp {
			expected = append(expected, decoded{message.OCSP, string(last)})
		}
		expected = append(expected, decoded{want, string(head)})
		if body != nil {
			expected = append(expected, decoded{message.RESTBody, string(body)})
		}
		if chain != nil {
			expected = append(expected, decoded{message.HashChainResult, string(chain)}, decoded{message.HashChain, string(chain)})
		}
		end := message.Signature
		if faulty {
			end = message.Fault
		}
		expected = append(expected, decoded{end, string(last)})

		have, err := decode(bytes.NewReader(doc), exampleType, want, message.Limits{}, message.Part.ReadAll)
		if err != nil || !slices.Equal(have, expected) {
			t.Fatalf("%v\ngot  %v\nwant %v", err, have, expected)
		}
		std := multipart.NewReader(bytes.NewReader(doc), exampleBoundary)
		for i, x := range expected {
			p, err := std.NextRawPart()
			if err != nil {
				t.Fatalf("mime/multipart, part %d: %v", i, err)
			}
			content, err := io.ReadAll(p)
			if err != nil || string(content) != x.content {
				t.Fatalf("mime/multipart, part %d: %q, %v", i, content, err)
			}
		}
		if _, err := std.NextRawPart(); err != io.EOF {
			t.Fatalf("mime/multipart found more: %v", err)
		}
	})
}

// FuzzDecoder: strangers' bytes are refused or read, the same however they
// arrive, and what is read can be written and read again.
func FuzzDecoder(f *testing.F) {
	f.Add([]byte(exampleMessage), uint8(0))
	for _, p := range []string{"rs", "orbhcs", "Rbhcx", "x", "rss", "opas", "?", ""} {
		for kind := range uint8(4) {
			f.Add([]byte(compose(p)), kind)
		}
	}
	f.Add([]byte(strings.ReplaceAll(compose("orbs"), "\r\n", "\n")), uint8(0))
	f.Add([]byte("\r\n--B \t\r\n"+parts['r']+"\r\n--Bx\r\n--B-\r\n--B\r\n"+parts['s']+"--B--"), uint8(0))
	f.Fuzz(func(t *testing.T, doc []byte, kind uint8) {
		want := message.RESTRequest + message.Kind(kind%4)
		boundary := "B"
		if bytes.Contains(doc, []byte(exampleBoundary)) {
			boundary = exampleBoundary
		}
		ctype := "multipart/mixed; boundary=" + boundary
		limits := message.Limits{Head: 1 << 10, Part: 1 << 10, SOAP: 1 << 10, Body: 1 << 12}
		have, err := decode(bytes.NewReader(doc), ctype, want, limits, message.Part.ReadAll)
		again, againErr := decode(iotest.OneByteReader(bytes.NewReader(doc)), ctype, want, limits, readers["bytes"])
		if !slices.Equal(have, again) || fmt.Sprint(err) != fmt.Sprint(againErr) {
			t.Fatalf("at once:      %v, %v\nbyte by byte: %v, %v", have, err, again, againErr)
		}
		if err != nil {
			return
		}
		if len(have) == 0 || have[len(have)-1].kind < message.Signature {
			t.Fatalf("taken for complete: %v", have)
		}
		if want > message.RESTResponse {
			return
		}
		var out bytes.Buffer
		e := message.NewEncoderWithBoundary(&out, exampleBoundary)
		var chain []string
		for _, p := range have {
			if strings.Contains(p.content, exampleBoundary) {
				t.Skip()
			}
			switch p.kind {
			case message.OCSP:
				e.OCSP([]byte(p.content))
			case message.RESTRequest, message.RESTResponse:
				e.Head(p.kind, []byte(p.content))
			case message.RESTBody:
				e.StartBody()
				io.WriteString(e.BodyWriter(), p.content)
			case message.HashChainResult, message.HashChain:
				if chain = append(chain, p.content); len(chain) == 2 {
					e.HashChain([]byte(chain[0]), []byte(chain[1]))
				}
			case message.Signature:
				e.Signature([]byte(p.content))
			case message.Fault:
				e.Fault([]byte(p.content))
			}
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		if len(chain) == 1 {
			return // the encoder writes both or none
		}
		if again, err := decode(&out, exampleType, want, limits, message.Part.ReadAll); err != nil || !slices.Equal(again, have) {
			t.Fatalf("%v became %v, %v", have, again, err)
		}
	})
}

// TestHold: a message that may wait is written at once, and its size is known
// before; of a larger one nothing is promised.
func TestHold(t *testing.T) {
	t.Parallel()
	const hold = 96 << 10
	for _, body := range []int{0, 10, 20 << 10, 50 << 10, hold - 1<<10, hold, 200 << 10} {
		var out counted
		e := message.NewEncoder(&out)
		e.Hold(hold)
		e.Head(message.RESTResponse, []byte("200\r\nOK\r\n"))
		e.StartBody()
		for left := body; left > 0; left -= min(left, 10<<10) {
			_, _ = e.BodyWriter().Write(make([]byte, min(left, 10<<10)))
		}
		if n, ok := e.Whole(); ok {
			t.Errorf("body of %d bytes: whole without a signature: %d", body, n)
		}
		e.Signature([]byte("signature"))
		n, ok := e.Whole()
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		if fits := body < hold-1<<10; ok && (out.writes != 1 || n != out.size) || fits && !ok || body >= hold && ok {
			t.Errorf("body of %d bytes: whole %v with %d bytes; written %d in %d pieces", body, ok, n, out.size, out.writes)
		}
		if _, ok := e.Whole(); ok {
			t.Error("whole after Close")
		}
	}
}

// counted counts what is written.
type counted struct{ writes, size int }

func (c *counted) Write(p []byte) (int, error) {
	c.writes++
	c.size += len(p)
	return len(p), nil
}
