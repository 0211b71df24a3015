// SPDX-License-Identifier: Apache-2.0

package metaservice_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"unicode/utf16"

	"gopkg.in/yaml.v3"

	"kontor/gateway/metaservice"
)

func TestHideServersJSON(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`{"openapi":"3.0.1"}`:            `{"openapi":"3.0.1"}`,
		`{}`:                             `{}`,
		"\ufeff" + `{ "servers" : [ ] }`: `{ "servers" : [ ] }`,
		`{"servers":[{"url" : "https://10.0.0.1:8443/v1/a%20b"}],"x":1.50}`:                                              `{"servers":[{"url": "/v1/a%20b"}],"x":1.50}`,
		`{"servers":[{"description":"d","url":"http://h"},{"url":"/v2"},{}]}`:                                            `{"servers":[{"description":"d","url": ""},{"url":"/v2"},{}]}`,
		`{"servers":[{"url":"https://{host}/v1"}]}`:                                                                      `{"servers":[{"url":"https://{host}/v1"}]}`,
		`{"servers":[1,["x",{"url":"http://h/"}],{"url":{"url":"http://h/"}}],"info":{"servers":[{"url":"http://h/"}]}}`: `{"servers":[1,["x",{"url":"http://h/"}],{"url":{"url":"http://h/"}}],"info":{"servers":[{"url":"http://h/"}]}}`,
		`{"servers":{"url":"http://h/"}}`:                                                                                `{"servers":{"url":"http://h/"}}`,
		`{"servers":[{"url":"http://a/1","url":"http://b/2"}],"servers":[{"url":"http://c/3"}]}`:                         `{"servers":[{"url": "/1","url": "/2"}],"servers":[{"url": "/3"}]}`,
	} {
		got, err := metaservice.HideServersJSON([]byte(in))
		if err != nil || string(got) != want {
			t.Errorf("%s:\n%s, %v\nwant %s", in, got, err, want)
		}
	}
	for _, in := range []string{"", "[]", "null", `"x"`, `{"openapi":"2.0"}`, `{"openapi":3}`, `{"a":1}{}`, `{"a":1`, `{"servers":[{"url":"http://h/"`,
		`{"servers":[{"url":"http://a b/"}]}`, `{a:1}`, `{"a":}`, strings.Repeat(`{"a":[`, 100_000)} {
		if got, err := metaservice.HideServersJSON([]byte(in)); err == nil {
			t.Errorf("%.50s: %.50s", in, got)
		}
	}
}

func TestHideServersYAML(t *testing.T) {
	t.Parallel()
	const same = "# ours\nopenapi:   3.0.3\nservers:\n- url: /v1\n"
	for in, want := range map[string]string{
		same: same,
		"openapi: 3.1.0\n# ours\nservers:\n  - url: https://10.0.0.1/v1 # inside\n    description: d\npaths: {}\n": "openapi: 3.1.0\n# ours\nservers:\n  - url: '/v1' # inside\n    description: d\npaths: {}\n",
		"s: &s {url: 'http://h/x'}\nservers: [*s]\n":                                                               "s: &s {url: '/x'}\nservers: [*s]\n",
		"---\n# c\n\"openapi\": '3.0.0'\ninfo: {title: \"a: b\"}\nservers:   # ours\n- url: 'http://h/1'\n\n# second\n- {url: http://h/2}\npaths:\n  servers: [{url: 'http://stays'}]\n": "---\n# c\n\"openapi\": '3.0.0'\ninfo: {title: \"a: b\"}\nservers:   # ours\n- url: '/1'\n\n# second\n- {url: '/2'}\npaths:\n  servers: [{url: 'http://stays'}]\n",
		"openapi: 3.0.0\r\nservers:\r\n  - url: /v1\r\nx-text: |\r\n  servers:\r\n":                                                                                                      "openapi: 3.0.0\r\nservers:\r\n  - url: /v1\r\nx-text: |\r\n  servers:\r\n",
		"openapi: 3.0.0\nx: &s {url: 'http://h/x'}\nservers: [*s]\n":                                                                                                                     "openapi: 3.0.0\nx: &s {url: '/x'}\nservers: [*s]\n",
		"openapi: 3.0.0\nservers:\r\n  - {description: \"Grüße\", url: \"http://h/v1\"}\r\n  - url: http://h\r\n":                                                                        "openapi: 3.0.0\nservers:\r\n  - {description: \"Grüße\", url: '/v1'}\r\n  - url: ''\r\n",
		"openapi: 3.0.0\npaths: {}":                          "openapi: 3.0.0\npaths: {}",
		"{openapi: 3.0.0, servers: [{url: 'http://h/x'}]}\n": "{openapi: 3.0.0, servers: [{url: '/x'}]}\n",
		"servers: [{url: 'http://{h}/x'}]\n":                 "servers: [{url: 'http://{h}/x'}]\n",
	} {
		got, err := metaservice.HideServersYAML([]byte(in))
		if err != nil || string(got) != want {
			t.Errorf("%s:\n%s, %v\nwant %s", in, got, err, want)
		}
	}
	bomb := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'k'; c++ {
		p := string(c - 1)
		bomb += string(c) + ": &" + string(c) + " [*" + p + strings.Repeat(",*"+p, 8) + "]\n"
	}
	if got, err := metaservice.HideServersYAML([]byte(bomb + "servers: [{url: 'http://h/x'}]\n")); err == nil && len(got) > 2*len(bomb) {
		t.Errorf("aliases were expanded: %d bytes", len(got))
	}
	for _, in := range []string{"", "- a", "a", "a: [", "a: 1\n---\nb: 2", "openapi: 2.0", "servers: [{url: 'http://a b/'}]", strings.Repeat("[", 100_000), "a: *b",
		"openapi: 3.0.0\nservers:\n  - url: &a http://h/x\n", "openapi: 3.0.0\nservers:\n  - url: >-\n      http://h/x\n", `servers: [{url: "http:\/\/h/x"}]`} {
		if got, err := metaservice.HideServersYAML([]byte(in)); err == nil {
			t.Errorf("%.50s: %.50s", in, got)
		}
	}
}

// A large document costs little more than its size.
func TestHideServersLarge(t *testing.T) {
	var b strings.Builder
	b.WriteString("openapi: 3.0.0\nservers: [{url: 'http://h/x'}]\npaths:\n")
	for i := 0; b.Len() < 8<<20; i++ {
		fmt.Fprintf(&b, "  /p%d:\n    get: {responses: {'200': {description: ok}}}\n", i)
	}
	in := b.String()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	got, err := metaservice.HideServersYAML([]byte(in))
	runtime.ReadMemStats(&after)
	if want := strings.Replace(in, "'http://h/x'", "'/x'", 1); err != nil || string(got) != want {
		t.Errorf("%.200s, %v", got, err)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 64<<20 {
		t.Errorf("%d MiB were used", used>>20)
	}
	if got, err := metaservice.HideServersYAML([]byte("?" + in)); err == nil {
		t.Errorf("%.200s", got)
	}
}

const wsdl = `<?xml version="1.0" encoding="%ENC%"?>
<!-- ours -->
<wsdl:definitions xmlns:wsdl="http://schemas.xmlsoap.org/wsdl/" xmlns:s="http://schemas.xmlsoap.org/wsdl/soap/" xmlns:t="http://schemas.xmlsoap.org/wsdl/soap12/" name="L%UE%beck">
  <wsdl:service name="a">
    <wsdl:port><s:address
       x='location="no"'   location = 'http://10.0.0.1/a?b=1&amp;c=2' /></wsdl:port>
    <wsdl:port><t:address location="http://10.0.0.1/"></t:address></wsdl:port>
    <wsdl:port><address location="http://stays/"/><s:address/><s:address s:location="http://stays/"/></wsdl:port>
  </wsdl:service>
</wsdl:definitions>`

func utf16LE(s string) string {
	var b []byte
	for _, unit := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, unit)
	}
	return string(b)
}

func TestHideAddresses(t *testing.T) {
	t.Parallel()
	fill := func(encoding, umlaut string) string {
		return strings.NewReplacer("%ENC%", encoding, "%UE%", umlaut).Replace(wsdl)
	}
	want := strings.NewReplacer("http://10.0.0.1/a?b=1&amp;c=2", "http://example.org/xroad-endpoint", `location="http://10.0.0.1/"`, `location="http://example.org/xroad-endpoint"`).
		Replace(fill("UTF-8", "ü"))
	for name, in := range map[string]string{
		"UTF-8": fill("UTF-8", "ü"), "mark": "\ufeff" + fill("utf-8", "ü"), "Latin": fill("ISO-8859-1", "\xfc"),
		"UTF-16": utf16LE("\ufeff" + fill("utf-16", "ü")), "UTF-16 without mark": utf16LE(fill("UTF-16LE", "ü")),
	} {
		got, err := metaservice.HideAddresses([]byte(in))
		if err != nil || string(got) != want {
			t.Errorf("%s: %v\n%s", name, err, got)
		}
	}
	for name, in := range map[string]string{
		"empty": "", "text": "hello", "open": "<a>", "two": "<a/><b/>", "entity": "<a>&x;</a>", "half UTF-16": "\xff\xfe<\x00a\x00/\x00>",
		"other": fill("UTF-16", "ü"), "wrong": fill("UTF-8", "\xfc"),
		"document type": `<!DOCTYPE a [<!ENTITY x "y">]><a/>`,
	} {
		if got, err := metaservice.HideAddresses([]byte(in)); err == nil {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func FuzzHideServers(f *testing.F) {
	f.Add([]byte(`{"openapi":"3.0.1","servers":[{"url":"http://h/v1"}],"paths":{}}`))
	f.Add([]byte("openapi: 3.0.1\nservers: [&a {url: 'http://h/v1'}, *a]\n"))
	f.Add([]byte("---\n\"openapi\": '3.0.0'\nservers: # ours\n- url: 'http://h/1'\n\n# second\n- {url: http://h/2}\nx-text: |\n  servers:\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := metaservice.HideServersJSON(b); err == nil {
			if !json.Valid(got) {
				t.Errorf("no JSON comes out of %q: %q", b, got)
			}
			if again, err := metaservice.HideServersJSON(got); err != nil || !bytes.Equal(again, got) && !bytes.Contains(b, []byte(`\`)) {
				t.Errorf("%q differs from %q, %v", again, got, err)
			}
		}
		if got, err := metaservice.HideServersYAML(b); err == nil {
			// An anchor may be edited where it stands.
			var before, after map[string]any
			if bytes.ContainsAny(b, "&*") || yaml.Unmarshal(b, &before) != nil {
				return
			}
			if err := yaml.Unmarshal(got, &after); err != nil {
				t.Fatalf("no YAML comes out of %q: %q: %v", b, got, err)
			}
			delete(before, "servers")
			delete(after, "servers")
			if fmt.Sprint(before) != fmt.Sprint(after) {
				t.Errorf("more changed than servers: %q, %q", b, got)
			}
		}
	})
}

func FuzzHideAddresses(f *testing.F) {
	f.Add([]byte(strings.NewReplacer("%ENC%", "UTF-8", "%UE%", "ü").Replace(wsdl)))
	f.Add([]byte(`<a xmlns="http://schemas.xmlsoap.org/wsdl/soap/"><address location="x"/></a>`))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := metaservice.HideAddresses(b)
		if err != nil {
			return
		}
		dec := xml.NewDecoder(bytes.NewReader(got))
		for {
			token, err := dec.Token()
			if err == io.EOF {
				return
			}
			if err != nil {
				t.Fatalf("no XML comes out of %q: %q: %v", b, got, err)
			}
			e, ok := token.(xml.StartElement)
			if !ok || e.Name != (xml.Name{Space: "http://schemas.xmlsoap.org/wsdl/soap/", Local: "address"}) {
				continue
			}
			for _, a := range e.Attr {
				if a.Name == (xml.Name{Local: "location"}) && a.Value != "http://example.org/xroad-endpoint" {
					t.Fatalf("an address is left in %q: %q", b, got)
				}
			}
		}
	})
}
