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

// Bounds of the documents that are checked as a whole: the library's work grows
// faster than they do, with their references above all. Others are read, too.
const (
	maxCheckedValues     = 50_000
	maxCheckedReferences = 500
	maxCheckedProduct    = 1_000_000 // of the two: each reference may have all values checked once more
)

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
func ReadOpenAPI(b []byte, from *url.URL) (*Document, error) {
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
	bones, err := skeleton(root)
	if err != nil {
		return nil, err
	}
	doc, err := load(bones)
	if err != nil {
		return nil, refuse("%w", err)
	}
	d := new(Document)
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
	d.check(root)
	return d, nil
}

// load has the library read a document, which it does with unbounded patience:
// its bounds are the caller's matter. The library panics where it is not
// prepared for a document; the server must outlive that.
func load(root map[string]any) (doc *openapi3.T, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the OpenAPI library gave up: %v", p)
		}
	}()
	plain, err := json.Marshal(root)
	if err != nil {
		return nil, err
	}
	return openapi3.NewLoader().LoadFromData(plain)
}

// check warns of what is wrong with a document as a whole.
func (d *Document) check(root map[string]any) {
	var c census
	c.take(root)
	switch {
	case c.external > 0:
		d.warn("%d references to other documents are not followed, and the document is not checked as a whole", c.external)
		return
	case c.values > maxCheckedValues || c.references > maxCheckedReferences || c.values*c.references > maxCheckedProduct:
		d.warn("the document is too large to be checked as a whole")
		return
	}
	doc, err := load(root)
	if err == nil {
		err = validate(doc)
	}
	if err != nil {
		d.warn("the document violates the specification: %s", firstLine(err.Error()))
	}
}

func validate(doc *openapi3.T) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the OpenAPI library gave up: %v", p)
		}
	}()
	return doc.Validate(context.Background(), openapi3.DisableExamplesValidation(), openapi3.DisableSchemaDefaultsValidation(),
		openapi3.DisableSchemaPatternValidation(), openapi3.DisableSchemaFormatValidation(), openapi3.AllowExtensionsWithRef())
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

// skeleton is what a document tells about services: title, servers, and the
// methods of its paths. It has no references.
func skeleton(root map[string]any) (map[string]any, error) {
	bones := map[string]any{"openapi": root["openapi"], "paths": root["paths"]}
	if info, ok := root["info"].(map[string]any); ok {
		bones["info"] = map[string]any{"title": info["title"]}
	}
	if servers, ok := root["servers"]; ok {
		bones["servers"] = servers
	}
	paths, ok := root["paths"].(map[string]any)
	if !ok {
		return bones, nil // none, or the library says what is wrong
	}
	short := map[string]any{}
	for path, item := range paths {
		if strings.HasPrefix(path, "x-") {
			continue // an extension
		}
		methods, err := methodsOf(root, path, item)
		if err != nil {
			return nil, err
		}
		short[path] = methods
	}
	bones["paths"] = short
	return bones, nil
}

// methodsOf follows the references of a path and returns its methods.
func methodsOf(root map[string]any, path string, item any) (map[string]any, error) {
	for hops := 0; ; hops++ {
		m, ok := item.(map[string]any)
		if !ok {
			return nil, refuse("path %.100s is no object", path)
		}
		ref, ok := m["$ref"]
		if !ok {
			short := map[string]any{}
			for key, operation := range m {
				if key != strings.ToLower(key) || !slices.Contains(methods, strings.ToUpper(key)) && key != "connect" {
					continue
				}
				if _, ok := operation.(map[string]any); !ok {
					return nil, refuse("%s %.100s is no object", key, path)
				}
				short[key] = map[string]any{}
			}
			return short, nil
		}
		text, _ := ref.(string)
		switch {
		case !strings.HasPrefix(text, "#/"):
			return nil, refuse("path %.100s refers to another document, %.200q; put all paths into one document", path, text)
		case hops == 10:
			return nil, refuse("path %.100s: the references have no end", path)
		}
		if item = lookUp(root, text); item == nil {
			return nil, refuse("path %.100s refers to %.200q, which is not there", path, text)
		}
	}
}

// lookUp finds what a JSON pointer stands for, or nil.
func lookUp(root map[string]any, ref string) any {
	var v any = root
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

// census counts what makes a document hard to check.
type census struct{ values, references, external int }

func (c *census) take(v any) {
	c.values++
	switch v := v.(type) {
	case map[string]any:
		if ref, ok := v["$ref"].(string); ok {
			c.references++
			if !strings.HasPrefix(ref, "#") {
				c.external++
			}
		}
		if m, ok := v["mapping"].(map[string]any); ok && v["propertyName"] != nil { // of a discriminator
			for _, to := range m {
				// A mapping to a schema is a name or a reference.
				if text, ok := to.(string); ok && strings.ContainsAny(text, "/#.") && !strings.HasPrefix(text, "#/") {
					c.external++
				}
			}
		}
		for _, child := range v {
			c.take(child)
		}
	case []any:
		for _, child := range v {
			c.take(child)
		}
	}
}

// server returns the address of the first server.
func server(servers openapi3.Servers, from *url.URL) (string, error) {
	address := "/" // what OpenAPI takes for no servers
	if len(servers) > 0 && servers[0] != nil {
		var ok bool
		if address, ok = expand(servers[0]); !ok {
			return "", refuse("the address of its server is longer than %d bytes", maxAddress)
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

// maxAddress bounds the address of a server, in bytes: variables stand for any
// text, as often as they are named.
const maxAddress = 4096

// expand puts the defaults of its variables into the address of a server; it
// reports false if that is too long. A variable without a default stays.
func expand(s *openapi3.Server) (string, bool) {
	var out strings.Builder
	for rest := s.URL; ; {
		before, from, found := strings.Cut(rest, "{")
		name, after, closed := strings.Cut(from, "}")
		switch v := s.Variables[name]; {
		case !found || !closed:
			out.WriteString(rest)
			return out.String(), out.Len() <= maxAddress
		case v == nil:
			out.WriteString(before + "{" + name + "}")
		default:
			out.WriteString(before)
			out.WriteString(v.Default)
		}
		if out.Len() > maxAddress {
			return "", false
		}
		rest = after
	}
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
