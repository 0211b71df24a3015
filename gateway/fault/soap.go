// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

const soapNamespace = "http://schemas.xmlsoap.org/soap/envelope/"

// MaxSOAP bounds a SOAP fault, in bytes.
const MaxSOAP = 1 << 20

const (
	maxDepth = 64
	maxCode  = 1 << 10 // the code becomes an HTTP header
)

// ErrMalformed tells that a document is not a SOAP fault.
var ErrMalformed = errors.New("not a SOAP fault")

// ParseSOAP reads a SOAP 1.1 fault, whatever its prefixes, of at most MaxSOAP
// bytes of UTF-8 without a document type declaration. The result keeps a copy
// of b for relaying. Errors wrap ErrMalformed.
func ParseSOAP(b []byte) (*Error, error) {
	if len(b) > MaxSOAP {
		return nil, fmt.Errorf("%w: longer than %d bytes", ErrMalformed, MaxSOAP)
	}
	e := &Error{remote: true, raw: bytes.Clone(b)}
	p := &parser{d: xml.NewDecoder(bytes.NewReader(bytes.TrimPrefix(b, []byte("\uFEFF"))))}
	if err := p.fault(e); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return e, nil
}

type parser struct {
	d     *xml.Decoder
	begun bool // a token was read: an XML declaration may no longer come
	depth int
}

// fault reads the whole document.
func (p *parser) fault(e *Error) error {
	if err := p.start("Envelope"); err != nil {
		return err
	}
	body := false
	err := p.children(func(name xml.Name) error {
		switch {
		case name.Space != soapNamespace:
			return p.skip()
		case name.Local == "Header" && !body:
			return p.skip()
		case name.Local == "Body" && !body:
			body = true
			return p.body(e)
		}
		return fmt.Errorf("unexpected element %s in the envelope", name.Local)
	})
	if err != nil {
		return err
	}
	if !body {
		return errors.New("no body")
	}
	for {
		switch t, err := p.token(); t := t.(type) {
		case nil:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case xml.CharData:
			if len(bytes.TrimSpace(t)) > 0 {
				return errors.New("text after the envelope")
			}
		default:
			return errors.New("content after the envelope")
		}
	}
}

func (p *parser) body(e *Error) error {
	seen := false
	err := p.children(func(name xml.Name) error {
		if seen || name.Local != "Fault" || name.Space != soapNamespace {
			return fmt.Errorf("element %s in the body where one Fault is expected", name.Local)
		}
		seen = true
		return p.fields(e)
	})
	if err == nil && !seen {
		return errors.New("empty body")
	}
	return err
}

func (p *parser) fields(e *Error) error {
	var have [4]bool
	once := func(i int, name string) error {
		if have[i] {
			return fmt.Errorf("%s occurs twice", name)
		}
		have[i] = true
		return nil
	}
	err := p.children(func(name xml.Name) (err error) {
		switch name.Local {
		case "faultcode":
			if err = once(0, name.Local); err == nil {
				e.code, err = p.text()
			}
		case "faultstring":
			if err = once(1, name.Local); err == nil {
				e.text, err = p.text()
			}
		case "faultactor":
			if err = once(2, name.Local); err == nil {
				e.actor, err = p.text()
			}
		case "detail":
			if err = once(3, name.Local); err == nil {
				e.detail, err = p.detail()
			}
		default:
			err = p.skip()
		}
		return err
	})
	if err != nil {
		return err
	}
	e.code = strings.TrimSpace(e.code)
	if e.code == "" {
		return errors.New("no faultcode")
	}
	if len(e.code) > maxCode {
		return fmt.Errorf("faultcode longer than %d bytes", maxCode)
	}
	for _, r := range e.code {
		if r < 0x20 || r > 0x7E {
			return fmt.Errorf("character %q in faultcode", r)
		}
	}
	return nil
}

// detail returns the text of the first child named faultDetail, or else all
// text.
func (p *parser) detail() (string, error) {
	var all strings.Builder
	var named *string
	err := p.content(&all, func(name xml.Name) error {
		s, err := p.allText()
		if err != nil {
			return err
		}
		if name.Local == "faultDetail" && named == nil {
			named = &s
		}
		all.WriteString(s)
		return nil
	})
	if named != nil {
		return *named, err
	}
	return strings.TrimSpace(all.String()), err
}

// text reads the character data of an element that has no children.
func (p *parser) text() (string, error) {
	var b strings.Builder
	err := p.content(&b, func(name xml.Name) error {
		return fmt.Errorf("unexpected element %s", name.Local)
	})
	return b.String(), err
}

// allText reads the character data of an element and all its descendants.
func (p *parser) allText() (string, error) {
	var b strings.Builder
	err := p.content(&b, func(xml.Name) error {
		s, err := p.allText()
		b.WriteString(s)
		return err
	})
	return b.String(), err
}

func (p *parser) skip() error {
	return p.content(nil, func(xml.Name) error { return p.skip() })
}

// children calls f at the start of each child; only white space may stand
// between them.
func (p *parser) children(f func(xml.Name) error) error {
	var b strings.Builder
	if err := p.content(&b, f); err != nil {
		return err
	}
	if strings.TrimSpace(b.String()) != "" {
		return errors.New("text between elements")
	}
	return nil
}

// content reads to the end of the current element. f must read each child to
// its end; character data between children goes to text.
func (p *parser) content(text *strings.Builder, f func(xml.Name) error) error {
	if p.depth++; p.depth > maxDepth {
		return fmt.Errorf("elements nested deeper than %d", maxDepth)
	}
	defer func() { p.depth-- }()
	for {
		t, err := p.token()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		switch t := t.(type) {
		case xml.StartElement:
			if err := f(t.Name); err != nil {
				return err
			}
		case xml.EndElement:
			return nil
		case xml.CharData:
			if text != nil {
				text.Write(t)
			}
		}
	}
}

// start reads up to the document element, which must have the given name.
func (p *parser) start(local string) error {
	for {
		t, err := p.token()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = errors.New("no document element")
			}
			return err
		}
		switch t := t.(type) {
		case xml.StartElement:
			if t.Name.Local != local || t.Name.Space != soapNamespace {
				return fmt.Errorf("document element is %s, not a SOAP %s", t.Name.Local, local)
			}
			return nil
		case xml.CharData:
			if len(bytes.TrimSpace(t)) > 0 {
				return errors.New("text before the envelope")
			}
		}
	}
}

// token returns the next token that is not a comment. It refuses document type
// declarations and processing instructions, which SOAP 1.1 forbids.
func (p *parser) token() (xml.Token, error) {
	for {
		t, err := p.d.Token()
		if err != nil {
			return nil, err
		}
		first := !p.begun
		p.begun = true
		switch t := t.(type) {
		case xml.Comment:
			continue
		case xml.Directive:
			return nil, errors.New("document type declaration")
		case xml.ProcInst:
			if t.Target != "xml" || !first {
				return nil, errors.New("processing instruction")
			}
			continue
		}
		return t, nil
	}
}
