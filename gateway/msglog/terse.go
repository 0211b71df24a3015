// SPDX-License-Identifier: Apache-2.0

package msglog

import (
	"bytes"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"sync"
)

// The documents of hash chains, of this program as of X-Road's own servers,
// consist of a few lines that repeat and of digests. Terse is their form in the
// log: one byte for a known line, a digest as its bytes. Any other document
// comes through unchanged, too.

// The codes of terse. From codeLine on they are those of terseLines.
const (
	codeText   = iota // varint n and n bytes as they are
	codeDigest        // line <DigestValue> with a SHA-512 in base64, by its bytes, after 12 blanks
	codeResult        // the same after 4 blanks
	codeLine
)

// terseLines are stored by their index: new ones go to the end. STEP0 stands
// for STEP0 to STEP9.
var terseLines = []string{
	`<?xml version="1.0" encoding="UTF-8" standalone="yes"?>`,
	`<ns2:HashChainResult URI="/sig-hashchain.xml#STEP0" xmlns="http://www.w3.org/2000/09/xmldsig#" xmlns:ns2="http://cyber.ee/hashchain">`,
	`</ns2:HashChainResult>`,
	`<ns2:HashChain xmlns="http://www.w3.org/2000/09/xmldsig#" xmlns:ns2="http://cyber.ee/hashchain">`,
	`</ns2:HashChain>`,
	`    <DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha512"/>`,
	`    <ns2:DefaultDigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha512"/>`,
	`    </ns2:HashStep>`,
	`        <ns2:HashValue>`,
	`        </ns2:HashValue>`,
	`        <ns2:DataRef URI="/message.xml">`,
	`        <ns2:DataRef URI="/attachment1">`,
	`        </ns2:DataRef>`,
	`    <ns2:HashStep id="STEP0">`,
	`        <ns2:StepRef URI="#STEP0"/>`,
}

const (
	digestStart = "            <DigestValue>"
	resultStart = "    <DigestValue>"
	digestEnd   = "</DigestValue>"
)

// terseTable holds the lines in both directions, without their line ends.
type terseTable struct {
	codes map[string]byte
	lines []string // by code, from codeLine on
}

var terse = sync.OnceValue(func() *terseTable {
	t := &terseTable{codes: map[string]byte{}}
	for _, line := range terseLines {
		versions := 1
		step := bytes.Index([]byte(line), []byte("STEP0"))
		if step >= 0 && line[0] == ' ' {
			versions = 10
		}
		for n := range versions {
			l := []byte(line)
			if versions > 1 {
				l[step+len("STEP")] = byte('0' + n)
			}
			t.codes[string(l)] = byte(codeLine + len(t.lines))
			t.lines = append(t.lines, string(l))
		}
	}
	return t
})

var strictBase64 = base64.StdEncoding.Strict()

// appendTerse appends the terse form of doc.
func appendTerse(b, doc []byte) []byte {
	table := terse()
	text := 0 // where what has no code begins
	for at := 0; at < len(doc); {
		n := bytes.IndexByte(doc[at:], '\n')
		if n < 0 {
			break
		}
		line := doc[at : at+n]
		var digest [sha512.Size]byte
		code, known := digestLine(line, &digest)
		if !known {
			code, known = table.codes[string(line)]
		}
		if known {
			b = appendText(b, doc[text:at])
			b = append(b, code)
			if code < codeLine {
				b = append(b, digest[:]...)
			}
			text = at + n + 1
		}
		at += n + 1
	}
	return appendText(b, doc[text:])
}

func appendText(b, text []byte) []byte {
	if len(text) == 0 {
		return b
	}
	return appendBytes(append(b, codeText), text)
}

// digestLine reads a line that is a digest and nothing else.
func digestLine(line []byte, digest *[sha512.Size]byte) (code byte, ok bool) {
	value, ok := bytes.CutSuffix(line, []byte(digestEnd))
	if !ok {
		return 0, false
	}
	if v, ok := bytes.CutPrefix(value, []byte(digestStart)); ok {
		code, value = codeDigest, v
	} else if v, ok := bytes.CutPrefix(value, []byte(resultStart)); ok {
		code, value = codeResult, v
	}
	const length = (sha512.Size + 2) / 3 * 4
	if code == 0 || len(value) != length {
		return 0, false
	}
	var decoded [length / 4 * 3]byte
	if n, err := strictBase64.Decode(decoded[:], value); err != nil || n != sha512.Size {
		return 0, false
	}
	copy(digest[:], decoded[:])
	return code, true
}

// fromTerse is the inverse of appendTerse and takes nothing that it would not
// have written.
func fromTerse(b []byte) ([]byte, error) {
	if len(b) == 0 {
		return nil, nil
	}
	table := terse()
	var doc []byte
	r := reader{b: b}
	for len(r.b) > 0 {
		switch code := r.byte(); {
		case code == codeText:
			doc = append(doc, r.bytes()...)
		case code == codeDigest, code == codeResult:
			start := digestStart
			if code == codeResult {
				start = resultStart
			}
			doc = append(doc, start...)
			doc = strictBase64.AppendEncode(doc, r.take(sha512.Size))
			doc = append(append(doc, digestEnd...), '\n')
		case int(code) < codeLine+len(table.lines):
			doc = append(append(doc, table.lines[code-codeLine]...), '\n')
		default:
			return nil, fmt.Errorf("%w: code %d", errEncoding, code)
		}
	}
	if r.err != nil || !bytes.Equal(appendTerse(nil, doc), b) {
		return nil, errEncoding
	}
	return doc, nil
}
