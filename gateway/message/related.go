// SPDX-License-Identifier: Apache-2.0

package message

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"strings"
)

// HTTPBody is a SOAP message in the form that information systems take: a bare
// envelope, or multipart/related with its attachments. It may be opened several
// times, until the content is closed.
type HTTPBody struct {
	ContentType string
	Size        int64

	head    []byte   // what precedes the envelope
	raw     []byte   // the envelope
	parts   [][]byte // what precedes each attachment
	tail    []byte
	content Content
}

// NewHTTPBody puts a SOAP message into the form for an information system.
// original is the content type that the message had before it came into the
// network, as the peer tells it: multipart/related stays that, with its
// boundary; else the message is a bare envelope, if it has no attachments. A
// boundary that occurs in the message, by which whoever made it could have the
// reader see other parts than those that were signed, is replaced.
//
// The content is sealed. Errors are those of reading it.
func NewHTTPBody(original string, s *SOAP, raw []byte, content Content) (*HTTPBody, error) {
	m, err := parseMedia(original)
	related := err == nil && m.name == typeRelated && len(original) <= maxPartLine && validValue(original)
	if !related && len(content) == 0 {
		return &HTTPBody{ContentType: typeFault, Size: int64(len(raw)), raw: raw}, nil
	}
	var params map[string]string
	if related {
		_, params, _ = mime.ParseMediaType(original) // as parseMedia did
	} else {
		params = map[string]string{"type": typeTextXML, "charset": "UTF-8"}
		original = ""
	}
	boundary := params["boundary"]
	delimiter := []byte("--" + boundary)
	taken := !validBoundary(boundary) || bytes.Contains(raw, delimiter)
	for _, a := range content {
		if taken {
			break
		}
		if taken, err = a.Body.contains(delimiter); err != nil {
			return nil, err
		}
	}
	if taken {
		boundary, original = newBoundary(), ""
		params["boundary"] = boundary
	}
	b := &HTTPBody{ContentType: original, raw: raw, content: content}
	if original == "" {
		b.ContentType = mime.FormatMediaType(typeRelated, params)
	}
	if b.ContentType == "" { // parameters of others that cannot be written
		b.ContentType = mime.FormatMediaType(typeRelated, map[string]string{"boundary": boundary})
	}
	if b.head, err = partHeader(nil, boundary, s.ContentType, s.Fields); err != nil {
		return nil, err
	}
	b.Size = int64(len(b.head) + len(raw))
	for _, a := range content {
		h, err := partHeader([]byte("\r\n"), boundary, a.ContentType, a.Fields)
		if err != nil {
			return nil, err
		}
		b.parts = append(b.parts, h)
		a.Body.Digest() // seals it: its size is known
		b.Size += int64(len(h)) + a.Body.Size()
	}
	b.tail = []byte("\r\n--" + boundary + "--\r\n")
	b.Size += int64(len(b.tail))
	return b, nil
}

func partHeader(b []byte, boundary, contentType string, fields []Field) ([]byte, error) {
	if err := checkPartHeader(contentType, fields); err != nil {
		return nil, err
	}
	b = append(append(append(b, "--"...), boundary...), "\r\nContent-Type: "...)
	b = append(append(b, contentType...), "\r\n"...)
	for _, f := range fields {
		b = append(append(append(append(b, f.Name...), ": "...), f.Value...), "\r\n"...)
	}
	return append(b, "\r\n"...), nil
}

// contains seals the body and reports whether sep is in it.
func (b *Body) contains(sep []byte) (bool, error) {
	if p, ok := b.Bytes(); ok {
		return bytes.Contains(p, sep), nil
	}
	r, err := b.Open()
	if err != nil {
		return false, err
	}
	defer r.Close()
	pooled := getBuffer(largeBuffer)
	defer putBuffer(pooled)
	buf := (*pooled)[:cap(*pooled)]
	for kept := 0; ; {
		n, err := r.Read(buf[kept:])
		have := buf[:kept+n]
		if bytes.Contains(have, sep) {
			return true, nil
		}
		if err == io.EOF {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		kept = copy(buf, have[max(0, len(have)-len(sep)+1):])
	}
}

// Open returns a reader of the whole message. It implements io.WriterTo.
func (b *HTTPBody) Open() (io.ReadCloser, error) {
	if b.tail == nil {
		return nopCloser{bytes.NewReader(b.raw)}, nil
	}
	o := &opened{}
	readers := []io.Reader{bytes.NewReader(b.head), bytes.NewReader(b.raw)}
	for i, a := range b.content {
		r, err := a.Body.Open()
		if err != nil {
			return nil, errors.Join(err, o.Close())
		}
		o.bodies = append(o.bodies, r)
		readers = append(readers, bytes.NewReader(b.parts[i]), r)
	}
	o.readers = append(readers, bytes.NewReader(b.tail))
	return o, nil
}

// opened reads one reader after the other.
type opened struct {
	readers []io.Reader
	bodies  []io.Closer
}

func (o *opened) Read(p []byte) (int, error) {
	for len(o.readers) > 0 {
		n, err := o.readers[0].Read(p)
		if err == io.EOF {
			o.readers, err = o.readers[1:], nil
		}
		if n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
	}
	return 0, io.EOF
}

// WriteTo implements io.WriterTo: what is in memory needs no buffer.
func (o *opened) WriteTo(w io.Writer) (n int64, err error) {
	for len(o.readers) > 0 && err == nil {
		var k int64
		k, err = io.Copy(w, o.readers[0])
		n, o.readers = n+k, o.readers[1:]
	}
	return n, err
}

// Close implements io.Closer.
func (o *opened) Close() error {
	var errs []error
	for _, b := range o.bodies {
		errs = append(errs, b.Close())
	}
	return errors.Join(errs...)
}

// WithUTF8 returns a content type with the charset that answers to clients
// have. Java security servers give it to multipart, too.
func WithUTF8(contentType string) string {
	m, err := parseMedia(contentType)
	switch {
	case err != nil, strings.EqualFold(m.charset, "UTF-8"):
		return contentType
	case !m.charsets:
		return contentType + ";charset=utf-8"
	}
	name, params, _ := mime.ParseMediaType(contentType) // as parseMedia did
	params["charset"] = "utf-8"
	return mime.FormatMediaType(name, params)
}
