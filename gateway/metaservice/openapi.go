// SPDX-License-Identifier: Apache-2.0

package metaservice

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"path"
	"strings"

	"gopkg.in/yaml.v3"

	"kontor/gateway"
	"kontor/gateway/fault"
	"kontor/gateway/serverconf"
	"kontor/registry/id"
)

// serveOpenAPI sends the OpenAPI document of a service, without the addresses of
// its servers.
func serveOpenAPI(w http.ResponseWriter, r *http.Request, c *gateway.Call) error {
	code, err := codeInQuery(c.Request.Query)
	if err != nil {
		return err
	}
	name, err := id.NewService(c.Request.Service.Owner(), code)
	if err != nil {
		return fault.Wrap(fault.InvalidRequest, err, "Malformed serviceCode: %v", err)
	}
	// X-Road has no codes of their own for these.
	s, ok := c.Conf.Service(name)
	switch {
	case !ok:
		return fault.New(fault.InternalError, "Service not found: %s", name.LogString())
	case s.Type != serverconf.OpenAPI3:
		return fault.New(fault.InternalError, "Invalid service type: %s", s.Type)
	case s.Description.URL == "" && s.Description.File == "":
		return fault.New(fault.InternalError, "Service %s has no description", name.LogString())
	}
	document, err := c.Document(r.Context(), s)
	if err != nil {
		return err
	}
	asJSON := isJSON(document)
	hide := hideServersYAML
	if asJSON {
		hide = hideServersJSON
	}
	content, err := hide(document.Content)
	if err != nil {
		return fault.Wrap(fault.InternalError, err, "The description of service %s is not an OpenAPI document that can be passed on: %v", name.LogString(), err)
	}
	kind := document.Type
	switch {
	case kind != "":
	case document.Name != s.Description.File:
		kind = "text/plain"
	case asJSON:
		kind = "application/json"
	default:
		kind = "application/yaml" // RFC 9512
	}
	w.Header().Set("Content-Type", kind)
	_, err = w.Write(content)
	return err
}

// codeInQuery returns the parameter serviceCode, whose name may be in any case;
// the last one counts.
func codeInQuery(query string) (code string, err error) {
	for pair := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(pair, "=")
		if name, err := url.QueryUnescape(name); err != nil || !strings.EqualFold(name, "serviceCode") {
			continue
		}
		if code, err = url.QueryUnescape(value); err != nil {
			return "", fault.Wrap(fault.InvalidRequest, err, "Malformed serviceCode in the query")
		}
	}
	if code == "" {
		return "", fault.New(fault.InvalidRequest, "Missing serviceCode in message body") // X-Road's words
	}
	return code, nil
}

// isJSON tells JSON from YAML: by the content type, else by the name, else by
// the first character. YAML may look like JSON, but then is.
func isJSON(d *gateway.Document) bool {
	switch {
	case strings.Contains(d.Type, "application/json"):
		return true
	case strings.Contains(d.Type, "yaml"):
		return false
	case path.Ext(d.Name) == ".json":
		return true
	}
	return bytes.HasPrefix(bytes.TrimLeft(d.Content, " \t\r\n\ufeff"), []byte("{"))
}

var errOpenAPIVersion = errors.New("its version is not 3")

// serverPath returns what remains of a server's URL: its path. A URL with
// variables stays as it is, as in X-Road.
func serverPath(server string) (string, error) {
	if strings.Contains(server, "{") && strings.Contains(server, "}") {
		return server, nil
	}
	u, err := url.Parse(server)
	if err != nil {
		return "", errors.New("the URL of a server is malformed")
	}
	return u.EscapedPath(), nil
}

// edit replaces a range of a document.
type edit struct {
	from, to int
	text     string
}

// apply makes edits, which are in order and do not overlap.
func apply(b []byte, edits []edit) []byte {
	var out bytes.Buffer
	at := 0
	for _, e := range edits {
		out.Write(b[at:e.from])
		out.WriteString(e.text)
		at = e.to
	}
	out.Write(b[at:])
	return out.Bytes()
}

// hideServersJSON replaces the URL of each server in an OpenAPI document by its
// path. Nothing else in the document changes.
func hideServersJSON(b []byte) ([]byte, error) {
	b = bytes.TrimPrefix(b, []byte("\ufeff"))
	j := &jsonReader{dec: json.NewDecoder(bytes.NewReader(b))}
	j.dec.UseNumber()
	if j.next() != json.Delim('{') {
		j.fail(errors.New("it is not an object"))
	}
	j.members(func(key string) {
		switch key {
		case "openapi":
			if version, ok := j.value().(string); !ok || !strings.HasPrefix(version, "3.") {
				j.fail(errOpenAPIVersion)
			}
		case "servers":
			j.servers()
		default:
			j.value()
		}
	})
	if _, err := j.dec.Token(); j.err == nil && err != io.EOF {
		j.fail(errors.New("something follows the object"))
	}
	if j.err != nil {
		return nil, fmt.Errorf("malformed JSON: %w", j.err)
	}
	return apply(b, j.edits), nil
}

// jsonReader reads JSON token by token and collects edits. After its first error
// it reads nothing.
type jsonReader struct {
	dec   *json.Decoder
	edits []edit
	err   error
}

func (j *jsonReader) fail(err error) {
	if j.err == nil {
		j.err = err
	}
}

// next reads a token; nil: an error, or null.
func (j *jsonReader) next() json.Token {
	if j.err != nil {
		return nil
	}
	t, err := j.dec.Token()
	if err != nil {
		j.fail(err)
		return nil
	}
	return t
}

// value reads a whole value and returns its first token.
func (j *jsonReader) value() json.Token {
	first := j.next()
	for t, depth := first, 0; j.err == nil; t = j.next() {
		switch t {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return first
		}
	}
	return nil
}

// members reads the members of an object to its end; f reads each value.
func (j *jsonReader) members(f func(key string)) {
	for j.err == nil && j.dec.More() {
		key, ok := j.next().(string)
		if !ok {
			j.fail(errors.New("a key is not a string"))
			return
		}
		f(key)
	}
	j.next()
}

// servers reads the value of servers and edits the URLs in it.
func (j *jsonReader) servers() {
	if !j.enter('[') {
		return
	}
	for j.err == nil && j.dec.More() {
		if !j.enter('{') {
			continue
		}
		j.members(func(key string) {
			from := int(j.dec.InputOffset())
			server, ok := j.value().(string)
			if key != "url" || !ok || j.err != nil {
				return
			}
			kept, err := serverPath(server)
			if err != nil {
				j.fail(err)
				return
			}
			text, err := json.Marshal(kept)
			if err != nil {
				panic(err) // a string
			}
			if kept != server {
				j.edits = append(j.edits, edit{from, int(j.dec.InputOffset()), ": " + string(text)})
			}
		})
	}
	j.next()
}

// enter reads the start of an object or array, or any other value whole.
func (j *jsonReader) enter(start json.Delim) bool {
	t := j.next()
	if t == start {
		return true
	}
	if t == json.Delim('{') || t == json.Delim('[') {
		for depth := 1; depth > 0 && j.err == nil; {
			switch j.next() {
			case json.Delim('{'), json.Delim('['):
				depth++
			case json.Delim('}'), json.Delim(']'):
				depth--
			}
		}
	}
	return false
}

// hideServersYAML is hideServersJSON for YAML. The document is written anew:
// what it means stays, its layout may not.
func hideServersYAML(b []byte) ([]byte, error) {
	dec := yaml.NewDecoder(bytes.NewReader(b))
	var doc yaml.Node
	if err := dec.Decode(&doc); err != nil {
		return nil, fmt.Errorf("malformed YAML: %w", err)
	}
	if err := dec.Decode(new(yaml.Node)); err != io.EOF {
		return nil, errors.New("malformed YAML: more than one document")
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("malformed YAML: it is not a mapping")
	}
	changed := false
	for key, value := range mapping(doc.Content[0]) {
		switch key {
		case "openapi":
			if !strings.HasPrefix(value.Value, "3.") {
				return nil, errOpenAPIVersion
			}
		case "servers":
			for _, server := range target(value).Content {
				for key, v := range mapping(target(server)) {
					if key != "url" || v.Kind != yaml.ScalarNode {
						continue
					}
					kept, err := serverPath(v.Value)
					if err != nil {
						return nil, err
					}
					if kept != v.Value {
						v.SetString(kept)
						changed = true
					}
				}
			}
		}
	}
	if !changed {
		return b, nil
	}
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(&doc); err != nil {
		return nil, fmt.Errorf("malformed YAML: %w", err)
	}
	return out.Bytes(), enc.Close()
}

// target returns what an alias stands for.
func target(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// mapping yields the entries of a mapping; of other nodes none.
func mapping(n *yaml.Node) iter.Seq2[string, *yaml.Node] {
	return func(yield func(string, *yaml.Node) bool) {
		if n.Kind != yaml.MappingNode {
			return
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			if !yield(n.Content[i].Value, target(n.Content[i+1])) {
				return
			}
		}
	}
}
