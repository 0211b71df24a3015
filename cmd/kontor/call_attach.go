// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// attachment is a file that goes with a SOAP request (SOAP Messages with
// Attachments, W3C note of 2000).
type attachment struct {
	file, contentType, contentID string

	content *os.File
	size    int64 // bytes; -1: not known before
}

// attachParam begins a parameter of --attach. A type has semicolons of its own.
var attachParam = regexp.MustCompile(`;(type|id)=`)

// parseAttachment reads FILE[;type=TYPE][;id=CONTENT-ID], the number-th one.
func parseAttachment(text string, number int) (*attachment, error) {
	refuse := func(why string) (*attachment, error) {
		return nil, usageError{fmt.Errorf("--attach %q: %s; write FILE[;type=TYPE][;id=CONTENT-ID]", text, why)}
	}
	a := &attachment{file: text, contentID: fmt.Sprintf("attachment%d@kontor", number)}
	marks := attachParam.FindAllStringSubmatchIndex(text, -1)
	for i, m := range marks {
		end := len(text)
		if i+1 < len(marks) {
			end = marks[i+1][0]
		}
		if i == 0 {
			a.file = text[:m[0]]
		}
		value := strings.TrimSpace(text[m[1]:end])
		if text[m[2]:m[3]] == "type" {
			a.contentType = value
		} else {
			a.contentID = strings.TrimSuffix(strings.TrimPrefix(value, "<"), ">")
		}
	}
	if a.file == "" {
		return refuse("it names no file")
	}
	if a.contentType == "" {
		a.contentType = mime.TypeByExtension(filepath.Ext(a.file))
	}
	if a.contentType == "" {
		a.contentType = "application/octet-stream"
	}
	if media, _, err := mime.ParseMediaType(a.contentType); err != nil || !strings.Contains(media, "/") || strings.ContainsAny(a.contentType, "\r\n") {
		return refuse("that is no media type")
	}
	if a.contentID == "" || strings.ContainsFunc(a.contentID, func(r rune) bool { return r <= ' ' || r > '~' || r == '<' || r == '>' }) {
		return refuse("a Content-ID is made of letters, digits and signs, without spaces")
	}
	return a, nil
}

// openAttachments reads what --attach says and opens the files.
func (o *call) openAttachments() error {
	if len(o.attach) > 0 && !o.soap {
		return usageError{errors.New("--attach is for SOAP messages: give --soap, or send one body with -d")}
	}
	for i, text := range o.attach {
		a, err := parseAttachment(text, i+1)
		if err != nil {
			return err
		}
		if a.content, err = os.Open(a.file); err != nil {
			return fmt.Errorf("--attach: %w", err)
		}
		o.attached = append(o.attached, a)
		info, err := a.content.Stat()
		switch {
		case err != nil:
			return fmt.Errorf("--attach: %w", err)
		case info.IsDir():
			return usageError{fmt.Errorf("--attach: %s is a folder", a.file)}
		}
		if a.size = info.Size(); !info.Mode().IsRegular() {
			a.size = -1
		}
	}
	return nil
}

func (o *call) closeAttachments() {
	for _, a := range o.attached {
		a.content.Close() // was read only
	}
}

// related makes a multipart/related body of an envelope and the attachments. The
// files are read while it is sent; size is -1 if it is not known before.
func (o *call) related(envelope []byte) (contentType string, body io.Reader, size int64, err error) {
	var frame bytes.Buffer
	var pieces []io.Reader
	cut := func() {
		size += int64(frame.Len())
		pieces = append(pieces, bytes.NewReader(bytes.Clone(frame.Bytes())))
		frame.Reset()
	}
	parts := multipart.NewWriter(&frame)
	w, err := parts.CreatePart(textproto.MIMEHeader{"Content-Type": {soapText}, "Content-Transfer-Encoding": {"8bit"}, "Content-ID": {"<envelope@kontor>"}})
	if err == nil {
		_, err = w.Write(envelope)
	}
	if err != nil {
		return "", nil, 0, err
	}
	known := true
	for _, a := range o.attached {
		if _, err := parts.CreatePart(textproto.MIMEHeader{
			"Content-Type": {a.contentType}, "Content-Transfer-Encoding": {"binary"}, "Content-ID": {"<" + a.contentID + ">"},
		}); err != nil {
			return "", nil, 0, err
		}
		cut()
		pieces = append(pieces, a.content)
		size += a.size
		known = known && a.size >= 0
	}
	if err := parts.Close(); err != nil {
		return "", nil, 0, err
	}
	cut()
	if !known {
		size = -1
	}
	return `multipart/related; type="text/xml"; start="<envelope@kontor>"; boundary=` + parts.Boundary(), io.MultiReader(pieces...), size, nil
}

// attachTo puts the attachments behind the envelope of a request.
func (o *call) attachTo(req *http.Request, envelope []byte) error {
	contentType, body, size, err := o.related(envelope)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", contentType)
	req.Body, req.ContentLength, req.GetBody = io.NopCloser(body), size, nil
	return nil
}
