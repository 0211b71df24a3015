// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"net/http"

	"kontor/registry"
)

// Node is one of the machines that share the state of a registry.
type Node struct {
	Name     string `json:"name,omitempty" doc:"Absent: the first node"`
	Address  string `json:"address" doc:"Where clients reach it: host, with a port if that is not 80"`
	Answers  bool   `json:"answers,omitempty" doc:"It is the one that answers"`
	Internal string `json:"internal_key,omitempty" doc:"SHA-256 of the certificate of the key that signs its internal source, in hex"`
	External string `json:"external_key,omitempty" doc:"The same, of the external source"`
}

// Nodes is the list of nodes.
type Nodes struct {
	Nodes []Node `json:"nodes"`
}

// NodePath names a further node.
type NodePath struct {
	Node string `path:"node" maxLength:"255" doc:"Its name"`
}

// NodeAddress is the body that moves a node.
type NodeAddress struct {
	Address string `json:"address" minLength:"1" maxLength:"255"`
}

func (a *API) registerNodes() {
	administrator := []string{SystemAdministrator}
	const path = "/nodes/{node}"
	read(a, operation{id: "list-nodes", path: "/nodes", summary: "List the nodes of the registry"}, func(_ *struct{}, st *registry.State) (Nodes, error) {
		out := Nodes{[]Node{}}
		for _, n := range st.Nodes() {
			v := Node{Name: n.Name, Address: n.Address, Answers: n.Name == a.cfg.Registry.Status().Node}
			for src, key := range map[registry.Source]*string{registry.Internal: &v.Internal, registry.External: &v.External} {
				for _, k := range st.Keys(src) {
					if k.Node == n.Name && k.Active {
						*key = k.Hash().String()
					}
				}
			}
			out.Nodes = append(out.Nodes, v)
		}
		return out, nil
	})
	known := func(st *registry.State, name string) error {
		for _, n := range st.Nodes() {
			if n.Name == name && name != "" {
				return nil
			}
		}
		return unknown("further node %q; the address of the first one is that of the registry (kontor settings change), and a new one joins with kontor registry init --join", name)
	}
	type move struct {
		NodePath
		ChangeTerms
		Body NodeAddress
	}
	change(a, operation{id: "change-node", method: http.MethodPatch, path: path, summary: "Change the address of a further node", roles: administrator,
		description: "The address of the first node is that of the registry, a system parameter."},
		func(in *move, st *registry.State) ([]registry.Change, error) {
			return []registry.Change{&registry.SetNode{Node: in.Node, Address: in.Body.Address}}, known(st, in.Node)
		})
	type remove struct {
		NodePath
		ChangeTerms
	}
	change(a, operation{id: "remove-node", method: http.MethodDelete, path: path, summary: "Make a node and its signing keys unknown to clients", roles: administrator},
		func(in *remove, st *registry.State) ([]registry.Change, error) {
			return []registry.Change{&registry.RemoveNode{Node: in.Node}}, known(st, in.Node)
		})
}

// Nodes returns the nodes of the registry, the first one first.
func (c *Client) Nodes(ctx context.Context) ([]Node, error) {
	out, _, err := fetch[Nodes](ctx, c, path("nodes"), nil)
	return out.Nodes, err
}

// MoveNode changes the address of a further node.
func (c *Client) MoveNode(ctx context.Context, t ChangeTerms, node, address string) (*Done, error) {
	return c.change(ctx, t, http.MethodPatch, path("nodes", node), NodeAddress{address})
}

// RemoveNode makes a node and its signing keys unknown to clients.
func (c *Client) RemoveNode(ctx context.Context, t ChangeTerms, node string) (*Done, error) {
	return c.change(ctx, t, http.MethodDelete, path("nodes", node), nil)
}
