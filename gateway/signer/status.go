// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"errors"
	"time"

	"kontor/pki"
	"kontor/registry/globalconf"
	"kontor/registry/id"
)

var (
	errInactive      = errors.New("not active")
	errNotRegistered = errors.New("not registered for this security server")
)

// KeyStatus tells whether one certificate of the token can be used now, and if
// not, why.
type KeyStatus struct {
	Key      string    `json:"key"`
	Label    string    `json:"label"`
	Usage    pki.Usage `json:"usage"`
	Hash     string    `json:"certificate"` // SHA-256 of its DER form, hex
	Subject  string    `json:"subject"`
	NotAfter time.Time `json:"not_after"`
	State    string    `json:"state"`
	Active   bool      `json:"active"`
	Member   id.Member `json:"member,omitzero"` // whom a signing certificate names
	// OCSPUntil is when the OCSP response goes stale; zero without a good one.
	OCSPUntil time.Time `json:"ocsp_until,omitzero"`
	Usable    bool      `json:"usable"`
	Problem   string    `json:"problem,omitempty"` // why it is not usable
}

// Status returns the state of every certificate of the token, in its order. A
// key without certificates has one entry without Hash.
func (s *Signer) Status() []KeyStatus {
	view, at := s.view(), s.now()
	var all []KeyStatus
	for _, key := range s.token.Keys() {
		st := KeyStatus{Key: key.ID(), Label: key.Label(), Usage: key.Usage(), Problem: "no certificate"}
		certs := key.Certificates()
		if len(certs) == 0 {
			all = append(all, st)
		}
		for _, tc := range certs {
			st := st
			st.Hash, st.Subject = pki.HashOf(tc.Cert).Hex(), tc.Cert.Subject.String()
			st.NotAfter, st.State, st.Active = tc.Cert.NotAfter, tc.Status.State, tc.Status.Active
			if err := s.judge(&st, view, tc, at); err != nil {
				st.Problem = err.Error()
			} else {
				st.Usable, st.Problem = true, ""
			}
			all = append(all, st)
		}
	}
	return all
}

// judge fills in what only the global configuration can tell. An inactive
// certificate is judged, too: its problems are what activation would meet.
func (s *Signer) judge(st *KeyStatus, view *globalconf.View, tc pki.TokenCert, at time.Time) error {
	if view == nil {
		return ErrNoView
	}
	chain, err := pki.VerifyChain(tc.Cert, nil, view, at)
	if err != nil {
		return err
	}
	if st.Usage == pki.Signing {
		if chain.Anchor.Profile == nil {
			return errProfile
		}
		if st.Member, err = chain.Anchor.Profile.Member(tc.Cert, view.Instance()); err != nil {
			return err
		}
		if chain.Anchor.AuthenticationOnly {
			return errAuthOnly
		}
	} else if server, ok := view.ServerByCertificate(tc.Cert); !ok || server.ID != s.server {
		return errNotRegistered
	}
	if _, st.OCSPUntil, err = s.good(view, link{chain.Certs[0], chain.Issuers[0]}, at); err != nil {
		return err
	}
	switch {
	case !tc.Status.Active:
		return errInactive
	case st.Usage == pki.Signing && tc.Status.State != pki.StateRegistered:
		return errNotRegistered
	}
	return nil
}
