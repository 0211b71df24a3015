// SPDX-License-Identifier: Apache-2.0

package globalconf

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"
)

const (
	maxDirectory = 1 << 20
	maxParts     = 64
	maxLine      = 8 << 10

	contentType = "application/octet-stream"
)

// Directory lists the parts of a configuration.
type Directory struct {
	Expires time.Time
	Version int
	Parts   []Part
	// SignHash is the digest algorithm of the signature, SHA-512 if zero. The
	// hash of the verification certificate always uses SHA-512.
	SignHash crypto.Hash
	// Proxy has Sign write the form of a configuration proxy, which differs from
	// a central server's in details that readers must not mind.
	Proxy bool
}

// Part is one file of a configuration.
type Part struct {
	Identifier string // ContentSharedParams or another content identifier
	Instance   string // "" if the directory does not say
	Location   string // absolute path, or relative to the directory
	FileName   string // "" where the location tells it
	HashURI    string // digest algorithm
	Hash       []byte
}

// NewPart lists content as a part, with its SHA-512 digest.
func NewPart(identifier, instance, location string, content []byte) Part {
	return Part{Identifier: identifier, Instance: instance, Location: location,
		HashURI: digestURIs[0].uri, Hash: digest(crypto.SHA512, content)}
}

// Matches returns ErrHash unless content is what p lists.
func (p *Part) Matches(content []byte) error {
	h, err := digestByURI(p.HashURI)
	if err != nil {
		return err
	}
	if !bytes.Equal(digest(h, content), p.Hash) {
		return fmt.Errorf("%w: %s", ErrHash, p.Location)
	}
	return nil
}

// file returns the name of the part's file on disk.
func (p *Part) file() (string, error) {
	switch p.Identifier {
	case ContentPrivateParams:
		return FilePrivateParams, nil
	case ContentSharedParams:
		return FileSharedParams, nil
	}
	name := p.FileName
	if name == "" {
		u, err := url.Parse(p.Location)
		if err != nil {
			return "", fmt.Errorf("%w: location %q", ErrMalformed, p.Location)
		}
		name = u.Path
	}
	name = path.Base(name)
	if !isFileName(name) || name == FilePrivateParams || name == FileSharedParams ||
		name == directoryFile || strings.HasSuffix(name, metadataSuffix) {
		return "", fmt.Errorf("%w: file name %q", ErrMalformed, name)
	}
	return name, nil
}

func isFileName(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; !isName(c) || i == 0 && (c == '.' || c == '-') {
			return false
		}
	}
	return s != "" && len(s) <= 128
}

// Generation returns the instant that the locations of the parts tell (see the
// package comment); ok is false if they do not.
func (d *Directory) Generation() (t time.Time, ok bool) {
	for i := range d.Parts {
		if d.Parts[i].Identifier == ContentSharedParams {
			return generation(d.Parts[i].Location)
		}
	}
	return time.Time{}, false
}

// generationDigits is the length of yyyyMMddHHmmss and nine digits of
// nanoseconds, as central servers name their folders.
const generationDigits = 14 + 9

func generation(location string) (time.Time, bool) {
	for segment := range strings.SplitSeq(location, "/") {
		if strings.Trim(segment, "0123456789") != "" {
			continue
		}
		switch len(segment) {
		case generationDigits:
			if t, err := time.Parse("20060102150405", segment[:14]); err == nil {
				nanos, _ := strconv.Atoi(segment[14:])
				return t.Add(time.Duration(nanos)), true
			}
		case 13: // milliseconds, as configuration proxies do
			millis, _ := strconv.ParseInt(segment, 10, 64)
			return time.UnixMilli(millis).UTC(), true
		}
	}
	return time.Time{}, false
}

// Folder returns the name that a central server gives to the folder of the
// parts generated at t: it sorts and compares by time.
func Folder(t time.Time) string {
	t = t.UTC()
	return t.Format("20060102150405") + fmt.Sprintf("%09d", t.Nanosecond())
}

// Sign writes the signed directory. cert is the verification certificate of key.
func (d *Directory) Sign(key crypto.Signer, cert *x509.Certificate) ([]byte, error) {
	hash := d.SignHash
	if hash == 0 {
		hash = crypto.SHA512
	}
	if d.Expires.IsZero() {
		return nil, fmt.Errorf("%w: a directory needs an expiry", ErrMalformed)
	}
	if err := checkVersion(d.Version); err != nil {
		return nil, err
	}
	inner, outer := boundary(), boundary()
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	line("--%s", inner)
	layout, quote, end := "2006-01-02T15:04:05Z", `"`, "\r\n"
	if d.Proxy {
		layout, quote, end = "2006-01-02T15:04:05.000Z", "", "\n"
	}
	line("Expire-date: %s", d.Expires.UTC().Format(layout))
	line("Version: %d", d.Version)
	line("")
	if d.Proxy {
		line("") // the end of an empty body
	}
	for i := range d.Parts {
		p := &d.Parts[i]
		if err := p.writable(); err != nil {
			return nil, err
		}
		line("--%s", inner)
		line("Content-type: %s", contentType)
		line("Content-transfer-encoding: base64")
		line("Content-identifier: %s%s", p.Identifier, p.instanceParameter(d.Proxy))
		line("Content-location: %s", p.Location)
		if p.FileName != "" {
			line("Content-file-name: %s", p.FileName)
		}
		line("Hash-algorithm-id: %s", p.HashURI)
		line("")
		line("%s", base64.StdEncoding.EncodeToString(p.Hash))
	}
	line("--%s--", inner)
	signed := b.Bytes()
	sig, uri, err := sign(key, hash, signed)
	if err != nil {
		return nil, fmt.Errorf("sign configuration directory: %w", err)
	}

	b = bytes.Buffer{}
	b.WriteString("Content-Type: multipart/related; charset=UTF-8; boundary=" + outer + end + end)
	line("--%s", outer)
	line("Content-Type: multipart/mixed; charset=UTF-8; boundary=%s", inner)
	line("")
	b.Write(signed)
	line("")
	line("--%s", outer)
	line("Content-Type: %s", contentType)
	line("Content-Transfer-Encoding: base64")
	line("Signature-Algorithm-Id: %s", uri)
	line("Verification-certificate-hash: %s; hash-algorithm-id=%s",
		base64.StdEncoding.EncodeToString(digest(crypto.SHA512, cert.Raw)), quote+digestURIs[0].uri+quote)
	line("")
	line("%s", base64.StdEncoding.EncodeToString(sig))
	line("--%s--", outer)
	// What our own reader refuses is not published; this also proves that key
	// and certificate belong together.
	if _, err := ParseDirectory(b.Bytes(), []*x509.Certificate{cert}); err != nil {
		return nil, fmt.Errorf("sign configuration directory: %w", err)
	}
	return b.Bytes(), nil
}

func (p *Part) instanceParameter(proxy bool) string {
	if p.Instance == "" {
		return ""
	}
	quote, other := "'", `"`
	if proxy {
		quote, other = other, quote
	}
	if strings.Contains(p.Instance, quote) {
		quote = other
	}
	return "; instance=" + quote + p.Instance + quote
}

// writable refuses values that would not survive the header grammar.
func (p *Part) writable() error {
	for _, v := range []string{p.Identifier, p.Location, p.FileName, p.Instance} {
		if strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r == 0x7F }) || strings.TrimSpace(v) != v {
			return fmt.Errorf("%w: %q in a directory", ErrMalformed, v)
		}
	}
	if p.Identifier == "" || p.Location == "" || strings.ContainsAny(p.Identifier, ";") ||
		strings.Contains(p.Instance, "'") && strings.Contains(p.Instance, `"`) {
		return fmt.Errorf("%w: part %q of %q at %q", ErrMalformed, p.Identifier, p.Instance, p.Location)
	}
	return nil
}

// boundary returns twenty random letters and digits.
func boundary() string { return rand.Text()[:20] }

// ParseDirectory verifies a signed directory with one of certs and reads it.
// The expiry is not judged, nor are the parts.
//
// Line ends may be CR LF or LF. Everything outside of the signed bytes must have
// exactly the form that central servers and configuration proxies write; only
// the case of header names, media types and parameter names is free there.
// Unknown headers are tolerated inside of the signed bytes alone.
func ParseDirectory(doc []byte, certs []*x509.Certificate) (*Directory, error) {
	if len(doc) > maxDirectory {
		return nil, fmt.Errorf("%w: directory of %d bytes", ErrMalformed, len(doc))
	}
	signed, inner, sig, err := openDirectory(string(doc))
	if err != nil {
		return nil, fmt.Errorf("configuration directory: %w", err)
	}
	if err := sig.verify([]byte(signed), certs); err != nil {
		return nil, fmt.Errorf("configuration directory: %w", err)
	}
	d, err := parseInner(signed, inner)
	if err != nil {
		return nil, fmt.Errorf("configuration directory: %w", err)
	}
	return d, nil
}

// signature is the last part of a signed directory.
type signature struct {
	uri      string
	value    []byte
	certHash []byte
	hash     crypto.Hash // of certHash
}

func (s *signature) verify(signed []byte, certs []*x509.Certificate) error {
	for _, c := range certs {
		if bytes.Equal(digest(s.hash, c.Raw), s.certHash) {
			return verifySignature(c, s.uri, signed, s.value)
		}
	}
	return fmt.Errorf("%w: its verification certificate is not among the %d trusted ones", ErrSignature, len(certs))
}

// openDirectory takes the outer envelope apart.
func openDirectory(doc string) (signed, innerBoundary string, sig *signature, err error) {
	r := &mimeReader{rest: doc}
	outer, err := r.multipart("multipart/related")
	if err != nil {
		return "", "", nil, err
	}
	if !r.delimiter(outer) {
		return "", "", nil, r.bad("no outer boundary at the start")
	}
	if innerBoundary, err = r.multipart("multipart/mixed"); err != nil {
		return "", "", nil, err
	}
	if signed, err = r.body(outer); err != nil {
		return "", "", nil, err
	}
	if !r.delimiter(outer) {
		return "", "", nil, r.bad("the directory has no signature")
	}
	if sig, err = r.signature(outer); err != nil {
		return "", "", nil, err
	}
	if tail := r.rest; tail != "--"+outer+"--" && tail != "--"+outer+"--\n" && tail != "--"+outer+"--\r\n" {
		return "", "", nil, r.bad("no outer boundary at the end")
	}
	return signed, innerBoundary, sig, nil
}

func (r *mimeReader) signature(outer string) (*signature, error) {
	h, err := r.headers()
	if err != nil {
		return nil, err
	}
	if len(h) != 4 || h["content-type"] != contentType || h["content-transfer-encoding"] != "base64" {
		return nil, r.bad("headers of the signature")
	}
	value, params, err := parameters(h["verification-certificate-hash"])
	if err != nil || len(params) != 1 {
		return nil, r.bad("verification certificate hash")
	}
	s := &signature{uri: h["signature-algorithm-id"]}
	if _, _, err = signatureByURI(s.uri); err != nil {
		return nil, err
	}
	if s.hash, err = digestByURI(params["hash-algorithm-id"]); err != nil {
		return nil, err
	}
	if s.certHash, err = decodeLine(value); err != nil {
		return nil, err
	}
	body, err := r.body(outer)
	if err != nil {
		return nil, err
	}
	s.value, err = decodeLine(body)
	return s, err
}

// parseInner reads the signed bytes.
func parseInner(signed, boundary string) (*Directory, error) {
	r := &mimeReader{rest: signed}
	if !r.delimiter(boundary) {
		return nil, r.bad("no inner boundary at the start")
	}
	h, err := r.headers()
	if err != nil {
		return nil, err
	}
	d := &Directory{Version: MinVersion}
	if d.Expires, err = parseExpiry(h["expire-date"]); err != nil {
		return nil, err
	}
	if v, ok := h["version"]; ok {
		n, err := strconv.ParseUint(v, 10, 16)
		if err != nil {
			return nil, r.bad("version " + strconv.Quote(v))
		}
		d.Version = int(n)
	}
	if err := checkVersion(d.Version); err != nil {
		return nil, err
	}
	// A central server leaves the body out, a configuration proxy writes an
	// empty one.
	if !strings.HasPrefix(r.rest, "--"+boundary) {
		if body, err := r.body(boundary); err != nil || body != "" {
			return nil, r.bad("first part of the directory")
		}
	}
	seen := map[[2]string]bool{}
	for r.delimiter(boundary) {
		if len(d.Parts) == maxParts {
			return nil, r.bad("too many parts")
		}
		p, err := r.part(boundary)
		if err != nil {
			return nil, err
		}
		key := [2]string{p.Identifier, p.Instance}
		if seen[key] {
			return nil, r.bad("part " + strconv.Quote(p.Identifier) + " occurs twice")
		}
		seen[key] = true
		d.Parts = append(d.Parts, p)
	}
	if end := "--" + boundary + "--"; strings.TrimRight(r.rest, "\r\n") != end || len(r.rest) > len(end)+2 {
		return nil, r.bad("no inner boundary at the end")
	}
	return d, nil
}

func (r *mimeReader) part(boundary string) (p Part, err error) {
	h, err := r.headers()
	if err != nil {
		return p, err
	}
	if h["content-type"] != contentType || h["content-transfer-encoding"] != "base64" {
		return p, r.bad("content type or encoding of a part")
	}
	var params map[string]string
	if p.Identifier, params, err = parameters(h["content-identifier"]); err != nil || p.Identifier == "" {
		return p, r.bad("content identifier")
	}
	p.Instance = params["instance"]
	if p.Instance == "" && (p.Identifier == ContentSharedParams || p.Identifier == ContentPrivateParams) {
		return p, r.bad("content identifier without an instance")
	}
	p.Location, p.FileName, p.HashURI = h["content-location"], h["content-file-name"], h["hash-algorithm-id"]
	if p.Location == "" {
		return p, r.bad("a part without a location")
	}
	if _, err := digestByURI(p.HashURI); err != nil {
		return p, err
	}
	body, err := r.body(boundary)
	if err != nil {
		return p, err
	}
	p.Hash, err = decodeLine(body)
	return p, err
}

func parseExpiry(s string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999Z0700"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%w: expiry %q", ErrMalformed, s)
}

// decodeLine reads one line of base64; encoding/base64 would skip line ends.
func decodeLine(s string) ([]byte, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(b) == 0 || strings.ContainsAny(s, "\r\n") {
		return nil, fmt.Errorf("%w: bad base64", ErrMalformed)
	}
	return b, nil
}

// mimeReader reads the strict subset of MIME described at ParseDirectory.
// mime/multipart is laxer: it skips preambles, takes white space after a
// boundary, and more.
type mimeReader struct{ rest string }

func (r *mimeReader) bad(what string) error {
	return fmt.Errorf("%w: %s", ErrMalformed, what)
}

// line takes one line; its end may be CR LF or LF.
func (r *mimeReader) line() (string, bool) {
	line, rest, ok := strings.Cut(r.rest, "\n")
	if !ok || len(line) > maxLine {
		return "", false
	}
	r.rest = rest
	return strings.TrimSuffix(line, "\r"), true
}

// delimiter takes the line --boundary.
func (r *mimeReader) delimiter(boundary string) bool {
	after, ok := strings.CutPrefix(r.rest, "--"+boundary)
	if !ok {
		return false
	}
	if after, ok = strings.CutPrefix(strings.TrimPrefix(after, "\r"), "\n"); ok {
		r.rest = after
	}
	return ok
}

// body takes everything up to the line break before the next delimiter of
// boundary, which stays.
func (r *mimeReader) body(boundary string) (string, error) {
	end, rest := 0, r.rest
	if !strings.HasPrefix(rest, "--"+boundary) {
		i := strings.Index(rest, "\n--"+boundary)
		if i < 0 {
			return "", r.bad("missing boundary")
		}
		end, rest = i, rest[i+1:]
	}
	body := strings.TrimSuffix(r.rest[:end], "\r")
	r.rest = rest
	return body, nil
}

// headers takes header lines and the blank line after them. Names come out in
// lower case; a name may occur once. Continuation lines are joined.
func (r *mimeReader) headers() (map[string]string, error) {
	h, last := map[string]string{}, ""
	for {
		line, ok := r.line()
		if !ok {
			return nil, r.bad("header line")
		}
		if line == "" {
			return h, nil
		}
		if strings.ContainsFunc(line, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7F }) {
			return nil, r.bad("control character in a header")
		}
		if line[0] == ' ' || line[0] == '\t' {
			if last == "" || len(h[last])+len(line) > maxLine {
				return nil, r.bad("continuation line")
			}
			h[last] += " " + strings.TrimLeft(line, " \t")
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		last = strings.ToLower(name)
		if _, double := h[last]; !ok || double || !isToken(name) || len(h) == 16 {
			return nil, r.bad("header " + strconv.Quote(name))
		}
		h[last] = strings.TrimLeft(value, " ")
	}
}

func isToken(s string) bool {
	for i := 0; i < len(s); i++ {
		if !isName(s[i]) {
			return false
		}
	}
	return s != ""
}

// multipart reads the headers of a multipart entity, which are only its content
// type, and returns its boundary.
func (r *mimeReader) multipart(mediaType string) (string, error) {
	h, err := r.headers()
	if err != nil {
		return "", err
	}
	value, params, err := parameters(h["content-type"])
	if err != nil || len(h) != 1 || !strings.EqualFold(value, mediaType) {
		return "", r.bad("not a " + mediaType + " entity")
	}
	for name, value := range params {
		switch {
		case name == "boundary":
		case name == "charset" && strings.EqualFold(value, "UTF-8"):
		case name == "type" && strings.EqualFold(value, "multipart/mixed"):
		default:
			return "", r.bad("content type parameter " + strconv.Quote(name))
		}
	}
	b := params["boundary"]
	if strings.Trim(b, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'()+_,-./:=?") != "" || b == "" || len(b) > 70 {
		return "", r.bad("boundary " + strconv.Quote(b))
	}
	return b, nil
}

// parameters splits "value; name=x; name='y'; name=\"z\"". Quoted values have no
// escapes. Names come out in lower case.
func parameters(s string) (string, map[string]string, error) {
	bad := fmt.Errorf("%w: header value %q", ErrMalformed, s)
	value, rest, more := strings.Cut(s, ";")
	params := map[string]string{}
	for more {
		var name, v string
		if name, rest, more = strings.Cut(strings.TrimLeft(rest, " "), "="); !more || !isToken(name) {
			return "", nil, bad
		}
		if rest != "" && (rest[0] == '"' || rest[0] == '\'') {
			if v, rest, more = strings.Cut(rest[1:], rest[:1]); !more {
				return "", nil, bad
			}
			if rest, more = strings.CutPrefix(rest, ";"); !more && rest != "" {
				return "", nil, bad
			}
		} else {
			v, rest, more = strings.Cut(rest, ";")
		}
		name = strings.ToLower(name)
		if _, double := params[name]; double || v == "" {
			return "", nil, bad
		}
		params[name] = v
	}
	return value, params, nil
}
