// SPDX-License-Identifier: Apache-2.0

// Package published_test reads what registries and mirrors publish with a reader
// of its own, written from X-Road's documents (Protocol for Downloading
// Configuration, and the schemas of the configuration) with the standard
// library. It shares no line with ours, so it notices where writer and reader
// are wrong together.
package published_test

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/textproto"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	sha512URI = "http://www.w3.org/2001/04/xmlenc#sha512"
	rsaURI    = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha512"
	ecdsaURI  = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha512"
)

// directory is what a signed directory says.
type directory struct {
	expires time.Time
	version int
	parts   []listed
	signed  []byte
	uri     string
	value   []byte
	hash    []byte // SHA-512 of the verification certificate
}

type listed struct {
	identifier, instance, location string
	hash                           []byte
}

// bareQuotes turns the single quotes of central servers into what MIME knows.
var bareQuotes = regexp.MustCompile(`='([^'"]*)'`)

func mediaType(value string) (string, map[string]string, error) {
	return mime.ParseMediaType(bareQuotes.ReplaceAllString(value, `="$1"`))
}

// readDirectory reads the body of an answer, which begins with a MIME header.
func readDirectory(doc []byte) (*directory, error) {
	r := bufio.NewReader(bytes.NewReader(doc))
	head, err := textproto.NewReader(r).ReadMIMEHeader()
	if err != nil {
		return nil, fmt.Errorf("outer header: %w", err)
	}
	kind, params, err := mediaType(head.Get("Content-Type"))
	if err != nil || kind != "multipart/related" {
		return nil, fmt.Errorf("outer type %q: %w", head.Get("Content-Type"), err)
	}
	outer := multipart.NewReader(r, params["boundary"])
	first, err := outer.NextRawPart()
	if err != nil {
		return nil, err
	}
	kind, params, err = mediaType(first.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/mixed" {
		return nil, fmt.Errorf("inner type %q: %w", first.Header.Get("Content-Type"), err)
	}
	d := &directory{}
	if d.signed, err = io.ReadAll(first); err != nil {
		return nil, err
	}
	if err := d.readSignature(outer); err != nil {
		return nil, fmt.Errorf("signature: %w", err)
	}
	return d, d.readParts(multipart.NewReader(bytes.NewReader(d.signed), params["boundary"]))
}

func (d *directory) readSignature(outer *multipart.Reader) error {
	p, err := outer.NextRawPart()
	if err != nil {
		return err
	}
	if err := binary(p.Header); err != nil {
		return err
	}
	hash, params, err := parameter(p.Header.Get("Verification-Certificate-Hash"))
	if err != nil || params["hash-algorithm-id"] != sha512URI {
		return fmt.Errorf("certificate hash %q: %w", p.Header.Get("Verification-Certificate-Hash"), err)
	}
	if d.hash, err = base64.StdEncoding.DecodeString(hash); err != nil {
		return err
	}
	d.uri = p.Header.Get("Signature-Algorithm-Id")
	if d.value, err = content(p); err != nil {
		return err
	}
	if _, err := outer.NextRawPart(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("something follows the signature: %v", err)
	}
	return nil
}

func (d *directory) readParts(inner *multipart.Reader) error {
	first, err := inner.NextRawPart()
	if err != nil {
		return err
	}
	if d.expires, err = time.Parse(time.RFC3339, first.Header.Get("Expire-Date")); err != nil {
		return err
	}
	if d.version, err = strconv.Atoi(first.Header.Get("Version")); err != nil {
		return err
	}
	if b, err := io.ReadAll(first); err != nil || len(b) > 0 {
		return fmt.Errorf("the first part has a body: %q, %v", b, err)
	}
	for {
		p, err := inner.NextRawPart()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := binary(p.Header); err != nil {
			return err
		}
		l := listed{location: p.Header.Get("Content-Location")}
		var params map[string]string
		if l.identifier, params, err = parameter(p.Header.Get("Content-Identifier")); err != nil {
			return err
		}
		l.instance = params["instance"]
		if uri := p.Header.Get("Hash-Algorithm-Id"); uri != sha512URI {
			return fmt.Errorf("hash algorithm %q", uri)
		}
		if l.hash, err = content(p); err != nil {
			return err
		}
		d.parts = append(d.parts, l)
	}
}

// binary checks the two headers that clients compare exactly.
func binary(h textproto.MIMEHeader) error {
	if h.Get("Content-Type") != "application/octet-stream" || h.Get("Content-Transfer-Encoding") != "base64" {
		return fmt.Errorf("type %q, encoding %q", h.Get("Content-Type"), h.Get("Content-Transfer-Encoding"))
	}
	return nil
}

// parameter reads VALUE; name=x, where x may be quoted or not.
func parameter(s string) (string, map[string]string, error) {
	value, rest, _ := strings.Cut(s, ";")
	params := map[string]string{}
	for rest != "" {
		name, v, ok := strings.Cut(strings.TrimSpace(rest), "=")
		if !ok {
			return "", nil, fmt.Errorf("parameters %q", s)
		}
		rest = ""
		params[name] = strings.Trim(v, `"'`)
	}
	return value, params, nil
}

// content decodes a part's body, which is one line of base64.
func content(p *multipart.Part) ([]byte, error) {
	b, err := io.ReadAll(p)
	if err != nil {
		return nil, err
	}
	return base64.StdEncoding.Strict().DecodeString(string(b))
}

// verify checks the signature with one of the certificates.
func (d *directory) verify(certs [][]byte) error {
	for _, der := range certs {
		if sum := sha512.Sum512(der); !bytes.Equal(sum[:], d.hash) {
			continue
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		digest := sha512.Sum512(d.signed)
		switch key := c.PublicKey.(type) {
		case *rsa.PublicKey:
			if d.uri != rsaURI {
				return fmt.Errorf("algorithm %q of an RSA key", d.uri)
			}
			return rsa.VerifyPKCS1v15(key, crypto.SHA512, digest[:], d.value)
		case *ecdsa.PublicKey:
			if d.uri != ecdsaURI || !ecdsa.VerifyASN1(key, digest[:], d.value) {
				return fmt.Errorf("algorithm %q: the signature is wrong", d.uri)
			}
			return nil
		}
	}
	return errors.New("no certificate has the hash in the signature")
}

// resolve returns the address of a part.
func (l *listed) resolve(base string) (string, error) {
	b, err := url.Parse(base)
	if err != nil {
		return "", err
	}
	ref, err := url.Parse(l.location)
	if err != nil {
		return "", err
	}
	return b.ResolveReference(ref).String(), nil
}
