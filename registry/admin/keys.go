// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"kontor/pki"
	"kontor/registry"
	"kontor/registry/globalconf"
	"kontor/registry/guard"
)

// SigningKey is a key that signs the configuration of a source.
type SigningKey struct {
	Source      string      `json:"source" enum:"internal,external"`
	Key         string      `json:"key" doc:"SHA-256 of its certificate, in hex"`
	Active      bool        `json:"active" doc:"It signs; others are only known to clients"`
	Added       time.Time   `json:"added"`
	Certificate Certificate `json:"certificate"`
}

// SigningKeys is a list of signing keys.
type SigningKeys struct {
	Keys []SigningKey `json:"signing_keys"`
}

// NewSigningKey is the body that makes a signing key.
type NewSigningKey struct {
	Source    string `json:"source" enum:"internal,external" doc:"internal: for own security servers; external: for federation partners"`
	Algorithm string `json:"algorithm,omitempty" example:"RSA-3072" doc:"Absent: RSA-3072, which every release of X-Road reads"`
}

// APIKey is an API key without the key itself.
type APIKey struct {
	Name    string    `json:"name" example:"alice"`
	Roles   []string  `json:"roles" enum:"registration-officer,security-officer,system-administrator,observer"`
	Created time.Time `json:"created"`
}

// APIKeys is a list of API keys.
type APIKeys struct {
	Keys []APIKey `json:"api_keys"`
}

// NewAPIKey is the body that makes an API key.
type NewAPIKey struct {
	Name  string   `json:"name" example:"alice" doc:"Stands in the journal and the audit log"`
	Roles []string `json:"roles" enum:"registration-officer,security-officer,system-administrator,observer" minItems:"1" doc:"Only roles that the caller has"`
}

// MadeAPIKey is the answer with a new API key.
type MadeAPIKey struct {
	APIKey
	Secret string `json:"key" doc:"The key itself; it is not kept and not shown again"`
}

func (a *API) registerKeys() {
	a.registerSigningKeys()
	a.registerAPIKeys()
}

// SigningKeyPath names a signing key.
type SigningKeyPath struct {
	Source string `path:"source" enum:"internal,external"`
	Key    string `path:"key" doc:"SHA-256 of its certificate, in hex; its first 8 digits or more if they name one key"`
}

func (p SigningKeyPath) hash(st *registry.State) (found registry.Hash, err error) {
	n := 0
	prefix := strings.ToLower(p.Key)
	for _, k := range st.Keys(registry.Source(p.Source)) {
		if len(prefix) >= 8 && strings.HasPrefix(k.Hash().String(), prefix) {
			found = k.Hash()
			n++
		}
	}
	switch n {
	case 0:
		return found, unknown("%s signing key %s", p.Source, p.Key)
	case 1:
		return found, nil
	}
	return found, invalid(fmt.Errorf("%s names %d keys; give more digits", p.Key, n))
}

func (a *API) registerSigningKeys() {
	officer := []string{SecurityOfficer}
	read(a, operation{id: "list-signing-keys", path: "/signing-keys", summary: "List the keys that sign the configuration"},
		func(_ *struct{}, st *registry.State) (SigningKeys, error) {
			out := SigningKeys{[]SigningKey{}}
			for _, src := range []registry.Source{registry.Internal, registry.External} {
				for _, k := range st.Keys(src) {
					out.Keys = append(out.Keys, SigningKey{string(src), k.Hash().String(), k.Active, k.Added, certificateOfDER(k.Certificate)})
				}
			}
			return out, nil
		})
	type add struct {
		ChangeTerms
		Body NewSigningKey
	}
	huma.Register(a.api, operation{id: "generate-signing-key", method: http.MethodPost, path: "/signing-keys", status: http.StatusCreated, roles: officer,
		summary: "Make a signing key and make it known", description: "Clients learn it from the configuration, two minutes at default intervals; activate it then, and retire the old one.",
	}.huma(a), func(ctx context.Context, in *add) (*doneAnswer, error) {
		return a.carryOut(ctx, "keys "+in.Body.Source, func(by registry.Author) error {
			src, alg := registry.Source(in.Body.Source), pki.RSA3072
			if in.Body.Algorithm != "" {
				var err error
				if alg, err = pki.ParseAlgorithm(in.Body.Algorithm); err != nil {
					return invalid(err)
				}
			}
			st := a.cfg.Registry.State()
			if n := len(st.Keys(src)); n >= 10 { // before a key is made for nothing
				return guard.NewProblem(http.StatusConflict, guard.CodeInvalid, fmt.Sprintf("the source has %d keys already", n), "retire one first")
			}
			_, err := a.cfg.Registry.GenerateKey(ctx, by, src, alg)
			return err
		})
	})
	type one struct {
		SigningKeyPath
		ChangeTerms
	}
	change(a, operation{id: "activate-signing-key", method: http.MethodPost, path: "/signing-keys/{source}/{key}/activate", summary: "Have a key sign from now on", roles: officer,
		description: "The key that signed until now stays known to clients until it is retired."},
		func(in *one, st *registry.State) ([]registry.Change, error) {
			hash, err := in.hash(st)
			if err != nil {
				return nil, err
			}
			for _, k := range st.Keys(registry.Source(in.Source)) {
				if k.Hash() == hash && k.Active {
					return nil, nil
				}
			}
			return []registry.Change{&registry.ActivateKey{Source: registry.Source(in.Source), Key: hash}}, nil
		})
	change(a, operation{id: "retire-signing-key", method: http.MethodDelete, path: "/signing-keys/{source}/{key}", summary: "Make a key that does not sign unknown, and delete it", roles: officer},
		func(in *one, st *registry.State) ([]registry.Change, error) {
			hash, err := in.hash(st)
			return []registry.Change{&registry.RetireKey{Source: registry.Source(in.Source), Key: hash}}, err
		})

	anchor := operation{id: "download-configuration-anchor", method: http.MethodGet, path: "/configuration-anchors/{source}", summary: "Download the configuration anchor", roles: Roles(),
		description: "internal: for own security servers; external: for federation partners."}.huma(a)
	anchor.Responses["200"] = &huma.Response{Description: "The anchor file", Content: map[string]*huma.MediaType{"text/xml": {}}}
	huma.Register(a.api, anchor, func(_ context.Context, in *struct {
		Source string `path:"source" enum:"internal,external"`
	}) (*anchorFile, error) {
		st := a.cfg.Registry.State()
		b, err := st.Anchor(registry.Source(in.Source))
		if err != nil {
			return nil, a.problem(err)
		}
		return &anchorFile{"text/xml; charset=utf-8", `attachment; filename="configuration-anchor-` + in.Source + `.xml"`, globalconf.Fingerprint(b), etag(st.Number()), b}, nil
	})
}

type anchorFile struct {
	Type        string `header:"Content-Type"`
	Disposition string `header:"Content-Disposition"`
	Fingerprint string `header:"X-Anchor-SHA224" doc:"For comparison by another way"`
	ETag        string `header:"ETag"`
	Body        []byte
}

// outside makes a change of what is not in the journal, and records it.
func (a *API) outside(ctx context.Context, what string, do func() error) error {
	c := callOf(ctx)
	a.mu.Lock()
	defer a.mu.Unlock()
	c.record.What = []string{what}
	if err := a.cfg.Audit.Usable(); err != nil {
		return a.refused(c, auditUnusable())
	}
	if err := do(); err != nil {
		return a.refused(c, a.keyProblem(err))
	}
	c.record.Outcome, c.record.Status = guard.Done, c.status
	if err := a.audit(c); err != nil {
		return guard.NewProblem(http.StatusInternalServerError, guard.CodeInternal, "the change was made but could not be written to the audit log", "free its disk, then restart the registry")
	}
	return nil
}

func (a *API) keyProblem(err error) *guard.Problem {
	switch {
	case errors.Is(err, guard.ErrKeyExists):
		return guard.NewProblem(http.StatusConflict, guard.CodeExists, err.Error(), "choose another name, or delete that key first")
	case errors.Is(err, guard.ErrKeyUnknown):
		return guard.NewProblem(http.StatusNotFound, guard.CodeUnknown, err.Error(), "")
	case errors.Is(err, guard.ErrLastKey):
		return guard.NewProblem(http.StatusConflict, guard.CodeInUse, err.Error(), "add another key with the role "+SystemAdministrator+" first")
	case errors.Is(err, guard.ErrKeyInvalid):
		return guard.NewProblem(http.StatusUnprocessableEntity, guard.CodeInvalid, err.Error(), "")
	}
	return a.problem(err)
}

func apiKeyOf(k guard.Key) APIKey { return APIKey{k.Name, k.Roles, k.Created} }

func (a *API) registerAPIKeys() {
	administrator := []string{SystemAdministrator}
	read(a, operation{id: "list-api-keys", path: "/api-keys", summary: "List API keys and their roles", roles: administrator},
		func(*struct{}, *registry.State) (APIKeys, error) {
			out := APIKeys{[]APIKey{}}
			for _, k := range a.cfg.Keys.List() {
				out.Keys = append(out.Keys, apiKeyOf(k))
			}
			return out, nil
		})
	type add struct {
		Why  string `query:"why" maxLength:"2000" doc:"The reason, for the audit log"`
		Body NewAPIKey
	}
	type made struct{ Body MadeAPIKey }
	huma.Register(a.api, operation{id: "add-api-key", method: http.MethodPost, path: "/api-keys", summary: "Make an API key", status: http.StatusCreated, roles: administrator,
		description: "The key itself is in the answer and nowhere else. An Idempotency-Key has no effect: the name is one."}.huma(a),
		func(ctx context.Context, in *add) (*made, error) {
			out := new(made)
			c := callOf(ctx)
			err := a.outside(ctx, fmt.Sprintf("add API key %s with roles %s", in.Body.Name, strings.Join(in.Body.Roles, ", ")), func() error {
				for _, r := range in.Body.Roles {
					if !slices.Contains(c.key.Roles, r) {
						return guard.NewProblem(http.StatusForbidden, guard.CodeRoleNeeded, "the caller's key does not have the role "+r, "roles are given by those who have them")
					}
				}
				secret, err := a.cfg.Keys.Add(in.Body.Name, in.Body.Roles, a.cfg.Now())
				out.Body.Secret = secret
				return err
			})
			if err != nil {
				return nil, err
			}
			for _, k := range a.cfg.Keys.List() {
				if k.Name == in.Body.Name {
					out.Body.APIKey = apiKeyOf(k)
				}
			}
			return out, nil
		})
	type remove struct {
		Name string `path:"name"`
		Why  string `query:"why" maxLength:"2000" doc:"The reason, for the audit log"`
	}
	huma.Register(a.api, operation{id: "delete-api-key", method: http.MethodDelete, path: "/api-keys/{name}", summary: "Make an API key invalid", status: http.StatusNoContent, roles: administrator}.huma(a),
		func(ctx context.Context, in *remove) (*struct{}, error) {
			err := a.outside(ctx, "delete API key "+in.Name, func() error { return a.cfg.Keys.Delete(in.Name, SystemAdministrator) })
			return nil, err
		})
}
