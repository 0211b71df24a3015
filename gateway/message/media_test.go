// SPDX-License-Identifier: Apache-2.0

package message_test

import (
	"mime"
	"testing"

	"kontor/gateway/message"
)

// FuzzPlainMedia: the short way reads a content type as the standard library
// does, or leaves it to that.
func FuzzPlainMedia(f *testing.F) {
	for _, s := range []string{
		"text/xml", "text/xml; charset=UTF-8", "text/xml;charset=utf-8", "multipart/mixed; charset=UTF-8; boundary=xtopABC",
		"Text/xml", "text/xml;", "text/xml; charset=", `text/xml; charset="utf-8"`, "text/xml; charset=a; charset=b", "text/xml ; charset=a",
		"text/xml;  charset=a", "text/xml; charset=a ", "text/xml; charset*=a", "a/b; boundary=x{}", "/b", "a", "a/b/c", "a/b; boundary =x", "a/b; Boundary=x",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name, boundary, charset, hasCharset, ok := message.PlainMedia(s)
		if !ok {
			return
		}
		want, params, err := mime.ParseMediaType(s)
		if _, has := params["charset"]; err != nil || name != want || boundary != params["boundary"] || charset != params["charset"] || hasCharset != has {
			t.Errorf("%q is %q %q %q %v, the standard library reads %q %v, %v", s, name, boundary, charset, hasCharset, want, params, err)
		}
	})
}

// TestPlainMedia: what peers and SOAP clients usually send takes the short way.
func TestPlainMedia(t *testing.T) {
	for _, s := range []string{"text/xml", "text/xml; charset=UTF-8", "text/xml;charset=utf-8", "multipart/mixed; charset=UTF-8; boundary=xtopABC"} {
		if _, _, _, _, ok := message.PlainMedia(s); !ok {
			t.Errorf("%q takes the long way", s)
		}
	}
}
