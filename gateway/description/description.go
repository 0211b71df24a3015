// SPDX-License-Identifier: Apache-2.0

// Package description reads the documents that describe services: OpenAPI 3.0
// and 3.1, in JSON or YAML, and WSDL 1.1. It tells which services and endpoints
// they name, and fetches them.
//
// Documents are foreign. Their size, depth and number of nodes are bounded, and
// nothing that they refer to is read: no $ref to another document, no import,
// no DOCTYPE. So a document cannot make a security server ask other hosts.
package description

import (
	"errors"
	"fmt"
	"net/url"
)

// Bounds of a document. The largest public ones have some megabytes, a thousand
// operations and less than 40 levels.
const (
	MaxSize      = 8 << 20 // bytes
	MaxServices  = 5000
	MaxEndpoints = 10_000
	maxDepth     = 128
	maxNodes     = 500_000
)

// ErrDocument is what a document that is not acceptable is refused with; the
// error's text tells where it is wrong.
var ErrDocument = errors.New("unacceptable document")

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrDocument, fmt.Errorf(format, args...))
}

// Document is what a document says.
type Document struct {
	Title    string
	Services []Service // at least one; of OpenAPI exactly one, which has no code
	// Warnings tell what is wrong with the document, or was not taken from it.
	Warnings []string
}

// Service is a service of a document.
type Service struct {
	Code      string // operation of a WSDL
	Version   string // empty: none
	Title     string
	URL       string // absolute; empty if the document does not tell
	Endpoints []Endpoint
}

// Endpoint is a method, in upper case, and a path pattern as X-Road makes it of
// a path of OpenAPI: a segment with parameters is "*" from the first to the
// last. What is a wildcard or an escape in a pattern is escaped, and percent
// escapes are decoded.
type Endpoint struct{ Method, Path string }

func (d *Document) warn(format string, args ...any) {
	const most = 50
	switch len(d.Warnings) {
	case most:
	case most - 1:
		d.Warnings = append(d.Warnings, "there is more")
	default:
		d.Warnings = append(d.Warnings, fmt.Sprintf(format, args...))
	}
}

// resolve makes an address absolute. from is the document's; nil if it has none.
func resolve(from *url.URL, address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", err
	}
	if from != nil {
		u = from.ResolveReference(u)
	}
	if !u.IsAbs() || u.Host == "" {
		return "", nil
	}
	return u.String(), nil
}
