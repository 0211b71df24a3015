// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"crypto/x509"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"kontor/registry/guard"
)

// Client calls the administration API of a gateway. Methods that change or
// delete what exists take the ETag that its getter gave; "*" is any state.
// Refusals are *guard.Problem. Changes are made once even if the connection
// breaks: they are repeated with the same idempotency key.
type Client struct{ api *guard.Client }

// NewClient returns a client for the API at url, such as
// https://127.0.0.1:4000. The server must present exactly the certificate pin:
// the gateway's internal TLS certificate.
func NewClient(url, key string, pin *x509.Certificate) *Client {
	return &Client{guard.NewClient(url, key, "gateway", pin)}
}

// path escapes the parts of a path; identifiers get colons.
func path(parts ...string) string {
	var b strings.Builder
	b.WriteString(prefix)
	for _, p := range parts {
		b.WriteByte('/')
		b.WriteString(url.PathEscape(p))
	}
	return b.String()
}

func ifMatch(etag string) http.Header {
	if etag == "" {
		return nil
	}
	return http.Header{"If-Match": {etag}}
}

func get[T any](ctx context.Context, c *Client, path string, query url.Values) (out T, etag string, err error) {
	return send[T](ctx, c, guard.Request{Method: http.MethodGet, Path: path, Query: query})
}

func getAll[T any](ctx context.Context, c *Client, path string, query url.Values) ([]T, error) {
	out, _, err := get[struct {
		Items []T `json:"items"`
	}](ctx, c, path, query)
	return out.Items, err
}

func send[T any](ctx context.Context, c *Client, r guard.Request) (out T, etag string, err error) {
	if r.Method != http.MethodGet {
		r = guard.Once(r)
	}
	h, err := c.api.Decode(ctx, r, &out)
	return out, h.Get("ETag"), err
}

func post[T any](ctx context.Context, c *Client, path, etag string, body any) (T, error) {
	out, _, err := send[T](ctx, c, guard.Request{Method: http.MethodPost, Path: path, Header: ifMatch(etag), Body: body})
	return out, err
}

func patch[T any](ctx context.Context, c *Client, path, etag string, body any) (T, error) {
	out, _, err := send[T](ctx, c, guard.Request{Method: http.MethodPatch, Path: path, Header: ifMatch(etag), Body: body})
	return out, err
}

// bare makes a change whose answer has no body.
func (c *Client) bare(ctx context.Context, r guard.Request) error {
	resp, err := c.api.Do(ctx, guard.Once(r))
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

func (c *Client) remove(ctx context.Context, path, etag string) error {
	return c.bare(ctx, guard.Request{Method: http.MethodDelete, Path: path, Header: ifMatch(etag)})
}

// Status tells how the gateway fares.
func (c *Client) Status(ctx context.Context) (Status, error) {
	s, _, err := get[Status](ctx, c, path("status"), nil)
	return s, err
}

// Keys returns the keys of the gateway.
func (c *Client) Keys(ctx context.Context) ([]Key, error) {
	return getAll[Key](ctx, c, path("keys"), nil)
}

// Key returns a key.
func (c *Client) Key(ctx context.Context, id string) (Key, string, error) {
	return get[Key](ctx, c, path("keys", id), nil)
}

// GenerateKey makes a key.
func (c *Client) GenerateKey(ctx context.Context, k NewKey) (Key, error) {
	return post[Key](ctx, c, path("keys"), "", k)
}

// DeleteKey deletes a key and its certificates.
func (c *Client) DeleteKey(ctx context.Context, id, etag string) error {
	return c.remove(ctx, path("keys", id), etag)
}

// RequestCertificate makes a certificate request for a key.
func (c *Client) RequestCertificate(ctx context.Context, key string, r NewRequest) (Request, error) {
	return post[Request](ctx, c, path("keys", key, "requests"), "", r)
}

// Authorities returns the approved certification authorities.
func (c *Client) Authorities(ctx context.Context) ([]Authority, error) {
	return getAll[Authority](ctx, c, path("authorities"), nil)
}

// ChangePIN changes the PIN of the token.
func (c *Client) ChangePIN(ctx context.Context, p PINChange) error {
	return c.bare(ctx, guard.Request{Method: http.MethodPost, Path: path("token", "pin"), Body: p})
}

// Certificate returns a certificate of the token by its hash or the unique
// beginning of it.
func (c *Client) Certificate(ctx context.Context, hash string) (Certificate, string, error) {
	return get[Certificate](ctx, c, path("certificates", hash), nil)
}

// ImportCertificate gives a certificate to its key.
func (c *Client) ImportCertificate(ctx context.Context, n NewCertificate) (Certificate, error) {
	return post[Certificate](ctx, c, path("certificates"), "", n)
}

// RegisterCertificate has the registry register an authentication certificate;
// the ETag may be empty. Until the outcome is final, the same request is asked
// for again.
func (c *Client) RegisterCertificate(ctx context.Context, hash, etag string, n NewRegistration) (Registration, error) {
	return post[Registration](ctx, c, path("certificates", hash, "register"), etag, n)
}

// UnregisterCertificate has the registry remove an authentication certificate.
func (c *Client) UnregisterCertificate(ctx context.Context, hash, etag string, n Unregistration) (Registration, error) {
	return post[Registration](ctx, c, path("certificates", hash, "unregister"), etag, n)
}

// RegisterClient has the registry register a client. Until the outcome is
// final, the same request is asked for again.
func (c *Client) RegisterClient(ctx context.Context, client, etag string, n ClientName) (ClientRequest, error) {
	return post[ClientRequest](ctx, c, path("clients", client, "register"), etag, n)
}

// RenameClient has the registry give a subsystem another name.
func (c *Client) RenameClient(ctx context.Context, client, etag string, n ClientName) (ClientRequest, error) {
	return post[ClientRequest](ctx, c, path("clients", client, "rename"), etag, n)
}

// UnregisterClient has the registry remove a client from this security server.
func (c *Client) UnregisterClient(ctx context.Context, client, etag string) (ClientRequest, error) {
	return post[ClientRequest](ctx, c, path("clients", client, "unregister"), etag, nil)
}

// DisableClient has the registry list a client no more until it is enabled.
func (c *Client) DisableClient(ctx context.Context, client, etag string) (ClientRequest, error) {
	return post[ClientRequest](ctx, c, path("clients", client, "disable"), etag, nil)
}

// EnableClient has the registry list a disabled client again.
func (c *Client) EnableClient(ctx context.Context, client, etag string) (ClientRequest, error) {
	return post[ClientRequest](ctx, c, path("clients", client, "enable"), etag, nil)
}

// ChangeAddress has the registry publish another address of the gateway.
func (c *Client) ChangeAddress(ctx context.Context, n NewAddress) (ServerRequest, error) {
	return post[ServerRequest](ctx, c, path("server", "address"), "", n)
}

// SetMaintenance has the registry publish whether the gateway is in maintenance.
func (c *Client) SetMaintenance(ctx context.Context, n Maintenance) (ServerRequest, error) {
	return post[ServerRequest](ctx, c, path("server", "maintenance"), "", n)
}

// ActivateCertificate activates a certificate; the ETag may be empty.
func (c *Client) ActivateCertificate(ctx context.Context, hash, etag string) (Certificate, error) {
	return post[Certificate](ctx, c, path("certificates", hash, "activate"), etag, nil)
}

// DeactivateCertificate deactivates a certificate; the ETag may be empty.
func (c *Client) DeactivateCertificate(ctx context.Context, hash, etag string) (Certificate, error) {
	return post[Certificate](ctx, c, path("certificates", hash, "deactivate"), etag, nil)
}

// DeleteCertificate deletes a certificate, not its key.
func (c *Client) DeleteCertificate(ctx context.Context, hash, etag string) error {
	return c.remove(ctx, path("certificates", hash), etag)
}

// Clients returns the clients of the gateway.
func (c *Client) Clients(ctx context.Context) ([]LocalClient, error) {
	return getAll[LocalClient](ctx, c, path("clients"), nil)
}

// Client returns a client of the gateway.
func (c *Client) Client(ctx context.Context, client string) (LocalClient, string, error) {
	return get[LocalClient](ctx, c, path("clients", client), nil)
}

// AddClient adds a client.
func (c *Client) AddClient(ctx context.Context, n NewClientEntry) (LocalClient, error) {
	return post[LocalClient](ctx, c, path("clients"), "", n)
}

// ChangeClient changes how a client connects.
func (c *Client) ChangeClient(ctx context.Context, client, etag string, n ClientChange) (LocalClient, error) {
	return patch[LocalClient](ctx, c, path("clients", client), etag, n)
}

// DeleteClient deletes a client.
func (c *Client) DeleteClient(ctx context.Context, client, etag string) error {
	return c.remove(ctx, path("clients", client), etag)
}

// AddClientCertificate adds a certificate of a client's information systems;
// the ETag may be empty.
func (c *Client) AddClientCertificate(ctx context.Context, client, etag string, n NewISCertificate) (LocalClient, error) {
	return post[LocalClient](ctx, c, path("clients", client, "certificates"), etag, n)
}

// DeleteClientCertificate deletes a certificate of a client's information systems.
func (c *Client) DeleteClientCertificate(ctx context.Context, client, hash, etag string) error {
	return c.remove(ctx, path("clients", client, "certificates", hash), etag)
}

// Groups returns the local groups of a client.
func (c *Client) Groups(ctx context.Context, client string) ([]Group, error) {
	return getAll[Group](ctx, c, path("clients", client, "groups"), nil)
}

// Group returns a local group.
func (c *Client) Group(ctx context.Context, client, code string) (Group, string, error) {
	return get[Group](ctx, c, path("clients", client, "groups", code), nil)
}

// AddGroup adds a local group.
func (c *Client) AddGroup(ctx context.Context, client string, n NewGroup) (Group, error) {
	return post[Group](ctx, c, path("clients", client, "groups"), "", n)
}

// DeleteGroup deletes a local group.
func (c *Client) DeleteGroup(ctx context.Context, client, code, etag string) error {
	return c.remove(ctx, path("clients", client, "groups", code), etag)
}

// AddGroupMembers adds clients to a local group; the ETag may be empty.
func (c *Client) AddGroupMembers(ctx context.Context, client, code, etag string, m Members) (Group, error) {
	return post[Group](ctx, c, path("clients", client, "groups", code, "members"), etag, m)
}

// DeleteGroupMember takes a client from a local group.
func (c *Client) DeleteGroupMember(ctx context.Context, client, code, member, etag string) error {
	return c.remove(ctx, path("clients", client, "groups", code, "members", member), etag)
}

// Services returns the services of a client, or of all if it is empty.
func (c *Client) Services(ctx context.Context, client string) ([]Service, error) {
	return getAll[Service](ctx, c, path("services"), values("client", client))
}

// Service returns a service by its code, or code/version.
func (c *Client) Service(ctx context.Context, client, name string) (Service, string, error) {
	return get[Service](ctx, c, path("clients", client, "services", name), nil)
}

// ChangeService changes a service.
func (c *Client) ChangeService(ctx context.Context, client, name, etag string, n ServiceChange) (Service, error) {
	return patch[Service](ctx, c, path("clients", client, "services", name), etag, n)
}

// AddEndpoint adds an endpoint to a REST service.
func (c *Client) AddEndpoint(ctx context.Context, client, name string, e Endpoint) (Service, error) {
	return post[Service](ctx, c, path("clients", client, "services", name, "endpoints"), "", e)
}

// DeleteEndpoint deletes an endpoint that was added with AddEndpoint.
func (c *Client) DeleteEndpoint(ctx context.Context, client, name, etag string, e Endpoint) error {
	return c.bare(ctx, guard.Request{Method: http.MethodDelete, Path: path("clients", client, "services", name, "endpoints"),
		Query: values("method", e.Method, "path", e.Path), Header: ifMatch(etag)})
}

// Descriptions returns the service descriptions of a client, or of all if it is
// empty.
func (c *Client) Descriptions(ctx context.Context, client string) ([]Description, error) {
	return getAll[Description](ctx, c, path("descriptions"), values("client", client))
}

// Description returns a service description.
func (c *Client) Description(ctx context.Context, client, description string) (Description, string, error) {
	return get[Description](ctx, c, path("clients", client, "descriptions", description), nil)
}

// AddDescription adds services.
func (c *Client) AddDescription(ctx context.Context, client string, n NewDescription) (Description, error) {
	return post[Description](ctx, c, path("clients", client, "descriptions"), "", n)
}

// RefreshDescription reads the document of a description again.
func (c *Client) RefreshDescription(ctx context.Context, client, description string, r Refresh) (Differences, error) {
	return post[Differences](ctx, c, path("clients", client, "descriptions", description, "refresh"), "", r)
}

// ChangeDescription enables or disables the services of a description.
func (c *Client) ChangeDescription(ctx context.Context, client, description, etag string, n DescriptionChange) (Description, error) {
	return patch[Description](ctx, c, path("clients", client, "descriptions", description), etag, n)
}

// DeleteDescription deletes services and the rights to them.
func (c *Client) DeleteDescription(ctx context.Context, client, description, etag string) error {
	return c.remove(ctx, path("clients", client, "descriptions", description), etag)
}

// Access returns access rights; empty parameters do not narrow.
func (c *Client) Access(ctx context.Context, client, service, subject string) ([]Right, error) {
	return getAll[Right](ctx, c, path("access"), values("client", client, "service", service, "subject", subject))
}

// Right returns an access right.
func (c *Client) Right(ctx context.Context, client, right string) (Right, string, error) {
	return get[Right](ctx, c, path("clients", client, "access", right), nil)
}

// Grant grants access to a service of a client.
func (c *Client) Grant(ctx context.Context, client string, n NewRight) (Right, error) {
	return post[Right](ctx, c, path("clients", client, "access"), "", n)
}

// ChangeRight changes expiry or note of a right.
func (c *Client) ChangeRight(ctx context.Context, client, right, etag string, n RightChange) (Right, error) {
	return patch[Right](ctx, c, path("clients", client, "access", right), etag, n)
}

// Revoke takes a right away.
func (c *Client) Revoke(ctx context.Context, client, right, etag string) error {
	return c.remove(ctx, path("clients", client, "access", right), etag)
}

// TestAccess explains which right decides a call.
func (c *Client) TestAccess(ctx context.Context, client, service, method, servicePath string) (Explanation, error) {
	x, _, err := get[Explanation](ctx, c, path("access", "test"), values("client", client, "service", service, "method", method, "path", servicePath))
	return x, err
}

// APIKeys returns the API keys.
func (c *Client) APIKeys(ctx context.Context) ([]APIKey, error) {
	return getAll[APIKey](ctx, c, path("api-keys"), nil)
}

// APIKey returns an API key.
func (c *Client) APIKey(ctx context.Context, name string) (APIKey, string, error) {
	return get[APIKey](ctx, c, path("api-keys", name), nil)
}

// CreateAPIKey creates an API key.
func (c *Client) CreateAPIKey(ctx context.Context, n NewAPIKey) (CreatedAPIKey, error) {
	return post[CreatedAPIKey](ctx, c, path("api-keys"), "", n)
}

// DeleteAPIKey deletes an API key.
func (c *Client) DeleteAPIKey(ctx context.Context, name, etag string) error {
	return c.remove(ctx, path("api-keys", name), etag)
}

// Find returns records of the message log.
func (c *Client) Find(ctx context.Context, s Selection) ([]Record, error) {
	out, _, err := get[struct {
		Records []Record `json:"records"`
	}](ctx, c, path("messagelog"), s.values())
	return out.Records, err
}

// Export writes a zip of containers to w.
func (c *Client) Export(ctx context.Context, s Selection, force bool, w io.Writer) error {
	v := s.values()
	v.Set("force", strconv.FormatBool(force))
	resp, err := c.api.Do(ctx, guard.Request{Method: http.MethodGet, Path: path("messagelog", "export"), Query: v})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(w, resp.Body)
	return err
}

// values makes a query of names and values, without the empty ones.
func values(pairs ...string) url.Values {
	v := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			v.Set(pairs[i], pairs[i+1])
		}
	}
	return v
}

func (s Selection) values() url.Values {
	v := values("message_id", s.MessageID, "client", s.Client, "service", s.Service, "side", s.Side, "direction", s.Direction)
	if !s.From.IsZero() {
		v.Set("from", s.From.Format(time.RFC3339Nano))
	}
	if !s.To.IsZero() {
		v.Set("to", s.To.Format(time.RFC3339Nano))
	}
	if s.After > 0 {
		v.Set("after", strconv.FormatUint(s.After, 10))
	}
	if s.Limit > 0 {
		v.Set("limit", strconv.Itoa(s.Limit))
	}
	if s.Newest {
		v.Set("newest", "true")
	}
	return v
}
