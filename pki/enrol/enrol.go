// SPDX-License-Identifier: Apache-2.0

// Package enrol gets certificates for the keys of a security server from ACME
// authorities (RFC 8555) and renews them in time.
//
// A Renewer looks after one certificate: of one usage, for one member, from one
// authority. It makes a new key for each certificate, proves control of the
// server's name by http-01 through a Responder, and tells its owner when the
// certificate is there. It activates nothing: the old certificate stays in use
// until the owner switches. What it does is durable, so that a restart resumes
// an order instead of beginning another.
package enrol

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"

	"golang.org/x/crypto/acme"

	"kontor/pki"
)

// ErrCredentials: the file with the external account binding is unusable.
var ErrCredentials = errors.New("unusable ACME credentials")

const (
	maxCredentials = 64 << 10
	requestTimeout = 30 * time.Second
)

// Credentials say where an ACME authority is and who asks: what its operator
// hands to a member.
type Credentials struct {
	// Directory is the URL of the authority's directory, https.
	Directory string
	// KID and MACKey are the external account binding (RFC 8555, 7.3.4); both
	// empty if the authority demands none.
	KID    string
	MACKey []byte
	// Root, if not nil, issued the certificate of the authority's web server,
	// and is trusted for that beside the roots of the operating system.
	Root *x509.Certificate
}

// credentialsFile is the JSON form. The key is base64url, as authorities give
// it to people.
type credentialsFile struct {
	Directory string `json:"directory"`
	KID       string `json:"kid,omitempty"`
	MACKey    string `json:"mac_key,omitempty"`
	Root      string `json:"root,omitempty"` // PEM
}

// ReadCredentials reads Credentials from a JSON file that only its owner may
// read: ErrCredentials.
func ReadCredentials(file string) (*Credentials, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCredentials, err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%w: %s is open to others (mode %o); run: chmod 600 %s", ErrCredentials, file, mode, file)
	}
	if info.Size() > maxCredentials {
		return nil, fmt.Errorf("%w: %s is larger than %d bytes", ErrCredentials, file, maxCredentials)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCredentials, err)
	}
	c, err := ParseCredentials(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return c, nil
}

// ParseCredentials reads the JSON form: ErrCredentials.
func ParseCredentials(b []byte) (*Credentials, error) {
	refuse := func(format string, args ...any) (*Credentials, error) {
		return nil, fmt.Errorf("%w: %w", ErrCredentials, fmt.Errorf(format, args...))
	}
	if len(b) > maxCredentials {
		return refuse("larger than %d bytes", maxCredentials)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	var f credentialsFile
	if err := dec.Decode(&f); err != nil {
		return refuse("%w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return refuse("trailing data")
	}
	c := &Credentials{Directory: f.Directory, KID: f.KID}
	if f.MACKey != "" {
		key, err := base64.RawURLEncoding.DecodeString(trimPadding(f.MACKey))
		if err != nil {
			return refuse("mac_key is not base64url")
		}
		c.MACKey = key
	}
	if f.Root != "" {
		block, rest := pem.Decode([]byte(f.Root))
		if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
			return refuse("root is not one PEM certificate")
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return refuse("root: %w", err)
		}
		c.Root = cert
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	return c, nil
}

func trimPadding(s string) string {
	for len(s) > 0 && s[len(s)-1] == '=' {
		s = s[:len(s)-1]
	}
	return s
}

// Marshal returns the JSON form.
func (c *Credentials) Marshal() ([]byte, error) {
	f := credentialsFile{Directory: c.Directory, KID: c.KID, MACKey: base64.RawURLEncoding.EncodeToString(c.MACKey)}
	if c.Root != nil {
		f.Root = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Root.Raw}))
	}
	b, err := json.MarshalIndent(f, "", "  ")
	return append(b, '\n'), err
}

func (c *Credentials) check() error {
	u, err := url.Parse(c.Directory)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("%w: directory %q is not an https URL", ErrCredentials, c.Directory)
	}
	if (c.KID == "") != (len(c.MACKey) == 0) {
		return fmt.Errorf("%w: kid and mac_key belong together", ErrCredentials)
	}
	return nil
}

// client returns an HTTP client for the authority.
func (c *Credentials) client() *http.Client {
	tr := http.DefaultTransport.(*http.Transport).Clone()
	if c.Root != nil {
		roots, err := x509.SystemCertPool()
		if err != nil {
			roots = x509.NewCertPool()
		}
		roots.AddCert(c.Root)
		tr.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
	}
	return &http.Client{Transport: tr, Timeout: requestTimeout}
}

// Accounts holds the keys of ACME accounts: one for each authority and external
// account binding, shared by all Renewers that use them. It is safe for
// concurrent use.
type Accounts struct {
	mu       sync.Mutex // held while an account is made: a binding makes one only
	token    *pki.Token
	generate generator
}

// OpenAccounts opens the account keys in dir, which is made if need be. They are
// a token of their own, protected by the PIN: errors are those of pki.OpenToken.
func OpenAccounts(dir string, pin []byte) (*Accounts, error) {
	token, err := pki.OpenToken(dir, pin)
	if errors.Is(err, pki.ErrNoToken) {
		token, err = pki.CreateToken(dir, pin)
	}
	if err != nil {
		return nil, fmt.Errorf("ACME accounts: %w", err)
	}
	return &Accounts{token: token, generate: token.Generate}, nil
}

// ChangePIN encrypts the keys anew, as pki.Token.ChangePIN does.
func (a *Accounts) ChangePIN(old, new []byte) error { return a.token.ChangePIN(old, new) }

// open gives client the account's key and address, and makes the account if the
// authority does not know it yet.
func (a *Accounts) open(ctx context.Context, client *acme.Client, c *Credentials, contact []string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	key, err := a.key(c)
	if err != nil {
		return err
	}
	client.Key = key.Signer()
	account, err := client.GetReg(ctx, "")
	if errors.Is(err, acme.ErrNoAccount) {
		want := &acme.Account{Contact: contact}
		if c.KID != "" {
			want.ExternalAccountBinding = &acme.ExternalAccountBinding{KID: c.KID, Key: c.MACKey}
		}
		account, err = client.Register(ctx, want, acme.AcceptTOS)
	}
	if err != nil {
		return err
	}
	client.KID = acme.KeyID(account.URI)
	return nil
}

// key finds or makes the account's key. Its label is what it is found by.
func (a *Accounts) key(c *Credentials) (*pki.Key, error) {
	label := fmt.Sprintf("ACME account %x", sha256.Sum256([]byte(c.Directory+"\n"+c.KID)))
	for _, k := range a.token.Keys() {
		if k.Label() == label {
			return k, nil
		}
	}
	return a.generate(label, pki.Authentication, pki.P256)
}
