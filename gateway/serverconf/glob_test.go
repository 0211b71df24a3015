// SPDX-License-Identifier: Apache-2.0

package serverconf_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"kontor/gateway/serverconf"
)

func TestGlob(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		pattern, path string
		want          bool
	}{
		{"**", "", true},
		{"**", "/", true},
		{"**", "/a/b", true},
		{"*", "", true},
		{"*", "/", false},
		{"/foo", "/foo", true},
		{"/foo", "/foo/", false},
		{"/foo", "/Foo", false},
		{"/foo", "/foobar", false},
		{"/foo/*", "/foo/", true},
		{"/foo/*", "/foo/a", true},
		{"/foo/*", "/foo/a/b", false},
		{"/foo/*", "/foo", false},
		{"/foo/**", "/foo/a/b", true},
		{"/foo/**", "/foo", false},
		{"/foo***", "/foo/a/b", true},
		{"/*/bar", "/foo/bar", true},
		{"/*/bar", "/foo/x/bar", false},
		{"/**/bar", "/foo/x/bar", true},
		{"/**/bar", "/bar", false},
		{"/*/*", "/a/b", true},
		{"/*/*", "/a/b/c", false},
		{"/a*b*c", "/abc", true},
		{"/a*b*c", "/axbxbxc", true},
		{"/a*b*c", "/axb/c", false},
		{"/a**b*c", "/ax/yb/zbc", true},
		{"/a**b*c", "/ax/yb/zb/c", false},
		{"/a*/b", "/a//b", false},
		{"/aa*a", "/aa", false}, // prefix and suffix must not overlap

		// X-Road's "*" gives nothing back; here it does.
		{"/foo*bar", "/foobazbar", true},
		{"/*b", "/ab", true},
		// X-Road takes "?" for a quantifier; here it is a literal.
		{"/a?", "/a?", true},
		{"/a?", "/", false},
		{"/a?", "/a", false},
		{"/a?", "/ab", false},

		{`/\*`, "/*", true},
		{`/\*`, "/a", false},
		{`/\\`, `/\`, true},
		{`/\*\*/*`, "/**/a", true},
		{"/a.b^c$d+e{f}[g]|(h)", "/a.b^c$d+e{f}[g]|(h)", true},
		{"/a.b", "/axb", false},
		{"/a[bc]", "/ab", false},
		{"/päev*", "/päevad", true},
		{"/a b", "/a b", true},
	} {
		if got, err := serverconf.Match(tt.pattern, tt.path); err != nil || got != tt.want {
			t.Errorf("%s matches %s: %v, %v; want %v", tt.pattern, tt.path, got, err, tt.want)
		}
	}
}

func TestGlobRefuses(t *testing.T) {
	t.Parallel()
	for _, pattern := range []string{`/a\`, `/\a`, `/\?`, strings.Repeat("a", 1025)} {
		if _, err := serverconf.Match(pattern, "/a"); err == nil {
			t.Errorf("pattern %q was accepted", pattern)
		}
	}
}

// What makes a backtracking matcher explode costs the product of the lengths.
func TestGlobIsNotExponential(t *testing.T) {
	t.Parallel()
	pattern := strings.Repeat("*a", 200) + strings.Repeat("**a", 200) + "b"
	path := strings.Repeat("a", 8000)
	start := time.Now()
	if got, err := serverconf.Match(pattern, path); err != nil || got {
		t.Errorf("matches: %v, %v", got, err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("took %s", took)
	}
}

func FuzzGlob(f *testing.F) {
	f.Add("/a*b**c", "/axb/yc")
	f.Add(`/\*\\*`, `/*\a`)
	f.Add("***", "/")
	f.Add("/aa*a", "/aa")
	f.Fuzz(func(t *testing.T, pattern, path string) {
		if len(path) > 1<<10 {
			return
		}
		got, err := serverconf.Match(pattern, path)
		if err != nil {
			return
		}
		want := reference(pattern).MatchString(path)
		if got != want {
			t.Fatalf("%q matches %q: %v, want %v", pattern, path, got, want)
		}
	})
}

// reference translates a pattern that is well formed into a regular expression
// over bytes, each of which becomes two hexadecimal digits, so that text that
// is not UTF-8 takes part.
func reference(pattern string) matcher {
	var b strings.Builder
	b.WriteString(`^(?s:`)
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case c == '*' && i+1 < len(pattern) && pattern[i+1] == '*':
			b.WriteString(`(..)*`)
			for i+1 < len(pattern) && pattern[i+1] == '*' {
				i++
			}
		case c == '*':
			b.WriteString(`([013-9a-f].|2[0-9a-e])*`)
		case c == '\\':
			i++
			b.WriteString(digits(pattern[i : i+1]))
		default:
			b.WriteString(digits(string(pattern[i : i+1])))
		}
	}
	b.WriteString(`)$`)
	return matcher{regexp.MustCompile(b.String())}
}

type matcher struct{ *regexp.Regexp }

func (m matcher) MatchString(s string) bool { return m.Regexp.MatchString(digits(s)) }

func digits(s string) string {
	const hex = "0123456789abcdef"
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		b.WriteByte(hex[s[i]>>4])
		b.WriteByte(hex[s[i]&15])
	}
	return b.String()
}
