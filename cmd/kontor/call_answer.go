// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"kontor/gateway/message"
)

const (
	// maxFault bounds what is read of a fault, in bytes.
	maxFault = 1 << 20
	// maxInJSON bounds the body that --output json prints, in bytes: it has to
	// be held in memory.
	maxInJSON = 256 << 20
)

// callAttachment is an attachment of an answer.
type callAttachment struct {
	ContentID   string `json:"content_id,omitempty"`
	ContentType string `json:"content_type,omitempty"`
	Size        int64  `json:"size"` // bytes
	File        string `json:"file,omitempty"`
}

// sink is where the body of an answer goes, and what is known of it then.
type sink struct {
	w     io.Writer
	n     int64  // bytes
	last  byte   // the last one
	begin []byte // as much as a fault has
}

func (s *sink) Write(b []byte) (int, error) {
	n, err := s.w.Write(b)
	if n > 0 {
		s.n, s.last = s.n+int64(n), b[n-1]
		s.begin = append(s.begin, b[:min(n, maxFault-len(s.begin))]...)
	}
	return n, err
}

// bounded is a buffer for so many more bytes.
type bounded struct {
	bytes.Buffer
	left int
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, errors.New("it is too long for --output json; give -o FILE for the body")
	}
	return b.Buffer.Write(p)
}

// take writes the body of the answer, while it comes, to the file of -o, into
// the result if that is printed as JSON, or to out.
func (o *call) take(out io.Writer, r *callResult) (err error) {
	memory := &bounded{left: maxInJSON}
	to := &sink{w: out}
	switch {
	case o.out != "":
		f, openErr := os.OpenFile(o.out, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if openErr != nil {
			return fmt.Errorf("the answer cannot be kept: %w", openErr)
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		to.w = f
	case o.output == "json":
		to.w = memory
	}
	if media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); o.soap && media == "multipart/related" {
		err = o.takeParts(to, r)
	} else {
		_, err = io.Copy(to, r.http.Body)
	}
	if err != nil {
		return o.brokeOff(to, err)
	}
	r.Timing.end()
	r.begin = to.begin
	if to.w == memory {
		r.Body = textOrBase64(memory.Bytes())
	}
	if f, ok := to.w.(*os.File); ok && to.n > 0 && to.last != '\n' {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 && o.out == "" {
			fmt.Fprintln(f) // keeps the prompt on a line of its own
		}
	}
	return nil
}

// brokeOff says that an answer is not whole.
func (o *call) brokeOff(to *sink, err error) error {
	next := ""
	if errors.Is(err, context.DeadlineExceeded) {
		next = "; raise --max-time"
	}
	return fmt.Errorf("the answer is not whole, %d bytes of it were taken: %w%s", to.n, err, next)
}

// takeParts writes the envelope of a SOAP answer, and its attachments to files.
func (o *call) takeParts(to *sink, r *callResult) error {
	dec, err := message.NewSOAPDecoder(r.http.Body, r.Header.Get("Content-Type"), message.SOAPResponse, message.Limits{})
	if err != nil {
		return err
	}
	defer dec.Close()
	for first := true; ; first = false {
		part, err := dec.Next()
		if err == io.EOF {
			return nil
		}
		if err == nil && first {
			_, err = io.Copy(to, part.Reader)
		} else if err == nil {
			err = o.takeAttachment(part, r)
		}
		if err != nil {
			return err
		}
	}
}

// takeAttachment keeps an attachment, decoded, under the name that it has in
// evidence, or only counts it.
func (o *call) takeAttachment(part message.Part, r *callResult) (err error) {
	a := callAttachment{ContentType: part.ContentType}
	content, w := part.Reader, io.Writer(io.Discard)
	for _, f := range part.Fields {
		switch value := strings.TrimSpace(f.Value); strings.ToLower(f.Name) {
		case "content-id":
			a.ContentID = value
		case "content-transfer-encoding":
			switch strings.ToLower(value) {
			case "base64":
				content = base64.NewDecoder(base64.StdEncoding, content)
			case "quoted-printable":
				content = quotedprintable.NewReader(content)
			}
		}
	}
	if o.attachments != "" {
		if err := os.MkdirAll(o.attachments, 0o700); err != nil {
			return err
		}
		a.File = filepath.Join(o.attachments, fmt.Sprintf("attachment%d", len(r.Attachments)+1))
		f, openErr := os.OpenFile(a.File, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if openErr != nil {
			return openErr
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		w = f
	}
	if a.Size, err = io.Copy(w, content); err != nil {
		return fmt.Errorf("attachment %d: %w", len(r.Attachments)+1, err)
	}
	r.Attachments = append(r.Attachments, a)
	return nil
}

// begin prints what comes before the body.
func (o *call) begin(out io.Writer, r *callResult) {
	if o.verbose {
		o.showAnswer(r)
	}
	if o.head {
		fmt.Fprintf(out, "%s %s\n", r.http.Proto, r.http.Status)
		printHeader(out, "", r.Header)
		fmt.Fprintln(out)
	}
}

// finish prints what is to be told after the body.
func (o *call) finish(r *callResult) error {
	for i, a := range r.Attachments {
		what := "not kept: --save-attachments DIR keeps it"
		if a.File != "" {
			what = "saved as " + a.File
		}
		fmt.Fprintf(o.errs, "kontor: attachment %d, Content-ID %q, %q, %d bytes, %s\n", i+1, a.ContentID, a.ContentType, a.Size, what)
	}
	if r.Fault != nil {
		r.Fault.print(o.errs)
	} else if r.Status >= http.StatusBadRequest && !o.soap && r.Header.Get("X-Road-Request-Id") == "" {
		fmt.Fprintf(o.errs, "kontor: HTTP status %d, without the headers of a security server; is %s the address of a gateway for information systems (its listen.consumer)?\n", r.Status, o.gateway)
	} else if r.Status >= http.StatusBadRequest {
		fmt.Fprintf(o.errs, "kontor: the service itself answered with HTTP status %d; the exchange went well\n", r.Status)
	}
	if o.verbose {
		o.showTrace(r)
		return o.showEvidence(r)
	}
	return nil
}
