// SPDX-License-Identifier: Apache-2.0

// Package service is the information system behind every chain that is
// measured: the same for all, and as cheap as a web server of the standard
// library can be.
package service

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Answers to questions by SOAP; a reader knows by them that it was no fault.
const (
	SOAPAnswer = "<b:answerResponse"
	soapFill   = 1024 // bytes of the whole answer, about
)

// Handler answers
//
//	GET  …/bytes/{n}  with n bytes of a [Content]
//	POST …/sink/{n}   after reading and comparing n bytes of a [Content]
//	POST …/exchange/{n}/{m}  after reading and comparing n bytes of a [Content], with m bytes
//	POST …/soap       with a SOAP envelope of 1 KB; attachments are read to their end
func Handler() http.Handler {
	var known sync.Map // int64 → Content
	content := func(w http.ResponseWriter, text string) (Content, bool) {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 || n > 1<<40 {
			http.Error(w, "not a size", http.StatusBadRequest)
			return Content{}, false
		}
		c, ok := known.Load(n)
		if !ok {
			c, _ = known.LoadOrStore(n, NewContent(n))
		}
		return c.(Content), true
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		dir, last, _ := cutLast(r.URL.Path)
		dir, what, _ := cutLast(dir)
		send := func() {
			if c, ok := content(w, last); ok {
				w.Header().Set("Content-Type", "application/json")
				w.Header().Set("Content-Length", last)
				_, _ = c.Reader().(io.WriterTo).WriteTo(w) // the asker sees what is missing
			}
		}
		// read reads a body and compares it.
		read := func(size string) bool {
			c, ok := content(w, size)
			if !ok {
				return false
			}
			buf := buffers.Get().(*[]byte)
			defer buffers.Put(buf)
			check := c.Checker()
			_, err := io.CopyBuffer(check, r.Body, *buf)
			if err == nil {
				err = check.Close()
			}
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
			}
			return err == nil
		}
		switch {
		case r.Method == http.MethodGet && what == "bytes":
			send()
		case r.Method == http.MethodPost && what == "sink":
			if read(last) {
				w.Header().Set("Content-Type", "application/json")
				fmt.Fprintf(w, `{"read":%s}`, last)
			}
		case r.Method == http.MethodPost && strings.HasSuffix(dir, "/exchange"):
			if read(what) {
				send()
			}
		case r.Method == http.MethodPost && last == "soap":
			answerSOAP(w, r)
		default:
			http.NotFound(w, r)
		}
	})
}

// buffers are for reading: one for each request would cost more than the answer.
var buffers = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

// answerSOAP sends the header of the question back, with a body of its own.
func answerSOAP(w http.ResponseWriter, r *http.Request) {
	// The header is in the first kilobytes, behind the part's head if there are
	// attachments.
	pooled := buffers.Get().(*[]byte)
	defer buffers.Put(pooled)
	buf := *pooled
	n, err := io.ReadAtLeast(r.Body, buf, 1)
	from := bytes.Index(buf[:n], []byte("<?xml"))
	to := bytes.Index(buf[:n], []byte("</soap:Header>"))
	for err == nil && (from < 0 || to < 0) && n < len(buf) {
		var m int
		m, err = r.Body.Read(buf[n:])
		n += m
		from, to = bytes.Index(buf[:n], []byte("<?xml")), bytes.Index(buf[:n], []byte("</soap:Header>"))
	}
	if from < 0 || to < from {
		http.Error(w, "not a question", http.StatusBadRequest)
		return
	}
	var answer bytes.Buffer
	answer.Write(buf[from:to])
	answer.WriteString(`</soap:Header><soap:Body>` + SOAPAnswer + ` xmlns:b="urn:bench"><text>`)
	answer.WriteString(strings.Repeat("x", max(0, soapFill-answer.Len())))
	answer.WriteString(`</text></b:answerResponse></soap:Body></soap:Envelope>`)
	if _, err := io.CopyBuffer(io.Discard, r.Body, buf); err != nil {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", "text/xml; charset=UTF-8")
	w.Header().Set("Content-Length", strconv.Itoa(answer.Len()))
	_, _ = w.Write(answer.Bytes()) // the asker sees what is missing
}

func cutLast(path string) (dir, last string, ok bool) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path, false
	}
	return path[:i], path[i+1:], true
}

// Serve serves at an address until the process ends.
func Serve(address string) error {
	srv := &http.Server{Addr: address, Handler: Handler(), ReadHeaderTimeout: time.Minute}
	return srv.ListenAndServe()
}
