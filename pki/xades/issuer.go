// SPDX-License-Identifier: Apache-2.0

package xades

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// DER string types.
const (
	tagUTF8      = 12
	tagPrintable = 19
	tagT61       = 20
	tagIA5       = 22
	tagGeneral   = 27
	tagBMP       = 30
)

// keywords are the attribute types that RFC 2253 names, hence Java too; all
// others appear in dotted form. Java gives no keyword to e-mail addresses or
// serial numbers.
var keywords = map[string]string{
	"2.5.4.3":                    "CN",
	"2.5.4.6":                    "C",
	"2.5.4.7":                    "L",
	"2.5.4.8":                    "ST",
	"2.5.4.9":                    "STREET",
	"2.5.4.10":                   "O",
	"2.5.4.11":                   "OU",
	"0.9.2342.19200300.100.1.25": "DC",
	"0.9.2342.19200300.100.1.1":  "UID",
}

// distinguishedName returns the DER name in the string form of RFC 2253, as
// Java's X500Principal.getName() prints it: last RDN first, no spaces, every
// special character escaped by a backslash wherever it stands.
func distinguishedName(der []byte) (string, error) {
	malformed := errors.New("distinguished name is not DER")
	in := cryptobyte.String(der)
	var rdns cryptobyte.String
	if !in.ReadASN1(&rdns, cbasn1.SEQUENCE) || !in.Empty() {
		return "", malformed
	}
	var parts []string
	for !rdns.Empty() {
		var rdn cryptobyte.String
		if !rdns.ReadASN1(&rdn, cbasn1.SET) || rdn.Empty() {
			return "", malformed
		}
		var b strings.Builder
		for !rdn.Empty() {
			var ava, value cryptobyte.String
			var tag cbasn1.Tag
			if !rdn.ReadASN1(&ava, cbasn1.SEQUENCE) {
				return "", malformed
			}
			oid, ok := readOID(&ava)
			element := ava
			if !ok || !ava.ReadAnyASN1(&value, &tag) || !ava.Empty() {
				return "", malformed
			}
			if b.Len() > 0 {
				b.WriteByte('+')
			}
			writeAttribute(&b, oid, tag, value, element)
		}
		parts = append(parts, b.String())
	}
	slices.Reverse(parts)
	return strings.Join(parts, ","), nil
}

// readOID reads an object identifier in dotted form.
func readOID(in *cryptobyte.String) (string, bool) {
	var raw cryptobyte.String
	if !in.ReadASN1(&raw, cbasn1.OBJECT_IDENTIFIER) || len(raw) == 0 || len(raw) > 64 || raw[len(raw)-1]&0x80 != 0 {
		return "", false
	}
	var b strings.Builder
	var v uint64
	for _, c := range raw {
		if v >= 1<<56 {
			return "", false
		}
		v = v<<7 | uint64(c&0x7f)
		switch {
		case c&0x80 != 0:
			continue
		case b.Len() == 0: // the first two numbers, together
			top := min(v/40, 2)
			fmt.Fprintf(&b, "%d.%d", top, v-40*top)
		default:
			fmt.Fprintf(&b, ".%d", v)
		}
		v = 0
	}
	return b.String(), true
}

// writeAttribute writes type and value; element is the value's whole DER, shown
// in hex where the type has no keyword or the value is no text.
func writeAttribute(b *strings.Builder, oid string, tag cbasn1.Tag, value, element []byte) {
	text, ok := decodeString(tag, value)
	keyword := keywords[oid]
	if keyword == "" || !ok {
		if keyword == "" {
			keyword = oid
		}
		b.WriteString(keyword + "=#" + hex.EncodeToString(element))
		return
	}
	b.WriteString(keyword + "=")
	body := strings.Trim(text, " ")
	start := strings.Index(text, body)
	if body == "" {
		start = len(text)
	}
	for i, r := range text {
		switch {
		case r < 0x20 || r == 0x7f:
			// Java prints most of these as they are, but XML cannot carry them.
			fmt.Fprintf(b, `\%02X`, r)
			continue
		case strings.ContainsRune(`,=+<>#;"\`, r), r == ' ' && (i < start || i >= start+len(body)):
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
}

// decodeString decodes a DER string to text that XML can carry, if it is one.
func decodeString(tag cbasn1.Tag, value []byte) (string, bool) {
	text := string(value)
	switch tag {
	case tagUTF8, tagPrintable, tagT61, tagIA5, tagGeneral:
	case tagBMP:
		if len(value)%2 != 0 {
			return "", false
		}
		units := make([]uint16, len(value)/2)
		for i := range units {
			units[i] = binary.BigEndian.Uint16(value[2*i:])
		}
		text = string(utf16.Decode(units))
	default:
		return "", false
	}
	if !utf8.ValidString(text) || strings.ContainsAny(text, "\uFFFE\uFFFF") {
		return "", false
	}
	return text, true
}
