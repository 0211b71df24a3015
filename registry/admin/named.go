// SPDX-License-Identifier: Apache-2.0

package admin

// named is a list of things in the registry's state that have names, and how
// the API shows one of them.
type named[T, V any] struct {
	kind string // in refusals
	all  []T
	name func(T) string
	view func(T) V
}

// find returns the one of this name, or a refusal.
func (n named[T, V]) find(name string) (T, error) {
	for _, one := range n.all {
		if n.name(one) == name {
			return one, nil
		}
	}
	var none T
	return none, unknown("%s %s", n.kind, name)
}

// absent refuses a name that is there.
func (n named[T, V]) absent(name string) error {
	if _, err := n.find(name); err == nil {
		return exists("%s %s", n.kind, name)
	}
	return nil
}

// show returns the view of the one of this name, or a refusal.
func (n named[T, V]) show(name string) (V, error) {
	one, err := n.find(name)
	if err != nil {
		var none V
		return none, err
	}
	return n.view(one), nil
}

// views returns the views of all, never nil.
func (n named[T, V]) views() []V {
	out := []V{}
	for _, one := range n.all {
		out = append(out, n.view(one))
	}
	return out
}
