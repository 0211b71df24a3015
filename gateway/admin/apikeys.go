// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"kontor/registry/guard"
)

// APIKey is an API key without the key itself.
type APIKey struct {
	Name    string    `json:"name"`
	Roles   []string  `json:"roles"`
	Created time.Time `json:"created,omitzero"`
}

// NewAPIKey asks for an API key.
type NewAPIKey struct {
	Name  string   `json:"name" maxLength:"64"`
	Roles []string `json:"roles" minItems:"1"`
}

// CreatedAPIKey is a new API key with the key itself.
type CreatedAPIKey struct {
	APIKey
	Key string `json:"key" doc:"The key; it cannot be shown again"`
}

func (a *API) registerAPIKeys() {
	register(a, operation{id: "list-api-keys", method: http.MethodGet, path: "/api-keys", summary: "List API keys"}, a.listAPIKeys)
	register(a, operation{id: "get-api-key", method: http.MethodGet, path: "/api-keys/{name}", summary: "Show an API key"}, a.getAPIKey)
	register(a, operation{id: "create-api-key", method: http.MethodPost, path: "/api-keys", summary: "Create an API key", status: http.StatusCreated}, a.createAPIKey)
	register(a, operation{id: "delete-api-key", method: http.MethodDelete, path: "/api-keys/{name}", summary: "Delete an API key",
		description: "The last one that may manage API keys stays."}, a.deleteAPIKey)
}

type APIKeyPath struct {
	Name string `path:"name" maxLength:"256"`
}

func (a *API) listAPIKeys(context.Context, *none) (*list[APIKey], error) {
	var all []APIKey
	for _, k := range a.APIKeys.List() {
		all = append(all, APIKey{k.Name, k.Roles, k.Created})
	}
	return answerList(all), nil
}

func (a *API) apiKey(name string) (guard.Key, error) {
	keys := a.APIKeys.List()
	i := slices.IndexFunc(keys, func(k guard.Key) bool { return k.Name == name })
	if i < 0 {
		return guard.Key{}, problem(http.StatusNotFound, guard.CodeUnknown, "list them (kontor gateway apikey list)", "there is no API key %q", name)
	}
	return keys[i], nil
}

func (a *API) getAPIKey(_ context.Context, in *APIKeyPath) (*item[APIKey], error) {
	k, err := a.apiKey(in.Name)
	if err != nil {
		return nil, err
	}
	return answer(etag(k), APIKey{k.Name, k.Roles, k.Created}), nil
}

func (a *API) createAPIKey(ctx context.Context, in *struct{ Body NewAPIKey }) (*item[CreatedAPIKey], error) {
	secret, err := a.APIKeys.Add(in.Body.Name, in.Body.Roles, a.Now())
	switch {
	case errors.Is(err, guard.ErrKeyExists):
		return nil, exists("choose another name, or delete it first", "there is an API key %q already", in.Body.Name)
	case errors.Is(err, guard.ErrKeyInvalid):
		return nil, invalid("choose another name or other roles", "%v", err)
	case err != nil:
		return nil, err
	}
	k, err := a.apiKey(in.Body.Name)
	if err != nil {
		return nil, err
	}
	note(ctx, "create API key %q with roles %v", k.Name, k.Roles)
	return answer(etag(k), CreatedAPIKey{APIKey{k.Name, k.Roles, k.Created}, secret}), nil
}

func (a *API) deleteAPIKey(ctx context.Context, in *struct {
	APIKeyPath
	Seen
}) (*struct{}, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	k, err := a.apiKey(in.Name)
	if err != nil {
		return nil, err
	}
	if err := in.check(etag(k)); err != nil {
		return nil, err
	}
	switch err := a.APIKeys.Delete(in.Name, RoleSystemAdministrator); {
	case errors.Is(err, guard.ErrLastKey):
		return nil, inUse("create another key with the role "+RoleSystemAdministrator+" first", "nobody could manage API keys without %q", in.Name)
	case errors.Is(err, guard.ErrKeyUnknown):
		return nil, unknown("there is no API key %q", in.Name)
	case err != nil:
		return nil, err
	}
	note(ctx, "delete API key %q with roles %v", k.Name, k.Roles)
	return nil, nil
}
