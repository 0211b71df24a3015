// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kontor/registry/admin"
	"kontor/registry/globalconf"
)

func newNode(a *registryAPI) *cobra.Command {
	nodes := completion(func(c *cobra.Command, api *admin.Client) ([]admin.Node, error) {
		all, err := api.Nodes(c.Context())
		return slices.DeleteFunc(all, func(n admin.Node) bool { return n.Name == "" }), err // the first one cannot be changed
	},
		func(n admin.Node) string { return n.Name + "\t" + n.Address })
	return group("node", "Nodes that share the state of a registry",
		a.command("list", "List the nodes of the registry", "  kontor registry node list", cobra.NoArgs, func(c *cobra.Command, api *admin.Client, _ []string) error {
			all, err := api.Nodes(c.Context())
			if err != nil {
				return err
			}
			return printList(c.OutOrStdout(), a.output, all, []string{"NODE", "ADDRESS", "ANSWERS", "INTERNAL KEY", "EXTERNAL KEY"}, func(n admin.Node) []string {
				return []string{nodeName(n.Name), n.Address, yesNo(n.Answers), shortHash(n.Internal), shortHash(n.External)}
			})
		}),
		a.command("status", "Show what each node publishes; exit status 1 if one does not", "  kontor registry node status", cobra.NoArgs, func(c *cobra.Command, api *admin.Client, _ []string) error {
			all, err := published(c.Context(), api)
			if err != nil {
				return err
			}
			if err := printList(c.OutOrStdout(), a.output, all, []string{"NODE", "PUBLISHED", "VALID UNTIL", "PROBLEM"}, func(p publication) []string {
				return []string{p.URL, p.Generation, date(p.Expires), p.Problem}
			}); err != nil {
				return err
			}
			for _, p := range all {
				if p.Problem != "" {
					return errReported
				}
			}
			return nil
		}),
		a.complete(a.change("change NODE ADDRESS", "Change the address of a further node", "  kontor registry node change two registry2.example.net", cobra.ExactArgs(2),
			func(c *cobra.Command, api *admin.Client, args []string) error {
				d, err := api.MoveNode(c.Context(), a.terms(""), args[0], args[1])
				return a.done(c, d, err)
			}), nodes),
		a.complete(a.remove("remove NODE", "Make a node and its signing keys unknown to clients", "  kontor registry node remove two", cobra.ExactArgs(1),
			func(c *cobra.Command, api *admin.Client, args []string) error {
				if err := a.confirm(c, "Remove node %s, so that no client takes a configuration from it any more", args[0]); err != nil {
					return err
				}
				d, err := api.RemoveNode(c.Context(), a.terms(""), args[0])
				return a.done(c, d, err)
			}), nodes))
}

func nodeName(name string) string {
	if name == "" {
		return "first"
	}
	return name
}

// publication is what a node serves to gateways.
type publication struct {
	URL        string    `json:"url"`
	Generation string    `json:"generation,omitempty"`
	Expires    time.Time `json:"expires,omitzero"`
	Problem    string    `json:"problem,omitempty"`
}

// published asks every node for its internal directory, as gateways do, and
// verifies it.
func published(ctx context.Context, api *admin.Client) ([]publication, error) {
	doc, err := api.Anchor(ctx, "internal")
	if err != nil {
		return nil, err
	}
	anchor, err := globalconf.ParseAnchor(doc)
	if err != nil {
		return nil, err
	}
	all := []publication{}
	for _, s := range anchor.Sources {
		if !strings.HasPrefix(s.URL, "http://") { // the same node again
			continue
		}
		p := publication{URL: s.URL}
		if d, err := directory(ctx, s); err != nil {
			p.Problem = err.Error()
		} else {
			p.Expires = d.Expires
			if parts := strings.Split(d.Parts[0].Location, "/"); len(parts) > 2 {
				p.Generation = parts[len(parts)-2]
			}
			if time.Now().After(d.Expires) {
				p.Problem = "it is outdated; see kontor registry status there"
			}
		}
		all = append(all, p)
	}
	return all, nil
}

// directory downloads and verifies the directory of one source.
func directory(ctx context.Context, s globalconf.AnchorSource) (*globalconf.Directory, error) {
	const patience, most = 10 * time.Second, 1 << 20
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s?version=%d", s.URL, globalconf.CurrentVersion), nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, most))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("it answers %s", resp.Status)
	}
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for _, der := range s.Certs {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		certs = append(certs, c)
	}
	d, err := globalconf.ParseDirectory(body, certs)
	if err == nil && len(d.Parts) == 0 {
		err = fmt.Errorf("it publishes nothing")
	}
	return d, err
}
