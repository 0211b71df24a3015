// SPDX-License-Identifier: Apache-2.0

package description

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

// methods are those that X-Road transports.
var methods = []string{
	http.MethodDelete, http.MethodGet, http.MethodHead, http.MethodOptions,
	http.MethodPatch, http.MethodPost, http.MethodPut, http.MethodTrace,
}

// maxChecked bounds the documents that are checked as a whole, in values: the
// work grows faster than they do.
const maxChecked = 100_000

// ReadOpenAPI reads an OpenAPI document of version 3.0 or 3.1, in JSON or YAML.
// from is where it comes from, which an address in it may be relative to; nil if
// that is no URL.
//
// The service's address is the first of the document's servers, its variables
// replaced by their defaults. References to other documents are not followed;
// one in the place of a path is refused, others are warned of. So is everything
// by which the document violates the specification, as long as its paths can be
// read.
//
// Errors: ErrDocument.
func ReadOpenAPI(b []byte, from *url.URL) (d *Document, err error) {
	if len(b) > MaxSize {
		return nil, refuse("it is larger than %d bytes", MaxSize)
	}
	v, err := tree(b)
	if err != nil {
		return nil, err
	}
	root, ok := v.(map[string]any)
	if !ok {
		return nil, refuse("it is no object")
	}
	if err := checkVersion(root); err != nil {
		return nil, err
	}
	d = new(Document)
	r := references{root: root}
	if err := r.check(); err != nil {
		return nil, err
	}
	// The library panics where it is not prepared for a document; the server
	// must outlive that.
	defer func() {
		if p := recover(); p != nil {
			d, err = nil, refuse("the OpenAPI library gave up: %v", p)
		}
	}()
	plain, err := json.Marshal(root)
	if err != nil {
		return nil, refuse("%w", err)
	}
	doc, err := openapi3.NewLoader().LoadFromData(plain)
	if err != nil {
		return nil, refuse("%w", err)
	}
	if doc.Info != nil {
		d.Title = doc.Info.Title
	}
	service := Service{Title: d.Title}
	if service.URL, err = server(doc.Servers, from); err != nil {
		return nil, err
	}
	if service.Endpoints, err = d.endpoints(doc.Paths); err != nil {
		return nil, err
	}
	d.Services = []Service{service}
	switch values := maxNodes - r.left; {
	case r.external > 0:
		d.warn("%d references to other documents are not followed, and the document is not checked as a whole", r.external)
	case values > maxChecked:
		d.warn("the document is too large to be checked as a whole")
	default:
		err := doc.Validate(context.Background(), openapi3.DisableExamplesValidation(), openapi3.DisableSchemaDefaultsValidation(),
			openapi3.DisableSchemaPatternValidation(), openapi3.DisableSchemaFormatValidation(), openapi3.AllowExtensionsWithRef())
		if err != nil {
			d.warn("the document violates the specification: %s", firstLine(err.Error()))
		}
	}
	return d, nil
}

func checkVersion(root map[string]any) error {
	version := fmt.Sprint(root["openapi"])
	_, swagger := root["swagger"]
	switch {
	case strings.HasPrefix(version, "3.0.") || strings.HasPrefix(version, "3.1."):
		return nil
	case root["openapi"] == nil && swagger:
		return refuse("it is a Swagger 2.0 document; convert it to OpenAPI 3")
	case root["openapi"] == nil:
		return refuse("it is no OpenAPI document: it has no openapi version")
	}
	return refuse("its OpenAPI version is %.20q; 3.0 and 3.1 are understood", version)
}

// references makes a document harmless for the library: those to other
// documents are taken out, and paths that refer to each other in a circle are
// refused.
type references struct {
	root     map[string]any
	external int
	left     int // values that may still be visited
}

func (r *references) check() error {
	r.left = maxNodes
	for _, place := range []string{"paths", "webhooks"} {
		items, _ := r.root[place].(map[string]any)
		for name, item := range items {
			if err := r.checkItem(place+" "+name, item); err != nil {
				return err
			}
		}
	}
	r.detach(r.root)
	return nil
}

// checkItem follows the references of a path item.
func (r *references) checkItem(where string, item any) error {
	for hops := 0; ; hops++ {
		m, ok := item.(map[string]any)
		if !ok {
			return refuse("%.100s is no object", where)
		}
		ref, ok := m["$ref"]
		if !ok {
			return nil
		}
		text, _ := ref.(string)
		switch {
		case !strings.HasPrefix(text, "#/"):
			return refuse("%.100s refers to another document, %.200q; put all paths into one document", where, text)
		case hops == 10:
			return refuse("%.100s: the references have no end", where)
		}
		if item = r.lookUp(text); item == nil {
			return refuse("%.100s refers to %.200q, which is not there", where, text)
		}
	}
}

// lookUp finds what a JSON pointer of this document stands for, or nil.
func (r *references) lookUp(ref string) any {
	var v any = r.root
	for part := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		if s, err := url.PathUnescape(part); err == nil {
			part = s
		}
		v = m[strings.NewReplacer("~1", "/", "~0", "~").Replace(part)]
	}
	return v
}

// detach takes out references to other documents.
func (r *references) detach(v any) {
	r.left--
	switch v := v.(type) {
	case map[string]any:
		if ref, ok := v["$ref"].(string); ok && !strings.HasPrefix(ref, "#") {
			r.external++
			delete(v, "$ref")
		}
		if m, ok := v["mapping"].(map[string]any); ok && v["propertyName"] != nil {
			for k, to := range m {
				// A mapping to a schema is a name or a reference.
				if text, ok := to.(string); !ok || strings.ContainsAny(text, "/#.") && !strings.HasPrefix(text, "#/") {
					r.external++
					delete(m, k)
				}
			}
		}
		for _, c := range v {
			r.detach(c)
		}
	case []any:
		for _, c := range v {
			r.detach(c)
		}
	}
}

// server returns the address of the first server.
func server(servers openapi3.Servers, from *url.URL) (string, error) {
	address := "/" // what OpenAPI takes for no servers
	if len(servers) > 0 && servers[0] != nil {
		address = servers[0].URL
		for name, v := range servers[0].Variables {
			if v != nil {
				address = strings.ReplaceAll(address, "{"+name+"}", v.Default)
			}
		}
	}
	if strings.ContainsAny(address, "{}") {
		return "", nil
	}
	to, err := resolve(from, address)
	if err != nil {
		return "", refuse("the address of its server, %.200q, is no URL", address)
	}
	return to, nil
}

// endpoints lists what the paths offer, in the order of paths.
func (d *Document) endpoints(paths *openapi3.Paths) ([]Endpoint, error) {
	var all []Endpoint
	seen := map[Endpoint]bool{}
	items := paths.Map()
	for _, path := range slices.Sorted(maps.Keys(items)) {
		if !strings.HasPrefix(path, "/") {
			return nil, refuse("path %.200q does not begin with /", path)
		}
		if items[path] == nil {
			continue
		}
		operations := items[path].Operations()
		for _, method := range slices.Sorted(maps.Keys(operations)) {
			e := Endpoint{strings.ToUpper(method), pattern(path)}
			switch {
			case !slices.Contains(methods, e.Method):
				d.warn("%s %.200s is not taken: X-Road does not transport the method", e.Method, path)
				continue
			case seen[e]:
				continue // paths that differ in the names of parameters only
			case len(all) == MaxEndpoints:
				return nil, refuse("it has more than %d operations", MaxEndpoints)
			case len(e.Path) > 1024:
				return nil, refuse("path %.100q… is longer than 1024 bytes", path)
			}
			seen[e] = true
			all = append(all, e)
		}
	}
	return all, nil
}

// pattern makes a path pattern of a path.
func pattern(path string) string {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		before, rest, variable := strings.Cut(s, "{")
		after := ""
		if variable {
			end := strings.LastIndexByte(rest, '}')
			if variable = end >= 0; variable {
				after = rest[end+1:]
			} else {
				before = s
			}
		}
		segments[i] = literal(before)
		if variable {
			segments[i] += "*" + literal(after)
		}
	}
	return strings.Join(segments, "/")
}

func literal(s string) string {
	if plain, err := url.PathUnescape(s); err == nil {
		s = plain
	}
	return strings.NewReplacer(`*`, `\*`, `\`, `\\`).Replace(s)
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	if len(s) > 500 {
		s = strings.ToValidUTF8(s[:500], "") + "…"
	}
	return s
}
