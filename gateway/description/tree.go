// SPDX-License-Identifier: Apache-2.0

package description

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"

	"gopkg.in/yaml.v3"
)

// tree reads JSON or YAML into maps, slices and scalars as JSON knows them. A
// key that stands twice, an anchor that contains itself and what exceeds the
// bounds are refused.
func tree(b []byte) (any, error) {
	b = bytes.TrimPrefix(b, []byte("\uFEFF"))
	n := nodes{left: maxNodes, text: maxText}
	if text := bytes.TrimSpace(b); len(text) > 0 && text[0] == '{' {
		if v, err := n.json(text); err == nil {
			return v, nil
		} else if json.Valid(text) {
			return nil, err
		}
		n = nodes{left: maxNodes, text: maxText} // YAML that begins like JSON
	}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	var root yaml.Node
	if err := dec.Decode(&root); err != nil {
		return nil, refuse("it is neither JSON nor YAML: %w", err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, refuse("it is more than one YAML document")
	}
	return n.yaml(&root, 0)
}

// maxText bounds the text of a tree, in bytes: aliases can make more of it than
// the document has.
const maxText = 2 * MaxSize

// nodes builds a tree and counts down values and bytes of text.
type nodes struct{ left, text int }

func (n *nodes) count(depth int) error {
	n.left--
	switch {
	case n.left < 0:
		return refuse("it has more than %d values", maxNodes)
	case depth > maxDepth:
		return refuse("it is nested more than %d levels deep", maxDepth)
	}
	return nil
}

func (n *nodes) json(b []byte) (any, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	v, err := n.jsonValue(dec, 0)
	if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, refuse("something follows the document")
	}
	return v, nil
}

func (n *nodes) jsonValue(dec *json.Decoder, depth int) (any, error) {
	if err := n.count(depth); err != nil {
		return nil, err
	}
	t, err := dec.Token()
	if err != nil {
		return nil, refuse("%w", err)
	}
	switch t {
	case json.Delim('{'):
		m := map[string]any{}
		for dec.More() {
			k, err := dec.Token()
			if err != nil {
				return nil, refuse("%w", err)
			}
			key, _ := k.(string) // the decoder takes nothing else for a key
			if _, twice := m[key]; twice {
				return nil, refuse("key %q stands twice in one object", key)
			}
			if m[key], err = n.jsonValue(dec, depth+1); err != nil {
				return nil, err
			}
		}
		_, err = dec.Token()
		t = m
	case json.Delim('['):
		s := []any{}
		for dec.More() {
			v, err := n.jsonValue(dec, depth+1)
			if err != nil {
				return nil, err
			}
			s = append(s, v)
		}
		_, err = dec.Token()
		t = s
	}
	if err != nil {
		return nil, refuse("%w", err)
	}
	return t, nil
}

// yaml copies a node. What an alias stands for counts each time, so that a
// document does not unfold without bounds.
func (n *nodes) yaml(y *yaml.Node, depth int) (any, error) {
	if err := n.count(depth); err != nil {
		return nil, err
	}
	if n.text -= len(y.Value); n.text < 0 {
		return nil, refuse("it unfolds to more than %d bytes", maxText)
	}
	switch y.Kind {
	case yaml.DocumentNode:
		return n.yaml(y.Content[0], depth)
	case yaml.AliasNode:
		return n.yaml(y.Alias, depth+1)
	case yaml.SequenceNode:
		s := make([]any, 0, len(y.Content))
		for _, c := range y.Content {
			v, err := n.yaml(c, depth+1)
			if err != nil {
				return nil, err
			}
			s = append(s, v)
		}
		return s, nil
	case yaml.MappingNode:
		m := map[string]any{}
		return m, n.mapping(m, y, depth)
	}
	return scalar(y)
}

func (n *nodes) mapping(m map[string]any, y *yaml.Node, depth int) error {
	for i := 0; i+1 < len(y.Content); i += 2 {
		k, v := y.Content[i], y.Content[i+1]
		switch _, twice := m[k.Value]; {
		case k.Kind != yaml.ScalarNode:
			return refuse("line %d: a key is no scalar", k.Line)
		case k.ShortTag() == "!!merge":
			return refuse("line %d: OpenAPI does not know the merge key <<", k.Line)
		case twice:
			return refuse("line %d: key %q stands twice in one mapping", k.Line, k.Value)
		}
		n.text -= len(k.Value)
		value, err := n.yaml(v, depth+1)
		if err != nil {
			return err
		}
		m[k.Value] = value
	}
	return nil
}

// scalar takes for numbers, booleans and null what JSON would, and everything
// else for text.
func scalar(y *yaml.Node) (any, error) {
	switch y.ShortTag() {
	case "!!null":
		return nil, nil
	case "!!bool", "!!int", "!!float":
		var v any
		if err := y.Decode(&v); err != nil {
			return nil, refuse("line %d: %w", y.Line, err)
		}
		if f, ok := v.(float64); ok && (math.IsNaN(f) || math.IsInf(f, 0)) {
			return y.Value, nil
		}
		return v, nil
	}
	return y.Value, nil
}
