// SPDX-License-Identifier: Apache-2.0

package message

import (
	"bytes"
	"fmt"
	"io"
	"strings"
)

// Limits of the multipart syntax. Java servers take lines of 1000 characters.
const (
	maxPartFields    = 100
	maxPartLine      = 1000
	maxPartHeader    = 16 << 10
	maxPadding       = 128 // blanks after a boundary
	maxEpilogue      = 1024
	maxPreamble      = 64 << 10 // and epilogue, of information systems
	maxEmptyReads    = 100
	multipartBuffer  = largeBuffer
	maxBoundary      = 70 // RFC 2046
	boundarySpecials = "'()+_,-./:=?"
)

func validBoundary(b string) bool {
	if b == "" || len(b) > maxBoundary {
		return false
	}
	for i := 0; i < len(b); i++ {
		c := b[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9') &&
			strings.IndexByte(boundarySpecials, c) < 0 {
			return false
		}
	}
	return true
}

// multipartReader reads the syntax of RFC 2046. It differs from mime/multipart in
// that it bounds everything, decodes no transfer encoding, refuses what our
// peers never send (a preamble, folded headers, anything but white space after
// the end) and hands out its own buffer instead of copying. Information systems
// may send these: for them it is lenient.
//
// A line break before a boundary belongs to the boundary, CR LF or LF alone. A
// boundary counts only if blanks and a line break follow, or two hyphens.
type multipartReader struct {
	r     io.Reader
	buf   *[]byte
	data  []byte // unread part of buf
	full  bool   // the last read took all the room
	rerr  error  // of r
	delim []byte // two hyphens and the boundary
	state multipartState
	safe  int  // bytes of data known to be content
	fresh bool // no content of this part has been given out

	lenient bool // preamble, folded headers and epilogue are allowed
}

type multipartState uint8

const (
	atStart    multipartState = iota // before the first boundary
	inPart                           // in the content of a part
	atHeader                         // after a boundary
	atEpilogue                       // after the last boundary
	atEnd
)

func newMultipartReader(r io.Reader, boundary string) *multipartReader {
	m := &multipartReader{r: r, buf: getBuffer(mediumBuffer), delim: []byte("--" + boundary)}
	m.data = (*m.buf)[:0]
	return m
}

// release gives the buffer back. Reading on is an error.
func (m *multipartReader) release() {
	if m.buf == nil {
		return
	}
	putBuffer(m.buf)
	m.buf, m.data, m.safe, m.state = nil, nil, 0, atEnd
}

// fill reads more, moving what is unread to the front. It must only be called
// when less than the whole buffer is unread.
func (m *multipartReader) fill() error {
	if m.rerr != nil {
		if m.rerr == io.EOF {
			return fmt.Errorf("%w: %w", ErrMalformed, io.ErrUnexpectedEOF)
		}
		return m.rerr
	}
	last := m.buf
	if m.full && cap(*last) < multipartBuffer { // most messages need no more than the first
		m.buf = getBuffer(multipartBuffer)
	}
	buf := (*m.buf)[:cap(*m.buf)]
	have := copy(buf, m.data)
	if last != m.buf {
		putBuffer(last)
	}
	for range maxEmptyReads {
		n, err := m.r.Read(buf[have:])
		m.rerr = err
		if n > 0 || err != nil {
			m.data, m.full = buf[:have+n], have+n == len(buf)
			if n > 0 {
				return nil
			}
			return m.fill()
		}
	}
	m.data = buf[:have]
	m.rerr = io.ErrNoProgress
	return m.rerr
}

// nextPart reads the header of the next part. The one before must have been
// read to its end. It returns io.EOF after the last.
func (m *multipartReader) nextPart() (contentType string, fields []Field, err error) {
	if m.state == atStart {
		start := m.start
		if m.lenient {
			start = m.preamble
		}
		if err := start(); err != nil {
			return "", nil, err
		}
	}
	switch m.state {
	case atEpilogue:
		if err := m.epilogue(); err != nil {
			return "", nil, err
		}
		m.state = atEnd
		return "", nil, io.EOF
	case atEnd:
		return "", nil, io.EOF
	}
	contentType, fields, err = m.header()
	m.state, m.fresh = inPart, true
	return contentType, fields, err
}

// start reads the first boundary, before which one empty line may stand.
func (m *multipartReader) start() error {
	for len(m.data) < 2 {
		if err := m.fill(); err != nil {
			return err
		}
	}
	if m.data[0] == '\r' && m.data[1] == '\n' {
		m.data = m.data[2:]
	} else if m.data[0] == '\n' {
		m.data = m.data[1:]
	}
	for len(m.data) < len(m.delim) {
		if err := m.fill(); err != nil {
			return err
		}
	}
	if !bytes.HasPrefix(m.data, m.delim) {
		return fmt.Errorf("%w: it does not start with its boundary", ErrMalformed)
	}
	for {
		n, last, more := boundaryTail(m.data[len(m.delim):])
		if more {
			if err := m.fill(); err != nil {
				return err
			}
			continue
		}
		if n == 0 {
			return fmt.Errorf("%w: it does not start with its boundary", ErrMalformed)
		}
		m.passBoundary(len(m.delim)+n, last)
		return nil
	}
}

// preamble reads up to the first boundary.
func (m *multipartReader) preamble() error {
	m.state, m.fresh = inPart, true
	for left := maxPreamble; ; {
		b, err := m.peek()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if left -= len(b); left < 0 {
			return fmt.Errorf("%w: no boundary in the first %d bytes", ErrMalformed, maxPreamble)
		}
		m.advance(len(b))
	}
}

func (m *multipartReader) passBoundary(n int, last bool) {
	m.data = m.data[n:]
	if m.state = atHeader; last {
		m.state = atEpilogue
	}
}

// boundaryTail looks at what follows a boundary. n is how many bytes belong to
// it, 0 if what precedes is no boundary at all; more tells that b is too short
// to say.
func boundaryTail(b []byte) (n int, last, more bool) {
	if len(b) >= 2 && b[0] == '-' && b[1] == '-' {
		return 2, true, false
	}
	if len(b) == 1 && b[0] == '-' {
		return 0, false, true
	}
	i := 0
	for i < len(b) && i <= maxPadding && (b[i] == ' ' || b[i] == '\t') {
		i++
	}
	switch rest := b[i:]; {
	case i > maxPadding:
		return 0, false, false
	case len(rest) == 0, len(rest) == 1 && rest[0] == '\r':
		return 0, false, true
	case rest[0] == '\n':
		return i + 1, false, false
	case rest[0] == '\r' && rest[1] == '\n':
		return i + 2, false, false
	}
	return 0, false, false
}

// header reads the header of a part up to and including its empty line.
func (m *multipartReader) header() (contentType string, fields []Field, err error) {
	seen := false
	var current *string // value of the field that a folded line would continue
	for count, size := 0, 0; ; count++ {
		line, err := m.line()
		if err != nil {
			return "", nil, err
		}
		if size += len(line); size > maxPartHeader {
			return "", nil, fmt.Errorf("%w: header of a part longer than %d bytes", ErrTooLarge, maxPartHeader)
		}
		if len(line) == 0 {
			return contentType, fields, nil
		}
		if count == maxPartFields {
			return "", nil, fmt.Errorf("%w: more than %d header fields in a part", ErrTooLarge, maxPartFields)
		}
		if m.lenient && current != nil && (line[0] == ' ' || line[0] == '\t') {
			if !validValue(line) {
				return "", nil, fmt.Errorf("%w: control character in the header of a part", ErrMalformed)
			}
			*current = strings.Trim(*current+string(line), " \t")
			if len(*current) > maxPartLine {
				return "", nil, fmt.Errorf("%w: header line of a part longer than %d bytes", ErrTooLarge, maxPartLine)
			}
			continue
		}
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			return "", nil, fmt.Errorf("%w: header line of a part without a colon", ErrMalformed)
		}
		if err := checkName(name); err != nil {
			return "", nil, fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		value = bytes.Trim(value, " \t")
		if !validValue(value) {
			return "", nil, fmt.Errorf("%w: control character in the header of a part", ErrMalformed)
		}
		if !isContentType(name) {
			fields = append(fields, Field{string(name), string(value)})
			current = &fields[len(fields)-1].Value
			continue
		}
		if seen {
			return "", nil, fmt.Errorf("%w: part with two content types", ErrMalformed)
		}
		seen, contentType = true, typeName(value)
		current = &contentType
	}
}

func isContentType(name []byte) bool {
	return string(name) == "content-type" || bytes.EqualFold(name, []byte("content-type"))
}

// typeName makes a string of a content type; the usual ones are there already.
func typeName(value []byte) string {
	for _, known := range [...]string{
		typeOCSP, typeRESTRequest, typeRESTResponse, typeRESTBody, typeHashChainResult, typeHashChain, typeSignature, typeFault,
	} {
		if string(value) == known {
			return known
		}
	}
	return string(value)
}

// line reads one line and drops its line break. It is valid until the next read.
func (m *multipartReader) line() ([]byte, error) {
	for searched := 0; ; {
		if i := bytes.IndexByte(m.data[searched:], '\n'); i >= 0 {
			line := m.data[:searched+i]
			m.data = m.data[searched+i+1:]
			line = bytes.TrimSuffix(line, []byte("\r"))
			if len(line) > maxPartLine {
				break
			}
			return line, nil
		}
		if searched = len(m.data); searched > maxPartLine+1 {
			break
		}
		if err := m.fill(); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%w: header line of a part longer than %d bytes", ErrTooLarge, maxPartLine)
}

// epilogue reads what follows the last boundary, which may be white space only.
func (m *multipartReader) epilogue() error {
	most := maxEpilogue
	if m.lenient {
		most = maxPreamble
	}
	for total := 0; ; {
		if !m.lenient && len(bytes.Trim(m.data, " \t\r\n")) > 0 {
			return fmt.Errorf("%w: %w: text after the last part", ErrMalformed, ErrAfterSignature)
		}
		if total += len(m.data); total > most {
			return fmt.Errorf("%w: too much after the last part", ErrMalformed)
		}
		m.data = m.data[:0]
		if m.rerr == io.EOF {
			return nil
		}
		if err := m.fill(); err != nil {
			if m.rerr == io.EOF {
				return nil
			}
			return err
		}
	}
}

// peek implements contentSource.
func (m *multipartReader) peek() ([]byte, error) {
	if m.buf == nil {
		return nil, io.ErrClosedPipe
	}
	for m.safe == 0 {
		if m.state != inPart {
			return nil, io.EOF
		}
		if err := m.scan(); err != nil {
			return nil, err
		}
	}
	return m.data[:m.safe], nil
}

// advance implements contentSource.
func (m *multipartReader) advance(n int) {
	m.data = m.data[n:]
	m.safe -= n
	m.fresh = m.fresh && n == 0
}

// scan looks for the boundary that ends the part. It finds content, passes the
// boundary, or reads more.
func (m *multipartReader) scan() error {
	for from := 0; ; {
		i := bytes.Index(m.data[from:], m.delim)
		if i < 0 {
			// The end may be the start of a boundary with its line break.
			if m.safe = len(m.data) - len(m.delim) - len("\r"); m.safe > 0 {
				return nil
			}
			m.safe = 0
			return m.fill()
		}
		i += from
		n, last, more := boundaryTail(m.data[i+len(m.delim):])
		end, ok := m.contentEnd(i)
		switch {
		case !ok, n == 0 && (!more || m.rerr != nil):
			from = i + 1 // it only looks like a boundary
		case end > 0:
			m.safe = end
			return nil
		case more:
			return m.fill()
		default:
			m.passBoundary(i+len(m.delim)+n, last)
			return nil
		}
	}
}

// contentEnd returns where the content before a boundary at i ends, or false
// if no line break precedes it. At the very start of a part none is needed: the
// empty line of the header has it.
func (m *multipartReader) contentEnd(i int) (end int, ok bool) {
	switch {
	case i == 0:
		return 0, m.fresh
	case m.data[i-1] != '\n':
		return 0, false
	case i > 1 && m.data[i-2] == '\r':
		return i - 2, true
	}
	return i - 1, true
}
