// SPDX-License-Identifier: Apache-2.0

package enrol_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"kontor/pki"
	"kontor/pki/enrol"
	"kontor/registry/id"
)

// A security server keeps the certificates of its owner valid: one for
// authentication and one for signing, each under a binding of its own.
func Example() {
	run := func(ctx context.Context, token *pki.Token, dataDir string, pin []byte, server id.SecurityServer, name string) error {
		profile, _ := pki.ProfileByClass("FiVRK") // as the global configuration says of the authority
		accounts, err := enrol.OpenAccounts(filepath.Join(dataDir, "acme", "accounts"), pin)
		if err != nil {
			return err
		}
		params := pki.SubjectParams{Server: server, Member: server.Owner(), MemberName: name, DNSName: "ss1.example"}
		authSubject, err := profile.AuthSubject(params)
		if err != nil {
			return err
		}
		signSubject, err := profile.SignSubject(params)
		if err != nil {
			return err
		}

		// Challenges come to port 80 of ss1.example, which leads here.
		responder := new(enrol.Responder)
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return responder.Listen(ctx, ":8080") })
		for use, subject := range map[pki.Usage][]byte{pki.Authentication: authSubject, pki.Signing: signSubject} {
			// The file that "kontor trust eab add" writes.
			credentials, err := enrol.ReadCredentials(filepath.Join(dataDir, "acme", string(use)+".json"))
			if err != nil {
				return err
			}
			renewer, err := enrol.New(enrol.Config{
				Dir: filepath.Join(dataDir, "acme"), Token: token, Accounts: accounts, Credentials: *credentials,
				Usage: use, Member: server.Owner(), Subject: subject, DNSNames: []string{params.DNSName},
				Validity: 365 * 24 * time.Hour, Responder: responder,
				Check: func(chain []*x509.Certificate) error {
					if use == pki.Authentication {
						return nil // others know it by its hash
					}
					m, err := profile.Member(chain[0], server.Owner().Instance())
					if err == nil && m != server.Owner() {
						err = fmt.Errorf("it is for %s", m)
					}
					return err
				},
				OnCertificate: func(ctx context.Context, key *pki.Key, cert *x509.Certificate) error {
					// The certificate is in the token, inactive. Signing: wait for a
					// good OCSP response, then activate it and deactivate the old
					// one. Authentication: register it, and switch once the global
					// configuration has it. Until then the old one serves.
					if use == pki.Signing {
						return token.SetCertificate(pki.HashOf(cert), pki.CertStatus{State: pki.StateRegistered, Active: true})
					}
					return nil
				},
			})
			if err != nil {
				return err
			}
			g.Go(func() error { return renewer.Run(ctx) })
		}
		return g.Wait()
	}
	_ = run
}
