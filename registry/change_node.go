// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"fmt"
	"slices"
)

// maxNodes bounds the anchor: clients may ask every node in turn.
const maxNodes = 8

// SetNode adds a further node to the registry, or changes its address. The
// address of the first node is the registry's (SetSystem).
type SetNode struct {
	Node    string `json:"node"`
	Address string `json:"address"`
}

func (c *SetNode) op() string     { return "node.set" }
func (c *SetNode) String() string { return fmt.Sprintf("set node %s at %s", c.Node, c.Address) }

func (c *SetNode) check(s *State) error {
	if err := checkCode(c, "node", c.Node); err != nil {
		return err
	}
	if err := checkText(c, "node", c.Node, true); err != nil {
		return err
	}
	if why := checkAddress(c.Address, true); why != "" {
		return refuse(c, ErrInvalid, "address: "+why, "")
	}
	if s.node(c.Node) == nil && len(s.nodes)+1 >= maxNodes {
		return refuse(c, ErrInvalid, fmt.Sprintf("the registry has %d nodes already", maxNodes), "remove one first")
	}
	return nil
}

func (c *SetNode) apply(s *State) error {
	if c.Node == "" {
		return refuse(c, ErrInvalid, "the first node has the address of the registry", "change that")
	}
	if n := s.nodeAt(c.Address); n != nil && n.Name != c.Node {
		return refuse(c, ErrExists, fmt.Sprintf("another node has the address %s", c.Address), "every node needs its own")
	}
	n := s.node(c.Node)
	switch {
	case n == nil:
		s.nodes = append(s.nodes, Node{c.Node, c.Address})
	case n.Address == c.Address:
		return nil
	default:
		n.Address = c.Address
	}
	s.anchored = s.time
	return nil
}

// RemoveNode makes a node and its signing keys unknown to clients.
type RemoveNode struct {
	Node string `json:"node"`
}

func (c *RemoveNode) op() string         { return "node.remove" }
func (c *RemoveNode) String() string     { return "remove node " + c.Node }
func (c *RemoveNode) check(*State) error { return nil }

func (c *RemoveNode) apply(s *State) error {
	if c.Node == "" {
		return refuse(c, ErrInvalid, "the first node cannot be removed", "replace it: kontor registry init --join --replace")
	}
	if s.node(c.Node) == nil {
		return refuse(c, ErrUnknown, "there is no such node", "")
	}
	s.nodes = slices.DeleteFunc(s.nodes, func(n Node) bool { return n.Name == c.Node })
	s.keys = slices.DeleteFunc(s.keys, func(k SourceKey) bool { return k.Node == c.Node })
	s.anchored = s.time
	return nil
}

// node returns a node by name, or nil; the first one is a copy.
func (s *State) node(name string) *Node {
	if name == "" {
		return &Node{Address: s.system.Address}
	}
	for i := range s.nodes {
		if s.nodes[i].Name == name {
			return &s.nodes[i]
		}
	}
	return nil
}

// nodeAt returns the node with an address, or nil.
func (s *State) nodeAt(address string) *Node {
	for _, n := range s.Nodes() {
		if n.Address == address {
			return &n
		}
	}
	return nil
}

// nodeKeys returns the signing keys that one node has for a source.
func (s *State) nodeKeys(node string, src Source) []SourceKey {
	return slices.DeleteFunc(s.Keys(src), func(k SourceKey) bool { return k.Node != node })
}
