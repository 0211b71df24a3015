// SPDX-License-Identifier: Apache-2.0

package metaservice

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"

	"kontor/gateway"
	"kontor/gateway/fault"
	"kontor/gateway/serverconf"
	"kontor/registry/id"
)

// serveOpenAPI sends the OpenAPI document of a service, without the addresses of
// its servers.
func (d documents) serveOpenAPI(w http.ResponseWriter, r *http.Request, c *gateway.Call) error {
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
	document, done, err := d.fetch(r.Context(), c, s)
	if err != nil {
		return err
	}
	defer done()
	asJSON := isJSON(document)
	hide := hideServersYAML
	if asJSON {
		hide = hideServersJSON
	}
	content, err := d.rewrite(r.Context(), document.Content, hide)
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

var (
	errOpenAPIVersion = errors.New("its version is not 3")
	errServerURL      = errors.New("the URL of a server is malformed")
)

// serverPath returns what remains of a server's URL: its path. A URL with
// variables stays as it is, as in X-Road.
func serverPath(server string) (string, error) {
	if strings.Contains(server, "{") && strings.Contains(server, "}") {
		return server, nil
	}
	u, err := url.Parse(server)
	if err != nil {
		return "", errServerURL
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
	j.rest(first)
	return first
}

// rest reads what follows the first token of a value.
func (j *jsonReader) rest(first json.Token) {
	for depth := nesting(first); depth > 0 && j.err == nil; {
		depth += nesting(j.next())
	}
}

func nesting(t json.Token) int {
	switch t {
	case json.Delim('{'), json.Delim('['):
		return 1
	case json.Delim('}'), json.Delim(']'):
		return -1
	}
	return 0
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
	if t != start {
		j.rest(t)
	}
	return t == start
}

// maxTree bounds a YAML document that is read as a whole, in bytes: its tree
// takes two hundred times as much. Only documents of unusual form are.
const maxTree = 512 << 10

// hideServersYAML is hideServersJSON for YAML. Documents of a form in which the
// list of servers is not found, or in it a URL, are refused.
func hideServersYAML(b []byte) ([]byte, error) {
	if from, to, ok := findServers(b); ok {
		if from == to {
			return b, nil
		}
		servers, err := hideTree(b[from:to])
		if err == nil {
			return slices.Concat(b[:from], servers, b[to:]), nil
		}
		if errors.Is(err, errServerURL) {
			return nil, err
		}
		// It refers to what is elsewhere in the document.
	}
	if len(b) > maxTree {
		return nil, fmt.Errorf("it has more than %d bytes and an unusual form", maxTree)
	}
	return hideTree(b)
}

// topKey is the start of an entry of the mapping that a document is.
var topKey = regexp.MustCompile(`^(?:([A-Za-z_][\w.-]*)|"([^"\\]*)"|'([^']*)')[ \t]*:(?:[ \t\r]([^#]*)|$)`)

// findServers finds the entry "servers" of a document of version 3 whose
// entries begin each at the start of a line, as people write it. There may be
// none.
func findServers(b []byte) (from, to int, ok bool) {
	version, begun := false, false
	inside := false
	for at := 0; at < len(b); {
		line := b[at:]
		if end := bytes.IndexByte(line, '\n'); end >= 0 {
			line = line[:end]
		}
		start := at
		at = min(at+len(line)+1, len(b))
		if len(bytes.TrimRight(line, " \t\r")) == 0 || strings.IndexByte(" \t#", line[0]) >= 0 || begun && bytes.HasPrefix(line, []byte("- ")) {
			if inside {
				to = at
			}
			continue
		}
		if text := string(bytes.TrimRight(line, " \r")); !begun && text == "---" {
			begun = true
			continue
		}
		m := topKey.FindSubmatch(line)
		if m == nil {
			return 0, 0, false
		}
		begun, inside = true, false
		switch key := string(m[1]) + string(m[2]) + string(m[3]); key {
		case "openapi":
			if version = strings.HasPrefix(strings.Trim(string(m[4]), " \"'"), "3."); !version {
				return 0, 0, false
			}
		case "servers":
			if to > 0 {
				return 0, 0, false // twice
			}
			from, to, inside = start, at, true
		}
	}
	return from, to, version && to-from <= maxTree
}

// hideTree is hideServersYAML for a document or its entry "servers".
func hideTree(b []byte) ([]byte, error) {
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
	var urls []*yaml.Node
	seen := map[*yaml.Node]bool{} // an alias may stand for one that was there
	for key, value := range mapping(doc.Content[0]) {
		switch key {
		case "openapi":
			if !strings.HasPrefix(value.Value, "3.") {
				return nil, errOpenAPIVersion
			}
		case "servers":
			for _, server := range value.Content {
				for key, v := range mapping(target(server)) {
					if key == "url" && v.Kind == yaml.ScalarNode && !seen[v] {
						urls, seen[v] = append(urls, v), true
					}
				}
			}
		}
	}
	return hideURLs(b, urls)
}

// hideURLs replaces URLs in a document by their paths.
func hideURLs(b []byte, urls []*yaml.Node) ([]byte, error) {
	slices.SortFunc(urls, func(x, y *yaml.Node) int {
		return cmp.Or(cmp.Compare(x.Line, y.Line), cmp.Compare(x.Column, y.Column))
	})
	var edits []edit
	line, column, at := 1, 1, 0
	for _, v := range urls {
		kept, err := serverPath(v.Value)
		if err != nil {
			return nil, err
		}
		if kept == v.Value {
			continue
		}
		for ; line < v.Line; line++ {
			end := bytes.IndexByte(b[at:], '\n')
			if end < 0 {
				return nil, errForm
			}
			column, at = 1, at+end+1
		}
		for ; column < v.Column; column++ { // of characters, not bytes
			_, size := utf8.DecodeRune(b[at:])
			at += size
		}
		length := scalarLength(b[at:], v)
		if length == 0 {
			return nil, errForm
		}
		edits = append(edits, edit{at, at + length, "'" + strings.ReplaceAll(kept, "'", "''") + "'"})
	}
	return apply(b, edits), nil
}

var errForm = errors.New("the URL of a server stands in it in an unusual form")

// scalarLength returns how many bytes of the text at its place a scalar has; 0:
// something else stands there.
func scalarLength(text []byte, v *yaml.Node) int {
	var written string
	switch v.Style {
	case 0:
		written = v.Value
	case yaml.SingleQuotedStyle:
		written = "'" + strings.ReplaceAll(v.Value, "'", "''") + "'"
	case yaml.DoubleQuotedStyle:
		written = `"` + v.Value + `"` // escapes are unusual in a URL
	}
	if !bytes.HasPrefix(text, []byte(written)) {
		return 0
	}
	return len(written)
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
