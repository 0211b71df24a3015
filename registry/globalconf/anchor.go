// SPDX-License-Identifier: Apache-2.0

package globalconf

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// Anchor tells where the configuration of an instance is found and which keys
// sign it.
type Anchor struct {
	Generated time.Time // zero if absent
	Instance  string
	Sources   []AnchorSource
}

// AnchorSource is one download location.
type AnchorSource struct {
	URL   string
	Certs [][]byte // verification certificates, DER or PEM
}

// maxAnchor bounds an anchor document; a large one has some tens of kilobytes.
const maxAnchor = 1 << 20

// ParseAnchor reads an anchor file.
func ParseAnchor(doc []byte) (*Anchor, error) {
	if len(doc) > maxAnchor {
		return nil, fmt.Errorf("%w: anchor of %d bytes", ErrMalformed, len(doc))
	}
	d := newScanner(string(doc))
	d.root("configurationAnchor")
	a := d.anchor()
	if err := d.finish(); err != nil {
		return nil, fmt.Errorf("configuration anchor: %w", err)
	}
	return &a, nil
}

// anchor reads the content of an anchor, standing alone or in private
// parameters.
func (d *scanner) anchor() Anchor {
	var a Anchor
	if s, ok := d.optional("generatedAt"); ok {
		a.Generated = d.dateTime(s)
	}
	a.Instance = d.required("instanceIdentifier")
	if d.err == nil && collapse(a.Instance) == "" {
		d.fail("instanceIdentifier is blank")
	}
	d.expect("source")
	for d.at("source") {
		d.enter("", "")
		s := AnchorSource{URL: collapse(d.required("downloadURL"))}
		if u, err := url.Parse(s.URL); d.err == nil && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
			d.fail("%q is not an HTTP URL", s.URL)
		}
		d.expect("verificationCert")
		for d.at("verificationCert") {
			s.Certs = append(s.Certs, d.base64(d.required("verificationCert")))
		}
		d.leave()
		a.Sources = append(a.Sources, s)
	}
	return a
}

// Marshal writes an anchor file. X-Road needs the time of generation and at
// least one http location: it ignores https locations and derives them from the
// http ones.
func (a *Anchor) Marshal() ([]byte, error) {
	if err := a.check(); err != nil {
		return nil, err
	}
	w := &xmlWriter{}
	w.document("configurationAnchor")
	w.anchor(a)
	doc, err := w.close("configurationAnchor")
	if err != nil {
		return nil, err
	}
	if _, err := ParseAnchor(doc); err != nil {
		return nil, err
	}
	return doc, nil
}

func (a *Anchor) check() error {
	plain := false
	for _, s := range a.Sources {
		plain = plain || strings.HasPrefix(s.URL, "http:")
	}
	switch {
	case a.Generated.IsZero():
		return fmt.Errorf("%w: an anchor needs its time of generation", ErrMalformed)
	case !plain:
		return fmt.Errorf("%w: an anchor needs an http location", ErrMalformed)
	}
	return nil
}

func (w *xmlWriter) anchor(a *Anchor) {
	w.leaf("generatedAt", a.Generated.UTC().Format(time.RFC3339Nano))
	w.leaf("instanceIdentifier", a.Instance)
	for _, s := range a.Sources {
		w.begin("source", "")
		w.leaf("downloadURL", s.URL)
		for _, c := range s.Certs {
			w.base64("verificationCert", c)
		}
		w.end("source")
	}
}

// Fingerprint returns what people compare: the SHA-224 digest of an anchor
// file's bytes in upper-case hexadecimal, without separators.
func Fingerprint(anchor []byte) string {
	sum := sha256.Sum224(anchor)
	return strings.ToUpper(hex.EncodeToString(sum[:]))
}

// Certificates returns the verification certificates of all sources, each once.
// Certificates that cannot be parsed verify nothing and are left out.
func (a *Anchor) Certificates() []*x509.Certificate {
	var all [][]byte
	for _, s := range a.Sources {
		all = append(all, s.Certs...)
	}
	return parseCertificates(all)
}

func parseCertificates(list [][]byte) []*x509.Certificate {
	var certs []*x509.Certificate
next:
	for _, b := range list {
		c, err := parseCertificate(b)
		if err != nil {
			continue
		}
		for _, have := range certs {
			if bytes.Equal(have.Raw, c.Raw) {
				continue next
			}
		}
		certs = append(certs, c)
	}
	return certs
}

// parseCertificate reads DER, or PEM where a central server stored the uploaded
// file as it was.
func parseCertificate(b []byte) (*x509.Certificate, error) {
	if block, rest := pem.Decode(b); block != nil && block.Type == "CERTIFICATE" && len(bytes.TrimSpace(rest)) == 0 {
		b = block.Bytes
	}
	return x509.ParseCertificate(b)
}
