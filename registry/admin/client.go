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

	"kontor/registry/guard"
	"kontor/registry/id"
)

// Client calls the administration API of a registry. Errors of calls that were
// refused are *guard.Problem. Changes are made once even if the connection
// breaks: they are repeated with the same idempotency key.
type Client struct{ api *guard.Client }

// NewClient returns a client for the API at url, such as
// https://127.0.0.1:4000. The server must present exactly the certificate pin.
func NewClient(url, key string, pin *x509.Certificate) *Client {
	return &Client{guard.NewClient(url, key, "registry", pin)}
}

// path joins segments, each escaped, behind a constant beginning.
func path(segments ...string) string {
	var b strings.Builder
	b.WriteString(base)
	for _, s := range segments {
		b.WriteString("/" + url.PathEscape(s))
	}
	return b.String()
}

func memberPath(m id.Member, more ...string) string {
	return path(append([]string{"members", m.Class(), m.Code()}, more...)...)
}

func subsystemPath(c id.Client) string { return memberPath(c.Member(), "subsystems", c.Subsystem()) }

func serverPath(s id.SecurityServer, more ...string) string {
	return path(append([]string{"security-servers", s.Owner().Class(), s.Owner().Code(), s.Code()}, more...)...)
}

// fetch reads something, with its ETag.
func fetch[T any](ctx context.Context, c *Client, path string, query url.Values) (out T, etag string, err error) {
	header, err := c.api.Decode(ctx, guard.Request{Method: http.MethodGet, Path: path, Query: query}, &out)
	return out, header.Get("ETag"), err
}

// pages reads a list whose pages add says how to append; it returns how many
// there are of it.
func pages(ctx context.Context, query string, more url.Values, add func(url.Values) (got, total int, err error)) error {
	if more == nil {
		more = url.Values{}
	}
	if query != "" {
		more.Set("q", query)
	}
	more.Set("limit", "10000")
	for offset := 0; ; {
		more.Set("offset", strconv.Itoa(offset))
		got, total, err := add(more)
		offset += got
		if err != nil || got == 0 || offset >= total {
			return err
		}
	}
}

// change makes a change; t may leave out the idempotency key.
func (c *Client) change(ctx context.Context, t ChangeTerms, method, path string, body any) (*Done, error) {
	header := http.Header{}
	if t.IdempotencyKey != "" {
		header.Set("Idempotency-Key", t.IdempotencyKey)
	}
	if t.IfMatch != "" {
		header.Set("If-Match", t.IfMatch)
	}
	out := new(Done)
	_, err := c.api.Decode(ctx, guard.Once(guard.Request{Method: method, Path: path, Query: whyQuery(t.Why), Header: header, Body: body}), out)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// MemberClasses returns all member classes.
func (c *Client) MemberClasses(ctx context.Context) ([]MemberClass, error) {
	out, _, err := fetch[struct {
		MemberClasses []MemberClass `json:"member_classes"`
	}](ctx, c, path("member-classes"), nil)
	return out.MemberClasses, err
}

// MemberClass returns one member class.
func (c *Client) MemberClass(ctx context.Context, code string) (MemberClass, string, error) {
	return fetch[MemberClass](ctx, c, path("member-classes", code), nil)
}

// AddMemberClass adds a member class.
func (c *Client) AddMemberClass(ctx context.Context, t ChangeTerms, m MemberClass) (*Done, error) {
	return c.change(ctx, t, http.MethodPost, path("member-classes"), m)
}

// ChangeMemberClass changes the description of a member class.
func (c *Client) ChangeMemberClass(ctx context.Context, t ChangeTerms, code, description string) (*Done, error) {
	return c.change(ctx, t, http.MethodPatch, path("member-classes", code), Description{description})
}

// DeleteMemberClass deletes a member class.
func (c *Client) DeleteMemberClass(ctx context.Context, t ChangeTerms, code string) (*Done, error) {
	return c.change(ctx, t, http.MethodDelete, path("member-classes", code), nil)
}

// Members returns the members, of a class if it is not empty, that have query
// in their identifier or name.
func (c *Client) Members(ctx context.Context, class, query string) ([]Member, error) {
	all, more := []Member{}, url.Values{}
	if class != "" {
		more.Set("class", class)
	}
	err := pages(ctx, query, more, func(v url.Values) (int, int, error) {
		out, _, err := fetch[Members](ctx, c, path("members"), v)
		all = append(all, out.Members...)
		return len(out.Members), out.Total, err
	})
	return all, err
}

// Member returns one member, and the ETag of what was seen.
func (c *Client) Member(ctx context.Context, m id.Member) (Member, string, error) {
	return fetch[Member](ctx, c, memberPath(m), nil)
}

// AddMember admits a member.
func (c *Client) AddMember(ctx context.Context, t ChangeTerms, m id.Member, name string) (*Done, error) {
	return c.change(ctx, t, http.MethodPost, path("members"), NewMember{m.Class(), m.Code(), name})
}

// RenameMember changes a member's name.
func (c *Client) RenameMember(ctx context.Context, t ChangeTerms, m id.Member, name string) (*Done, error) {
	return c.change(ctx, t, http.MethodPatch, memberPath(m), Name{name})
}

// DeleteMember deletes a member.
func (c *Client) DeleteMember(ctx context.Context, t ChangeTerms, m id.Member) (*Done, error) {
	return c.change(ctx, t, http.MethodDelete, memberPath(m), nil)
}

// Subsystems returns the subsystems that have query in their identifier or name.
func (c *Client) Subsystems(ctx context.Context, query string) ([]Subsystem, error) {
	all := []Subsystem{}
	err := pages(ctx, query, nil, func(v url.Values) (int, int, error) {
		out, _, err := fetch[Subsystems](ctx, c, path("subsystems"), v)
		all = append(all, out.Subsystems...)
		return len(out.Subsystems), out.Total, err
	})
	return all, err
}

// Subsystem returns one subsystem, and the ETag of what was seen.
func (c *Client) Subsystem(ctx context.Context, s id.Client) (Subsystem, string, error) {
	return fetch[Subsystem](ctx, c, subsystemPath(s), nil)
}

// AddSubsystem adds a subsystem to a member.
func (c *Client) AddSubsystem(ctx context.Context, t ChangeTerms, s id.Client, name string) (*Done, error) {
	return c.change(ctx, t, http.MethodPost, memberPath(s.Member(), "subsystems"), NewSubsystem{s.Subsystem(), name})
}

// RenameSubsystem changes a subsystem's name.
func (c *Client) RenameSubsystem(ctx context.Context, t ChangeTerms, s id.Client, name string) (*Done, error) {
	return c.change(ctx, t, http.MethodPatch, subsystemPath(s), Name{name})
}

// DeleteSubsystem deletes a subsystem.
func (c *Client) DeleteSubsystem(ctx context.Context, t ChangeTerms, s id.Client) (*Done, error) {
	return c.change(ctx, t, http.MethodDelete, subsystemPath(s), nil)
}

// Servers returns the security servers that have query in their identifier or address.
func (c *Client) Servers(ctx context.Context, query string) ([]Server, error) {
	all := []Server{}
	err := pages(ctx, query, nil, func(v url.Values) (int, int, error) {
		out, _, err := fetch[Servers](ctx, c, path("security-servers"), v)
		all = append(all, out.Servers...)
		return len(out.Servers), out.Total, err
	})
	return all, err
}

// Server returns one security server, and the ETag of what was seen.
func (c *Client) Server(ctx context.Context, s id.SecurityServer) (Server, string, error) {
	return fetch[Server](ctx, c, serverPath(s), nil)
}

// AddServer adds a security server of a member.
func (c *Client) AddServer(ctx context.Context, t ChangeTerms, s id.SecurityServer, address string) (*Done, error) {
	return c.change(ctx, t, http.MethodPost, path("security-servers"), NewServer{s.Owner().Class(), s.Owner().Code(), s.Code(), address})
}

// MoveServer changes the address of a security server.
func (c *Client) MoveServer(ctx context.Context, t ChangeTerms, s id.SecurityServer, address string) (*Done, error) {
	return c.change(ctx, t, http.MethodPatch, serverPath(s), Address{address})
}

// DeleteServer deletes a security server with its certificates and registrations.
func (c *Client) DeleteServer(ctx context.Context, t ChangeTerms, s id.SecurityServer) (*Done, error) {
	return c.change(ctx, t, http.MethodDelete, serverPath(s), nil)
}

// BeginMaintenance puts a security server into maintenance.
func (c *Client) BeginMaintenance(ctx context.Context, t ChangeTerms, s id.SecurityServer, message string) (*Done, error) {
	return c.change(ctx, t, http.MethodPut, serverPath(s, "maintenance"), Maintenance{message})
}

// EndMaintenance takes a security server out of maintenance.
func (c *Client) EndMaintenance(ctx context.Context, t ChangeTerms, s id.SecurityServer) (*Done, error) {
	return c.change(ctx, t, http.MethodDelete, serverPath(s, "maintenance"), nil)
}

// AddCertificate registers an authentication certificate, in PEM.
func (c *Client) AddCertificate(ctx context.Context, t ChangeTerms, s id.SecurityServer, pem string) (*Done, error) {
	return c.change(ctx, t, http.MethodPost, serverPath(s, "certificates"), CertificateBody{pem})
}

// DeleteCertificate removes the authentication certificate with a hash.
func (c *Client) DeleteCertificate(ctx context.Context, t ChangeTerms, s id.SecurityServer, sha256 string) (*Done, error) {
	return c.change(ctx, t, http.MethodDelete, serverPath(s, "certificates", sha256), nil)
}

// AddClient registers a client at a security server.
func (c *Client) AddClient(ctx context.Context, t ChangeTerms, s id.SecurityServer, client id.Client) (*Done, error) {
	return c.change(ctx, t, http.MethodPost, serverPath(s, "clients"), ClientBody{client})
}

// EnableClient enables or disables a client at a security server.
func (c *Client) EnableClient(ctx context.Context, t ChangeTerms, s id.SecurityServer, client id.Client, on bool) (*Done, error) {
	return c.change(ctx, t, http.MethodPatch, serverPath(s, "clients", client.String()), Enabled{on})
}

// DeleteClient removes a client from a security server.
func (c *Client) DeleteClient(ctx context.Context, t ChangeTerms, s id.SecurityServer, client id.Client) (*Done, error) {
	return c.change(ctx, t, http.MethodDelete, serverPath(s, "clients", client.String()), nil)
}

// Groups returns all global groups.
func (c *Client) Groups(ctx context.Context) ([]Group, error) {
	out, _, err := fetch[Groups](ctx, c, path("global-groups"), nil)
	return out.Groups, err
}

// Group returns one global group, and the ETag of what was seen.
func (c *Client) Group(ctx context.Context, code string) (Group, string, error) {
	return fetch[Group](ctx, c, path("global-groups", code), nil)
}

// AddGroup adds a global group.
func (c *Client) AddGroup(ctx context.Context, t ChangeTerms, code, description string) (*Done, error) {
	return c.change(ctx, t, http.MethodPost, path("global-groups"), NewGroup{code, description})
}

// ChangeGroup changes the description of a global group.
func (c *Client) ChangeGroup(ctx context.Context, t ChangeTerms, code, description string) (*Done, error) {
	return c.change(ctx, t, http.MethodPatch, path("global-groups", code), Description{description})
}

// DeleteGroup deletes a global group.
func (c *Client) DeleteGroup(ctx context.Context, t ChangeTerms, code string) (*Done, error) {
	return c.change(ctx, t, http.MethodDelete, path("global-groups", code), nil)
}

// AddGroupMember puts a client into a global group.
func (c *Client) AddGroupMember(ctx context.Context, t ChangeTerms, code string, client id.Client) (*Done, error) {
	return c.change(ctx, t, http.MethodPost, path("global-groups", code, "members"), ClientBody{client})
}

// DeleteGroupMember takes a client out of a global group.
func (c *Client) DeleteGroupMember(ctx context.Context, t ChangeTerms, code string, client id.Client) (*Done, error) {
	return c.change(ctx, t, http.MethodDelete, path("global-groups", code, "members", client.String()), nil)
}

// CAs returns all approved certification services.
func (c *Client) CAs(ctx context.Context) ([]CA, error) {
	out, _, err := fetch[CAs](ctx, c, path("certification-services"), nil)
	return out.CAs, err
}

// CA returns one certification service, and the ETag of what was seen.
func (c *Client) CA(ctx context.Context, name string) (CA, string, error) {
	return fetch[CA](ctx, c, path("certification-services", name), nil)
}

// AddCA approves a certification service.
func (c *Client) AddCA(ctx context.Context, t ChangeTerms, ca NewCA) (*Done, error) {
	return c.change(ctx, t, http.MethodPost, path("certification-services"), ca)
}

// ChangeCA changes a certification service.
func (c *Client) ChangeCA(ctx context.Context, t ChangeTerms, name string, to CAChange) (*Done, error) {
	return c.change(ctx, t, http.MethodPatch, path("certification-services", name), to)
}

// DeleteCA withdraws the approval of a certification service.
func (c *Client) DeleteCA(ctx context.Context, t ChangeTerms, name string) (*Done, error) {
	return c.change(ctx, t, http.MethodDelete, path("certification-services", name), nil)
}

// AddIntermediate adds an intermediate authority to a certification service.
func (c *Client) AddIntermediate(ctx context.Context, t ChangeTerms, name string, i NewIntermediate) (*Done, error) {
	return c.change(ctx, t, http.MethodPost, path("certification-services", name, "intermediates"), i)
}

// DeleteIntermediate removes the intermediate authority whose certificate has a hash.
func (c *Client) DeleteIntermediate(ctx context.Context, t ChangeTerms, name, sha256 string) (*Done, error) {
	return c.change(ctx, t, http.MethodDelete, path("certification-services", name, "intermediates", sha256), nil)
}

// AddResponder adds an OCSP responder to the authority whose certificate has a hash.
func (c *Client) AddResponder(ctx context.Context, t ChangeTerms, name, sha256 string, r NewResponder) (*Done, error) {
	return c.change(ctx, t, http.MethodPost, path("certification-services", name, "authorities", sha256, "ocsp-responders"), r)
}

// DeleteResponder removes an OCSP responder of an authority.
func (c *Client) DeleteResponder(ctx context.Context, t ChangeTerms, name, sha256, url string) (*Done, error) {
	return c.change(ctx, t, http.MethodDelete, path("certification-services", name, "authorities", sha256, "ocsp-responders", url), nil)
}

// TSAs returns all approved time-stamping authorities.
func (c *Client) TSAs(ctx context.Context) ([]TSA, error) {
	out, _, err := fetch[TSAs](ctx, c, path("timestamping-services"), nil)
	return out.TSAs, err
}

// TSA returns one time-stamping authority, and the ETag of what was seen.
func (c *Client) TSA(ctx context.Context, name string) (TSA, string, error) {
	return fetch[TSA](ctx, c, path("timestamping-services", name), nil)
}

// AddTSA approves a time-stamping authority.
func (c *Client) AddTSA(ctx context.Context, t ChangeTerms, tsa NewTSA) (*Done, error) {
	return c.change(ctx, t, http.MethodPost, path("timestamping-services"), tsa)
}

// ChangeTSA changes a time-stamping authority.
func (c *Client) ChangeTSA(ctx context.Context, t ChangeTerms, name string, to TSAChange) (*Done, error) {
	return c.change(ctx, t, http.MethodPatch, path("timestamping-services", name), to)
}

// DeleteTSA withdraws the approval of a time-stamping authority.
func (c *Client) DeleteTSA(ctx context.Context, t ChangeTerms, name string) (*Done, error) {
	return c.change(ctx, t, http.MethodDelete, path("timestamping-services", name), nil)
}

// TrustedAnchors returns the anchors of federation partners.
func (c *Client) TrustedAnchors(ctx context.Context) ([]TrustedAnchor, error) {
	out, _, err := fetch[TrustedAnchors](ctx, c, path("trusted-anchors"), nil)
	return out.Anchors, err
}

// TrustedAnchor returns the anchor of one partner, and the ETag of what was seen.
func (c *Client) TrustedAnchor(ctx context.Context, instance string) (TrustedAnchor, string, error) {
	return fetch[TrustedAnchor](ctx, c, path("trusted-anchors", instance), nil)
}

// TrustAnchor trusts a federation partner by its anchor file.
func (c *Client) TrustAnchor(ctx context.Context, t ChangeTerms, anchor []byte) (*Done, error) {
	return c.change(ctx, t, http.MethodPost, path("trusted-anchors"), AnchorBody{string(anchor)})
}

// DistrustAnchor ends the federation with an instance.
func (c *Client) DistrustAnchor(ctx context.Context, t ChangeTerms, instance string) (*Done, error) {
	return c.change(ctx, t, http.MethodDelete, path("trusted-anchors", instance), nil)
}

// Anchor downloads the configuration anchor of a source, internal or external.
func (c *Client) Anchor(ctx context.Context, source string) ([]byte, error) {
	resp, err := c.api.Do(ctx, guard.Request{Method: http.MethodGet, Path: path("configuration-anchors", source)})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(io.LimitReader(resp.Body, 1<<20))
}

// Parameters returns the system parameters, and the ETag of what was seen.
func (c *Client) Parameters(ctx context.Context) (Parameters, string, error) {
	return fetch[Parameters](ctx, c, path("system-parameters"), nil)
}

// ChangeParameters changes system parameters.
func (c *Client) ChangeParameters(ctx context.Context, t ChangeTerms, to ParameterChange) (*Done, error) {
	return c.change(ctx, t, http.MethodPatch, path("system-parameters"), to)
}

// Management tells who offers the management services, with the ETag of what was seen.
func (c *Client) Management(ctx context.Context) (Management, string, error) {
	return fetch[Management](ctx, c, path("management-services"), nil)
}

// ChangeManagement changes who offers the management services.
func (c *Client) ChangeManagement(ctx context.Context, t ChangeTerms, to ManagementChange) (*Done, error) {
	return c.change(ctx, t, http.MethodPatch, path("management-services"), to)
}

// Monitoring tells the central monitoring client, with the ETag of what was seen.
func (c *Client) Monitoring(ctx context.Context) (Monitoring, string, error) {
	return fetch[Monitoring](ctx, c, path("monitoring-client"), nil)
}

// ChangeMonitoring names the central monitoring client; the zero value is none.
func (c *Client) ChangeMonitoring(ctx context.Context, t ChangeTerms, client id.Client) (*Done, error) {
	if client.IsZero() {
		return c.change(ctx, t, http.MethodDelete, path("monitoring-client"), nil)
	}
	return c.change(ctx, t, http.MethodPut, path("monitoring-client"), ClientBody{client})
}

// SigningKeys returns the keys that sign the configuration.
func (c *Client) SigningKeys(ctx context.Context) ([]SigningKey, error) {
	out, _, err := fetch[SigningKeys](ctx, c, path("signing-keys"), nil)
	return out.Keys, err
}

// GenerateSigningKey makes a signing key.
func (c *Client) GenerateSigningKey(ctx context.Context, t ChangeTerms, key NewSigningKey) (*Done, error) {
	return c.change(ctx, t, http.MethodPost, path("signing-keys"), key)
}

// ActivateSigningKey has a key sign from now on.
func (c *Client) ActivateSigningKey(ctx context.Context, t ChangeTerms, source, key string) (*Done, error) {
	return c.change(ctx, t, http.MethodPost, path("signing-keys", source, key, "activate"), nil)
}

// RetireSigningKey makes a key unknown and deletes it.
func (c *Client) RetireSigningKey(ctx context.Context, t ChangeTerms, source, key string) (*Done, error) {
	return c.change(ctx, t, http.MethodDelete, path("signing-keys", source, key), nil)
}

// Journal returns a page of the journal. From 0 is the beginning or, with
// newest, the end.
func (c *Client) Journal(ctx context.Context, from uint64, limit int, newest bool) (Journal, error) {
	v := url.Values{"from": {strconv.FormatUint(from, 10)}, "limit": {strconv.Itoa(limit)}, "newest": {strconv.FormatBool(newest)}}
	out, _, err := fetch[Journal](ctx, c, path("journal"), v)
	return out, err
}

// Status returns the condition of the registry.
func (c *Client) Status(ctx context.Context) (Status, error) {
	out, _, err := fetch[Status](ctx, c, path("status"), nil)
	return out, err
}

// Plan tells what applying a declaration would change, and the ETag with which
// exactly that can be applied.
func (c *Client) Plan(ctx context.Context, d Declaration) (Done, string, error) {
	var out Done
	header, err := c.api.Decode(ctx, guard.Request{Method: http.MethodPost, Path: path("declarations", "plan"), Body: d}, &out)
	return out, header.Get("ETag"), err
}

// Apply makes a declaration true.
func (c *Client) Apply(ctx context.Context, t ChangeTerms, d Declaration) (*Done, error) {
	return c.change(ctx, t, http.MethodPost, path("declarations", "apply"), d)
}

// APIKeys returns the API keys without the keys themselves.
func (c *Client) APIKeys(ctx context.Context) ([]APIKey, error) {
	out, _, err := fetch[APIKeys](ctx, c, path("api-keys"), nil)
	return out.Keys, err
}

// AddAPIKey makes an API key; the key itself is in the answer only.
func (c *Client) AddAPIKey(ctx context.Context, why string, key NewAPIKey) (MadeAPIKey, error) {
	var out MadeAPIKey
	_, err := c.api.Decode(ctx, guard.Request{Method: http.MethodPost, Path: path("api-keys"), Query: whyQuery(why), Body: key}, &out)
	return out, err
}

// DeleteAPIKey makes an API key invalid.
func (c *Client) DeleteAPIKey(ctx context.Context, why, name string) error {
	resp, err := c.api.Do(ctx, guard.Request{Method: http.MethodDelete, Path: path("api-keys", name), Query: whyQuery(why)})
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

func whyQuery(why string) url.Values {
	if why == "" {
		return nil
	}
	return url.Values{"why": {why}}
}
