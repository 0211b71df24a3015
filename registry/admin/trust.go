// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bytes"
	"crypto/sha256"
	"net/http"
	"slices"

	"kontor/pki"
	"kontor/registry"
	"kontor/registry/globalconf"
)

// CA is an approved certification service.
type CA struct {
	Name               string        `json:"name" example:"Example CA"`
	Profile            string        `json:"profile" doc:"Certificate profile: class name"`
	AuthenticationOnly bool          `json:"authentication_only"`
	CSRFormat          string        `json:"csr_format,omitempty" enum:"DER,PEM"`
	ACME               *ACME         `json:"acme,omitempty"`
	Authorities        []CAAuthority `json:"authorities" doc:"The top authority, then the intermediate ones"`
}

// CAAuthority is one authority of a certification service.
type CAAuthority struct {
	Certificate Certificate   `json:"certificate"`
	Responders  []CAResponder `json:"ocsp_responders"`
}

// CAResponder is an OCSP responder.
type CAResponder struct {
	URL         string       `json:"url"`
	Certificate *Certificate `json:"certificate,omitempty"`
	Cost        string       `json:"cost,omitempty"`
}

// ACME is where certificates of a certification service can be ordered.
type ACME struct {
	DirectoryURL          string `json:"directory_url"`
	IPAddress             string `json:"ip_address,omitempty"`
	AuthenticationProfile string `json:"authentication_profile,omitempty"`
	SigningProfile        string `json:"signing_profile,omitempty"`
}

// NewCA is the body that approves a certification service.
type NewCA struct {
	Name               string         `json:"name" example:"Example CA"`
	Profile            string         `json:"profile" example:"FiVRK" doc:"Certificate profile: class name, full or short"`
	Certificate        string         `json:"certificate" doc:"Of the top authority: PEM, or base64 of DER"`
	Responders         []NewResponder `json:"ocsp_responders,omitempty" maxItems:"50"`
	AuthenticationOnly bool           `json:"authentication_only,omitempty"`
	CSRFormat          string         `json:"csr_format,omitempty" enum:"DER,PEM,"`
	ACME               *ACME          `json:"acme,omitempty"`
}

// NewResponder is the body that adds an OCSP responder.
type NewResponder struct {
	URL         string `json:"url" example:"http://ocsp.example.org"`
	Certificate string `json:"certificate,omitempty" doc:"PEM, or base64 of DER; absent if the authority itself or a certificate that it issued signs"`
	Cost        string `json:"cost,omitempty" enum:"FREE,PAID,UNDEFINED,"`
}

// NewIntermediate is the body that adds an intermediate authority.
type NewIntermediate struct {
	Certificate string         `json:"certificate" doc:"PEM, or base64 of DER"`
	Responders  []NewResponder `json:"ocsp_responders,omitempty" maxItems:"50"`
}

// CAChange is the body that changes a certification service; what is absent
// stays.
type CAChange struct {
	Profile            *string `json:"profile,omitempty"`
	AuthenticationOnly *bool   `json:"authentication_only,omitempty"`
	CSRFormat          *string `json:"csr_format,omitempty" enum:"DER,PEM," doc:"Empty: unsaid"`
	ACME               *ACME   `json:"acme,omitempty" doc:"With an empty directory_url: none"`
}

// CAs is a list of certification services.
type CAs struct {
	CAs []CA `json:"certification_services"`
}

func caOf(ca registry.CA) CA {
	out := CA{Name: ca.Name, Profile: ca.Profile, AuthenticationOnly: ca.AuthenticationOnly, CSRFormat: ca.CSRFormat}
	if ca.ACME != nil {
		acme := ACME(*ca.ACME)
		out.ACME = &acme
	}
	for _, authority := range append([]registry.CertifiedCA{ca.Top}, ca.Intermediates...) {
		one := CAAuthority{certificateOfDER(authority.Certificate), []CAResponder{}}
		for _, r := range authority.Responders {
			responder := CAResponder{URL: r.URL, Cost: r.Cost}
			if len(r.Certificate) > 0 {
				c := certificateOfDER(r.Certificate)
				responder.Certificate = &c
			}
			one.Responders = append(one.Responders, responder)
		}
		out.Authorities = append(out.Authorities, one)
	}
	return out
}

func profileOf(name string) string {
	if p, ok := pki.ProfileByClass(name); ok {
		return p.ClassName()
	}
	return name // refused with what is known about it
}

func respondersOf(list []NewResponder) ([]registry.Responder, error) {
	var out []registry.Responder
	for _, r := range list {
		der, err := derOf(r.Certificate)
		if err != nil {
			return nil, err
		}
		out = append(out, registry.Responder{URL: r.URL, Certificate: der, Cost: r.Cost})
	}
	return out, nil
}

func cas(st *registry.State) named[registry.CA, CA] {
	return named[registry.CA, CA]{"certification service", st.CAs(), func(ca registry.CA) string { return ca.Name }, caOf}
}

// findCA returns a copy whose authorities may be changed.
func findCA(st *registry.State, name string) (registry.CA, error) {
	ca, err := cas(st).find(name)
	ca.Intermediates = slices.Clone(ca.Intermediates)
	return ca, err
}

// CAPath names a certification service.
type CAPath struct {
	CA string `path:"ca" doc:"Name"`
}

// AuthorityPath names one authority of a certification service.
type AuthorityPath struct {
	CAPath
	SHA256 string `path:"sha256" doc:"Hash of its certificate, in hex"`
}

// authority finds the authority in ca.
func (p AuthorityPath) authority(ca *registry.CA) (*registry.CertifiedCA, error) {
	hash, err := hashOf(p.SHA256)
	if err != nil {
		return nil, err
	}
	if sha256.Sum256(ca.Top.Certificate) == hash {
		return &ca.Top, nil
	}
	for i := range ca.Intermediates {
		if sha256.Sum256(ca.Intermediates[i].Certificate) == hash {
			return &ca.Intermediates[i], nil
		}
	}
	return nil, unknown("authority with this certificate in %s", p.CA)
}

func (a *API) registerTrust() {
	officer := []string{SecurityOfficer}
	const path = "/certification-services/{ca}"
	read(a, operation{id: "list-certification-services", path: "/certification-services", summary: "List approved certification services"},
		func(_ *struct{}, st *registry.State) (CAs, error) { return CAs{cas(st).views()}, nil })
	read(a, operation{id: "show-certification-service", path: path, summary: "Show an approved certification service"},
		func(in *CAPath, st *registry.State) (CA, error) { return cas(st).show(in.CA) })
	type add struct {
		ChangeTerms
		Body NewCA
	}
	change(a, operation{id: "add-certification-service", method: http.MethodPost, path: "/certification-services", summary: "Approve a certification service", status: http.StatusCreated, roles: officer},
		func(in *add, st *registry.State) ([]registry.Change, error) {
			b := in.Body
			if err := cas(st).absent(b.Name); err != nil {
				return nil, err
			}
			der, err := derOf(b.Certificate)
			if err != nil {
				return nil, err
			}
			responders, err := respondersOf(b.Responders)
			if err != nil {
				return nil, err
			}
			ca := registry.CA{Name: b.Name, Profile: profileOf(b.Profile), AuthenticationOnly: b.AuthenticationOnly, CSRFormat: b.CSRFormat,
				Top: registry.CertifiedCA{Certificate: der, Responders: responders}}
			if b.ACME != nil {
				acme := registry.ACMEServer(*b.ACME)
				ca.ACME = &acme
			}
			return []registry.Change{&registry.SetCA{CA: ca}}, nil
		})
	type set struct {
		CAPath
		ChangeTerms
		Body CAChange
	}
	change(a, operation{id: "change-certification-service", method: http.MethodPatch, path: path, summary: "Change an approved certification service", roles: officer},
		func(in *set, st *registry.State) ([]registry.Change, error) {
			ca, err := findCA(st, in.CA)
			if err != nil {
				return nil, err
			}
			before := caOf(ca)
			if in.Body.Profile != nil {
				ca.Profile = profileOf(*in.Body.Profile)
			}
			assign(&ca.AuthenticationOnly, in.Body.AuthenticationOnly)
			assign(&ca.CSRFormat, in.Body.CSRFormat)
			if acme := in.Body.ACME; acme != nil {
				ca.ACME = nil
				if acme.DirectoryURL != "" {
					server := registry.ACMEServer(*acme)
					ca.ACME = &server
				}
			}
			after := caOf(ca)
			if before.Profile == after.Profile && before.AuthenticationOnly == after.AuthenticationOnly && before.CSRFormat == after.CSRFormat &&
				(before.ACME == nil) == (after.ACME == nil) && (before.ACME == nil || *before.ACME == *after.ACME) {
				return nil, nil
			}
			return []registry.Change{&registry.SetCA{CA: ca}}, nil
		})
	type remove struct {
		CAPath
		ChangeTerms
	}
	change(a, operation{id: "delete-certification-service", method: http.MethodDelete, path: path, summary: "Withdraw the approval of a certification service", roles: officer,
		description: "Certificates that it issued are no longer accepted anywhere."},
		func(in *remove, _ *registry.State) ([]registry.Change, error) {
			return []registry.Change{&registry.DeleteCA{Name: in.CA}}, nil
		})
	a.registerAuthorities(path, officer)
	a.registerTSAs(officer)
	a.registerAnchors(officer)
}

// replaceCA puts a service with other certificates in place of one of the same
// name: in one change set, so that nobody sees it missing.
func replaceCA(ca registry.CA) []registry.Change {
	return []registry.Change{&registry.DeleteCA{Name: ca.Name}, &registry.SetCA{CA: ca}}
}

func (a *API) registerAuthorities(path string, officer []string) {
	type addIntermediate struct {
		CAPath
		ChangeTerms
		Body NewIntermediate
	}
	change(a, operation{id: "add-intermediate", method: http.MethodPost, path: path + "/intermediates", summary: "Add an intermediate authority", status: http.StatusCreated, roles: officer},
		func(in *addIntermediate, st *registry.State) ([]registry.Change, error) {
			ca, err := findCA(st, in.CA)
			if err != nil {
				return nil, err
			}
			der, err := derOf(in.Body.Certificate)
			if err != nil {
				return nil, err
			}
			for _, other := range append(ca.Intermediates, ca.Top) {
				if bytes.Equal(other.Certificate, der) {
					return nil, exists("this authority of %s", in.CA)
				}
			}
			responders, err := respondersOf(in.Body.Responders)
			ca.Intermediates = append(ca.Intermediates, registry.CertifiedCA{Certificate: der, Responders: responders})
			return replaceCA(ca), err
		})
	type removeIntermediate struct {
		AuthorityPath
		ChangeTerms
	}
	change(a, operation{id: "delete-intermediate", method: http.MethodDelete, path: path + "/intermediates/{sha256}", summary: "Remove an intermediate authority", roles: officer},
		func(in *removeIntermediate, st *registry.State) ([]registry.Change, error) {
			ca, err := findCA(st, in.CA)
			if err != nil {
				return nil, err
			}
			authority, err := in.authority(&ca)
			if err != nil {
				return nil, err
			}
			if authority == &ca.Top {
				return nil, unknown("intermediate authority with this certificate; it is the top one of %s", in.CA)
			}
			ca.Intermediates = slices.DeleteFunc(ca.Intermediates, func(i registry.CertifiedCA) bool { return bytes.Equal(i.Certificate, authority.Certificate) })
			return replaceCA(ca), nil
		})
	type addResponder struct {
		AuthorityPath
		ChangeTerms
		Body NewResponder
	}
	change(a, operation{id: "add-ocsp-responder", method: http.MethodPost, path: path + "/authorities/{sha256}/ocsp-responders", summary: "Add an OCSP responder of an authority", status: http.StatusCreated, roles: officer},
		func(in *addResponder, st *registry.State) ([]registry.Change, error) {
			ca, err := findCA(st, in.CA)
			if err != nil {
				return nil, err
			}
			authority, err := in.authority(&ca)
			if err != nil {
				return nil, err
			}
			if slices.ContainsFunc(authority.Responders, func(r registry.Responder) bool { return r.URL == in.Body.URL }) {
				return nil, exists("OCSP responder %s of this authority", in.Body.URL)
			}
			responders, err := respondersOf([]NewResponder{in.Body})
			authority.Responders = slices.Concat(authority.Responders, responders)
			return []registry.Change{&registry.SetCA{CA: ca}}, err
		})
	type removeResponder struct {
		AuthorityPath
		URL string `path:"url" doc:"Percent-encoded"`
		ChangeTerms
	}
	change(a, operation{id: "delete-ocsp-responder", method: http.MethodDelete, path: path + "/authorities/{sha256}/ocsp-responders/{url}", summary: "Remove an OCSP responder of an authority", roles: officer},
		func(in *removeResponder, st *registry.State) ([]registry.Change, error) {
			ca, err := findCA(st, in.CA)
			if err != nil {
				return nil, err
			}
			authority, err := in.authority(&ca)
			if err != nil {
				return nil, err
			}
			rest := slices.DeleteFunc(slices.Clone(authority.Responders), func(r registry.Responder) bool { return r.URL == in.URL })
			if len(rest) == len(authority.Responders) {
				return nil, unknown("OCSP responder %s of this authority", in.URL)
			}
			authority.Responders = rest
			return []registry.Change{&registry.SetCA{CA: ca}}, nil
		})
}

func assign[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

// TSA is an approved time-stamping authority.
type TSA struct {
	Name        string      `json:"name" example:"Example TSA"`
	URL         string      `json:"url"`
	Certificate Certificate `json:"certificate"`
	Cost        string      `json:"cost,omitempty"`
}

// NewTSA is the body that approves a time-stamping authority.
type NewTSA struct {
	Name        string `json:"name" example:"Example TSA"`
	URL         string `json:"url" example:"http://tsa.example.org"`
	Certificate string `json:"certificate" doc:"PEM, or base64 of DER"`
	Cost        string `json:"cost,omitempty" enum:"FREE,PAID,UNDEFINED,"`
}

// TSAChange is the body that changes a time-stamping authority; what is absent
// stays.
type TSAChange struct {
	URL         *string `json:"url,omitempty"`
	Certificate *string `json:"certificate,omitempty" doc:"PEM, or base64 of DER"`
	Cost        *string `json:"cost,omitempty" enum:"FREE,PAID,UNDEFINED,"`
}

// TSAs is a list of time-stamping authorities.
type TSAs struct {
	TSAs []TSA `json:"timestamping_services"`
}

func tsaOf(t registry.TSA) TSA { return TSA{t.Name, t.URL, certificateOfDER(t.Certificate), t.Cost} }

// TSAPath names a time-stamping authority.
type TSAPath struct {
	TSA string `path:"tsa" doc:"Name"`
}

func tsas(st *registry.State) named[registry.TSA, TSA] {
	return named[registry.TSA, TSA]{"time-stamping authority", st.TSAs(), func(t registry.TSA) string { return t.Name }, tsaOf}
}

func (a *API) registerTSAs(officer []string) {
	const path = "/timestamping-services/{tsa}"
	read(a, operation{id: "list-timestamping-services", path: "/timestamping-services", summary: "List approved time-stamping authorities"},
		func(_ *struct{}, st *registry.State) (TSAs, error) { return TSAs{tsas(st).views()}, nil })
	read(a, operation{id: "show-timestamping-service", path: path, summary: "Show an approved time-stamping authority"},
		func(in *TSAPath, st *registry.State) (TSA, error) { return tsas(st).show(in.TSA) })
	type add struct {
		ChangeTerms
		Body NewTSA
	}
	change(a, operation{id: "add-timestamping-service", method: http.MethodPost, path: "/timestamping-services", summary: "Approve a time-stamping authority", status: http.StatusCreated, roles: officer},
		func(in *add, st *registry.State) ([]registry.Change, error) {
			if err := tsas(st).absent(in.Body.Name); err != nil {
				return nil, err
			}
			der, err := derOf(in.Body.Certificate)
			return []registry.Change{&registry.SetTSA{TSA: registry.TSA{Name: in.Body.Name, URL: in.Body.URL, Certificate: der, Cost: in.Body.Cost}}}, err
		})
	type set struct {
		TSAPath
		ChangeTerms
		Body TSAChange
	}
	change(a, operation{id: "change-timestamping-service", method: http.MethodPatch, path: path, summary: "Change an approved time-stamping authority", roles: officer},
		func(in *set, st *registry.State) ([]registry.Change, error) {
			before, err := tsas(st).find(in.TSA)
			if err != nil {
				return nil, err
			}
			after := before
			assign(&after.URL, in.Body.URL)
			assign(&after.Cost, in.Body.Cost)
			if in.Body.Certificate != nil {
				if after.Certificate, err = derOf(*in.Body.Certificate); err != nil {
					return nil, err
				}
			}
			if before.URL == after.URL && before.Cost == after.Cost && bytes.Equal(before.Certificate, after.Certificate) {
				return nil, nil
			}
			return []registry.Change{&registry.SetTSA{TSA: after}}, nil
		})
	type remove struct {
		TSAPath
		ChangeTerms
	}
	change(a, operation{id: "delete-timestamping-service", method: http.MethodDelete, path: path, summary: "Withdraw the approval of a time-stamping authority", roles: officer,
		description: "Its time-stamps are no longer accepted, old ones included."},
		func(in *remove, _ *registry.State) ([]registry.Change, error) {
			return []registry.Change{&registry.DeleteTSA{Name: in.TSA}}, nil
		})
}

// TrustedAnchor is the configuration anchor of a federation partner.
type TrustedAnchor struct {
	Instance    string   `json:"instance"`
	Fingerprint string   `json:"sha224" doc:"SHA-224 of the anchor file, as operators compare it"`
	URLs        []string `json:"urls" doc:"Where its configuration is"`
	Anchor      string   `json:"anchor" doc:"The anchor file"`
}

// TrustedAnchors is a list of trusted anchors.
type TrustedAnchors struct {
	Anchors []TrustedAnchor `json:"trusted_anchors"`
}

// AnchorBody carries an anchor file.
type AnchorBody struct {
	Anchor string `json:"anchor" doc:"The external configuration anchor of the partner: the file, XML"`
}

func trustedAnchorOf(t registry.TrustedAnchor) TrustedAnchor {
	out := TrustedAnchor{t.Instance, globalconf.Fingerprint(t.XML), []string{}, string(t.XML)}
	if anchor, err := globalconf.ParseAnchor(t.XML); err == nil { // was parsed when accepted
		for _, s := range anchor.Sources {
			out.URLs = append(out.URLs, s.URL)
		}
	}
	return out
}

// InstancePath names an instance.
type InstancePath struct {
	Instance string `path:"instance" doc:"Instance identifier of the partner"`
}

func trustedAnchors(st *registry.State) named[registry.TrustedAnchor, TrustedAnchor] {
	return named[registry.TrustedAnchor, TrustedAnchor]{"trusted anchor of instance", st.TrustedAnchors(),
		func(t registry.TrustedAnchor) string { return t.Instance }, trustedAnchorOf}
}

func (a *API) registerAnchors(officer []string) {
	const path = "/trusted-anchors/{instance}"
	read(a, operation{id: "list-trusted-anchors", path: "/trusted-anchors", summary: "List the anchors of federation partners"},
		func(_ *struct{}, st *registry.State) (TrustedAnchors, error) {
			return TrustedAnchors{trustedAnchors(st).views()}, nil
		})
	read(a, operation{id: "show-trusted-anchor", path: path, summary: "Show the anchor of a federation partner"},
		func(in *InstancePath, st *registry.State) (TrustedAnchor, error) {
			return trustedAnchors(st).show(in.Instance)
		})
	type add struct {
		ChangeTerms
		Body AnchorBody
	}
	change(a, operation{id: "trust-anchor", method: http.MethodPost, path: "/trusted-anchors", summary: "Trust a federation partner, or take its new anchor", status: http.StatusCreated, roles: officer},
		func(in *add, st *registry.State) ([]registry.Change, error) {
			content := []byte(in.Body.Anchor)
			anchor, err := globalconf.ParseAnchor(content)
			if err != nil {
				return nil, invalid(err)
			}
			if t, err := trustedAnchors(st).find(anchor.Instance); err == nil && bytes.Equal(t.XML, content) {
				return nil, nil
			}
			return []registry.Change{&registry.TrustAnchor{Instance: anchor.Instance, Anchor: content}}, nil
		})
	type remove struct {
		InstancePath
		ChangeTerms
	}
	change(a, operation{id: "distrust-anchor", method: http.MethodDelete, path: path, summary: "End the federation with a partner", roles: officer},
		func(in *remove, _ *registry.State) ([]registry.Change, error) {
			return []registry.Change{&registry.DistrustAnchor{Instance: in.Instance}}, nil
		})
}
