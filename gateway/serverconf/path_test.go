// SPDX-License-Identifier: Apache-2.0

package serverconf_test

import (
	"errors"
	"net/url"
	"path"
	"strings"
	"testing"
	"unicode/utf8"

	"kontor/gateway/serverconf"
)

func TestNormalisePath(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ raw, want string }{
		{"", ""},
		{"/", "/"},
		{"/a", "/a"},
		{"/a/", "/a/"},
		{"/a/b", "/a/b"},
		{"/a%20b", "/a b"},
		{"/%61", "/a"},
		{"/a+b", "/a+b"},
		{"/a%2Bb", "/a+b"},
		{"/a%2Db", "/a-b"},
		{"/a%3Fb", "/a?b"},
		{"/a%23b", "/a#b"},
		{"/%7Bid%7D", "/{id}"},
		{"/t%C3%A4na", "/täna"},
		{"/%EF%BF%BD", "/\uFFFD"},
		{"/100%25", "/100%"},
		{"/100%25/", "/100%/"},
		{"/100%25zz", "/100%zz"},
		{"/.well-known/x", "/.well-known/x"},
		{"/...", "/..."},
		{"/a..b/.c", "/a..b/.c"},
		{"/a;v=1/b", "/a;v=1/b"},
		{"/a:b@c", "/a:b@c"},
	} {
		if got, err := serverconf.NormalisePath(tt.raw); err != nil || got != tt.want {
			t.Errorf("NormalisePath(%q) = %q, %v; want %q", tt.raw, got, err, tt.want)
		}
	}
}

func TestNormalisePathRefuses(t *testing.T) {
	t.Parallel()
	for raw, reason := range map[string]string{
		"a":              "leading slash",
		"//":             "empty segment",
		"//a":            "empty segment",
		"/a//b":          "empty segment",
		"/a/;x":          "empty segment",
		"/a/;/b":         "empty segment",
		"/a/%3Bx":        "empty segment",
		"/.":             "dot segment",
		"/./a":           "dot segment",
		"/..":            "dot segment",
		"/a/../b":        "dot segment",
		"/a/%2e%2E/b":    "dot segment",
		"/a/.%2e":        "dot segment",
		"/a/..;/b":       "dot segment",
		"/a/..;x=1/b":    "dot segment",
		"/a/.%3B/b":      "dot segment",
		"/a%2Fb":         "escaped slash",
		"/a%2fb":         "escaped slash",
		"/a%5Cb":         "backslash",
		"/a%5c..":        "backslash",
		`/a\b`:           "must be escaped",
		"/a b":           "must be escaped",
		"/a?b":           "must be escaped",
		"/a#b":           "must be escaped",
		"/a{b}":          "must be escaped",
		"/tän":           "must be escaped",
		"/a\x00":         "must be escaped",
		"/a\r\nb":        "must be escaped",
		"/a%00":          "control character",
		"/a%0d%0a":       "control character",
		"/a%7f":          "control character",
		"/a%C2%85":       "control character",
		"/a%C0%AF":       "invalid UTF-8",
		"/a%FF":          "invalid UTF-8",
		"/a%ED%A0%80":    "invalid UTF-8",
		"/a%":            "bad escape",
		"/a%2":           "bad escape",
		"/a%zz":          "bad escape",
		"/a%252e":        "double escape",
		"/a%252Fb":       "double escape",
		"/a%25%32%65":    "double escape",
		"/%252e%252e/b":  "double escape",
		"/a%25252e":      "double escape",
		"/a/%25%35%63/b": "double escape",
	} {
		got, err := serverconf.NormalisePath(raw)
		var pathErr *serverconf.PathError
		if !errors.Is(err, serverconf.ErrPath) || !errors.As(err, &pathErr) || !strings.Contains(err.Error(), reason) {
			t.Errorf("NormalisePath(%q) = %q, %v; want: %s", raw, got, err, reason)
		}
	}
}

// Whatever passes means the same to a server that cleans paths, that decodes
// twice, or that cuts path parameters off.
func FuzzNormalisePath(f *testing.F) {
	for _, s := range []string{"", "/", "/a/b", "/a%20b", "/a//b", "/..;/a", "/%2e%2e/a", "/a%252e", "/a%2Fb", "/%C3%A4", "/a\\b", "/%25"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		got, err := serverconf.NormalisePath(raw)
		if err != nil {
			if !errors.Is(err, serverconf.ErrPath) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		if raw == "" {
			return
		}
		if once, err := url.PathUnescape(raw); err != nil || once != got {
			t.Fatalf("%q: %q, but decoded %q, %v", raw, got, once, err)
		}
		if twice, err := url.PathUnescape(got); err == nil && twice != got {
			t.Fatalf("%q: decoding twice gives %q", raw, twice)
		}
		if !utf8.ValidString(got) || strings.ContainsAny(got, "\\\x00\r\n") {
			t.Fatalf("%q: %q", raw, got)
		}
		if strings.Count(got, "/") != strings.Count(raw, "/") {
			t.Fatalf("%q: another number of segments: %q", raw, got)
		}
		cut := strings.Split(got, "/")
		for i := range cut {
			cut[i], _, _ = strings.Cut(cut[i], ";")
		}
		for _, p := range []string{got, strings.Join(cut, "/")} {
			if clean := path.Clean(p); clean != p && clean+"/" != p {
				t.Fatalf("%q: %q is cleaned to %q", raw, p, clean)
			}
		}
		if u, err := url.Parse("http://service" + raw); err != nil || u.Path != got || u.EscapedPath() != raw {
			t.Fatalf("%q: forwarded as %v, %v", raw, u, err)
		}
	})
}
