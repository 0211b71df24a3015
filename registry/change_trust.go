// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"fmt"
	"slices"

	"kontor/pki"
	"kontor/registry/globalconf"
)

// SetCA approves a certification service or changes an approved one. The
// certificates of an approved service stay: other certificates are another
// service.
type SetCA struct {
	CA CA `json:"ca"`
}

func (c *SetCA) op() string     { return "ca.set" }
func (c *SetCA) String() string { return "approve certification service " + c.CA.Name }

// authorities are the top and the intermediate authorities.
func (ca *CA) authorities() []CertifiedCA {
	return append([]CertifiedCA{ca.Top}, ca.Intermediates...)
}

func (c *SetCA) check(*State) error {
	if err := checkText(c, "name", c.CA.Name, true); err != nil {
		return err
	}
	if p, ok := pki.ProfileByClass(c.CA.Profile); !ok || p.ClassName() != c.CA.Profile {
		return refuse(c, ErrInvalid, fmt.Sprintf("certificate profile %q is unknown", c.CA.Profile), "give the full class name of a known profile")
	}
	for _, a := range c.CA.authorities() {
		cert, err := parseCertificate(a.Certificate)
		if err != nil {
			return refuse(c, ErrInvalid, "certificate: "+err.Error(), "")
		}
		if !cert.IsCA {
			return refuse(c, ErrInvalid, fmt.Sprintf("%s is not the certificate of an authority", cert.Subject), "")
		}
		for _, r := range a.Responders {
			if why := checkURL(r.URL, "http", "https"); why != "" {
				return refuse(c, ErrInvalid, "OCSP responder: "+why, "")
			}
			if len(r.Certificate) > 0 {
				if _, err := parseCertificate(r.Certificate); err != nil {
					return refuse(c, ErrInvalid, "OCSP responder: "+err.Error(), "")
				}
			}
			if err := checkCost(c, r.Cost); err != nil {
				return err
			}
		}
	}
	if !slices.Contains([]string{"", "DER", "PEM"}, c.CA.CSRFormat) {
		return refuse(c, ErrInvalid, fmt.Sprintf("request format %q is unknown", c.CA.CSRFormat), "use DER or PEM")
	}
	if a := c.CA.ACME; a != nil {
		if why := checkURL(a.DirectoryURL, "https", "http"); why != "" {
			return refuse(c, ErrInvalid, "ACME directory: "+why, "")
		}
		for _, text := range []string{a.IPAddress, a.AuthenticationProfile, a.SigningProfile} {
			if err := checkText(c, "ACME parameter", text, false); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *SetCA) apply(s *State) error {
	if old, ok := s.cas[c.CA.Name]; ok && !old.sameCertificates(&c.CA) {
		return refuse(c, ErrExists, "a certification service with this name and other certificates is approved", "delete it first, or choose another name")
	}
	for _, a := range c.CA.authorities() {
		for name, other := range s.cas {
			if name == c.CA.Name {
				continue
			}
			for _, b := range other.authorities() {
				if bytes.Equal(a.Certificate, b.Certificate) {
					return refuse(c, ErrExists, fmt.Sprintf("one of its certificates belongs to certification service %s", name), "delete that one first")
				}
			}
		}
	}
	ca := c.CA
	s.cas[ca.Name] = &ca
	return nil
}

func (ca *CA) sameCertificates(other *CA) bool {
	return slices.EqualFunc(ca.authorities(), other.authorities(), func(a, b CertifiedCA) bool { return bytes.Equal(a.Certificate, b.Certificate) })
}

// DeleteCA withdraws the approval of a certification service: certificates
// that it issued are no longer accepted anywhere.
type DeleteCA struct {
	Name string `json:"name"`
}

func (c *DeleteCA) op() string         { return "ca.delete" }
func (c *DeleteCA) String() string     { return "delete certification service " + c.Name }
func (c *DeleteCA) check(*State) error { return nil }

func (c *DeleteCA) apply(s *State) error {
	if _, ok := s.cas[c.Name]; !ok {
		return refuse(c, ErrUnknown, "there is no such certification service", "")
	}
	delete(s.cas, c.Name)
	return nil
}

// SetTSA approves a time-stamping authority or changes an approved one.
type SetTSA struct {
	TSA TSA `json:"tsa"`
}

func (c *SetTSA) op() string     { return "tsa.set" }
func (c *SetTSA) String() string { return "approve time-stamping authority " + c.TSA.Name }

func (c *SetTSA) check(*State) error {
	if err := checkText(c, "name", c.TSA.Name, true); err != nil {
		return err
	}
	if why := checkURL(c.TSA.URL, "http", "https"); why != "" {
		return refuse(c, ErrInvalid, "address: "+why, "")
	}
	if _, err := parseCertificate(c.TSA.Certificate); err != nil {
		return refuse(c, ErrInvalid, err.Error(), "")
	}
	return checkCost(c, c.TSA.Cost)
}

func (c *SetTSA) apply(s *State) error {
	tsa := c.TSA
	s.tsas[tsa.Name] = &tsa
	return nil
}

// DeleteTSA withdraws the approval of a time-stamping authority: its
// time-stamps are no longer accepted, old ones included.
type DeleteTSA struct {
	Name string `json:"name"`
}

func (c *DeleteTSA) op() string         { return "tsa.delete" }
func (c *DeleteTSA) String() string     { return "delete time-stamping authority " + c.Name }
func (c *DeleteTSA) check(*State) error { return nil }

func (c *DeleteTSA) apply(s *State) error {
	if _, ok := s.tsas[c.Name]; !ok {
		return refuse(c, ErrUnknown, "there is no such time-stamping authority", "")
	}
	delete(s.tsas, c.Name)
	return nil
}

// TrustAnchor adds the configuration anchor of a federation partner, or
// replaces the one of the same instance.
type TrustAnchor struct {
	Instance string `json:"instance"`
	Anchor   []byte `json:"anchor"` // the anchor file
}

func (c *TrustAnchor) op() string     { return "anchor.trust" }
func (c *TrustAnchor) String() string { return "trust the anchor of instance " + c.Instance }

func (c *TrustAnchor) check(*State) error {
	anchor, err := globalconf.ParseAnchor(c.Anchor)
	if err != nil {
		return refuse(c, ErrInvalid, err.Error(), "get the external anchor from the partner's registry")
	}
	if _, err := anchor.Marshal(); err != nil { // it becomes part of the private parameters
		return refuse(c, ErrInvalid, err.Error(), "get the external anchor from the partner's registry")
	}
	if anchor.Instance != c.Instance {
		return refuse(c, ErrInvalid, fmt.Sprintf("the anchor is of instance %q", anchor.Instance), "")
	}
	return nil
}

func (c *TrustAnchor) apply(s *State) error {
	if c.Instance == s.instance {
		return refuse(c, ErrInvalid, "it is the registry's own instance", "only partners' anchors are trusted")
	}
	s.anchors[c.Instance] = &TrustedAnchor{c.Instance, c.Anchor}
	return nil
}

// DistrustAnchor ends the federation with an instance.
type DistrustAnchor struct {
	Instance string `json:"instance"`
}

func (c *DistrustAnchor) op() string         { return "anchor.distrust" }
func (c *DistrustAnchor) String() string     { return "distrust the anchor of instance " + c.Instance }
func (c *DistrustAnchor) check(*State) error { return nil }

func (c *DistrustAnchor) apply(s *State) error {
	if _, ok := s.anchors[c.Instance]; !ok {
		return refuse(c, ErrUnknown, "there is no such trusted anchor", "")
	}
	delete(s.anchors, c.Instance)
	return nil
}
