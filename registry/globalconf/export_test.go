// SPDX-License-Identifier: Apache-2.0

package globalconf

import "errors"

// ScanXML walks a whole document by the scanner's rules and calls visit with
// every start tag, end tag ("/") and text, for comparison with another parser.
func ScanXML(doc string, visit func(kind, value string)) error {
	d := newScanner(doc)
	if d.err == nil && !d.next() {
		d.fail("no root element")
	}
	for d.err == nil {
		if d.next() {
			visit("start", d.tag.space+" "+d.tag.local)
			for _, a := range d.tag.attrs {
				visit("attr", a.space+" "+a.local+"="+a.value)
			}
			d.push()
		}
		if d.err != nil || len(d.open) == 0 {
			break
		}
		if !d.open[len(d.open)-1].closed {
			if d.skipText(); d.next() {
				continue
			}
		}
		if d.err != nil {
			break
		}
		visit("end", "")
		if d.end(); len(d.open) == 0 {
			break
		}
	}
	if d.err == nil && (d.next() || d.pos < len(d.s)) {
		d.fail("content after the root element")
	}
	return d.err
}

// TextOf reads the text of a document that consists of one simple element.
func TextOf(doc string) (string, error) {
	d := newScanner(doc)
	if d.err == nil && !d.next() {
		d.fail("no root element")
	}
	if d.err != nil {
		return "", d.err
	}
	d.push()
	s := d.text()
	if d.err == nil && (d.next() || d.pos < len(d.s)) {
		d.fail("content after the root element")
	}
	return s, d.err
}

// StopAfter makes the client's store fail with ErrCrash once n changes to the
// disk have been made.
func (c *Client) StopAfter(n int) {
	c.store.before = func() error {
		if n--; n < 0 {
			return ErrCrash
		}
		return nil
	}
}

// ErrCrash is what a store interrupted by StopAfter returns.
var ErrCrash = errors.New("crash")

// IndexOf builds the look-ups of a view.
func IndexOf(p *SharedParams) { newIndex(p) }
