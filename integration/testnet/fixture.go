// SPDX-License-Identifier: Apache-2.0

package testnet

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kontor/cmd/roles"
	"kontor/config"
	"kontor/gateway/admin"
	"kontor/gateway/serverconf"
	"kontor/pki"
	"kontor/pki/ca"
	"kontor/registry"
	"kontor/registry/guard"
	"kontor/registry/id"
)

const profileName = "FiVRK"

// fixture is what all networks of one instance share in a test binary.
type fixture struct {
	instance string
	dir      string
	ca       *ca.CA
	caClock  atomic.Int64
	gateways map[string]string      // folders to copy
	issued   map[string][]*Identity // authentication, signing, by gateway
	registry string
	client   *Identity // TLS certificate of the information system of Pinned
	wrong    *Identity // of somebody else
	service  *Identity // of the information system behind B

	mu    sync.Mutex
	peers map[string]*Identity
}

var (
	preparing sync.Mutex
	fixtures  = map[string]*fixture{} // by instance
)

func prepared(instance string) (*fixture, error) {
	preparing.Lock()
	defer preparing.Unlock()
	if f := fixtures[instance]; f != nil {
		return f, nil
	}
	f, err := prepare(instance)
	if err == nil {
		fixtures[instance] = f
	}
	return f, err
}

// Main runs the tests and removes what they shared.
func Main(m *testing.M) int {
	code := m.Run()
	for _, f := range fixtures {
		if err := errors.Join(f.ca.Close(), os.RemoveAll(f.dir)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	return code
}

// Identity is a certificate and its key.
type Identity struct {
	Key  *ecdsa.PrivateKey
	Cert *x509.Certificate
}

// TLS returns the identity for crypto/tls.
func (i *Identity) TLS() tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{i.Cert.Raw}, PrivateKey: i.Key, Leaf: i.Cert}
}

// Hash is the hash by which a certificate is registered.
func (i *Identity) Hash() pki.CertHash { return pki.HashOf(i.Cert) }

// age is how old the authority is, so that certificates can have expired.
const age = 3 * 365 * 24 * time.Hour

func prepare(instance string) (f *fixture, err error) {
	f = &fixture{instance: instance, gateways: map[string]string{}, issued: map[string][]*Identity{}, peers: map[string]*Identity{}}
	if f.dir, err = os.MkdirTemp("", "kontor-testnet-"); err != nil {
		return nil, err
	}
	dir := filepath.Join(f.dir, "trust")
	if err := writeAuthority(dir, instance, age); err != nil {
		return nil, err
	}
	if f.ca, err = ca.Open(dir, []byte(pin), ca.Config{Now: func() time.Time { return time.Now().Add(time.Duration(f.caClock.Load())) }}); err != nil {
		return nil, err
	}
	for name, server := range map[string]string{"A": Server1, "B": Server2} {
		if err := f.prepareGateway(name, ServerID(in(instance, server))); err != nil {
			return nil, err
		}
	}
	f.registry = filepath.Join(f.dir, "registry")
	if err := writeToken(filepath.Join(f.registry, "keys")); err != nil {
		return nil, err
	}
	err = registry.Create(f.registry, []byte(pin), registry.CreateConfig{
		Instance: instance, Address: "127.0.0.1:1", Algorithm: pki.P256, By: registry.Author{Who: "testnet"}})
	if err != nil {
		return nil, err
	}
	if err := reseal(filepath.Join(f.registry, "keys")); err != nil {
		return nil, err
	}
	for _, i := range []**Identity{&f.client, &f.wrong, &f.service} {
		if *i, err = selfSigned(); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// prepareGateway writes what kontor gateway init and import write.
func (f *fixture) prepareGateway(name string, server id.SecurityServer) error {
	dir := filepath.Join(f.dir, name)
	auth, err := f.issue(server, server.Owner(), pki.Authentication, 0, 0)
	if err != nil {
		return err
	}
	sign, err := f.issue(server, server.Owner(), pki.Signing, 0, 0)
	if err != nil {
		return err
	}
	if err := writeToken(filepath.Join(dir, "token"), tokenKey{auth, pki.Authentication, pki.StateSaved}, tokenKey{sign, pki.Signing, pki.StateRegistered}); err != nil {
		return err
	}
	internal, err := selfSigned()
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(internal.Key)
	if err != nil {
		return err
	}
	cfg := &config.Gateway{Server: server, DataDir: dir}
	certFile, keyFile := roles.InternalTLSFiles(cfg)
	if _, err := serverconf.Create(serverconf.Config{Path: cfg.ServerConf()}, &serverconf.Model{}); err != nil {
		return err
	}
	if _, err := guard.CreateKeys(filepath.Join(dir, "admin-keys.json"), "local", admin.RoleAuditor); err != nil {
		return err
	}
	f.gateways[name], f.issued[name] = dir, []*Identity{auth, sign}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "pin"), []byte(pin), 0o600),
		os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600),
		roles.WritePEM(certFile, "CERTIFICATE", internal.Cert.Raw))
}

// issue makes a key and has the authority certify it, as long ago as said.
func (f *fixture) issue(server id.SecurityServer, member id.Member, usage pki.Usage, ago, validity time.Duration) (*Identity, error) {
	profile, ok := pki.ProfileByClass(profileName)
	if !ok {
		return nil, errors.New("unknown profile")
	}
	subject := profile.AuthSubject
	if usage == pki.Signing {
		subject = profile.SignSubject
	}
	raw, err := subject(pki.SubjectParams{Server: server, Member: member, MemberName: "Company", DNSName: "peer.example", Country: "FI"})
	if err != nil {
		return nil, err
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{RawSubject: raw}, key)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.caClock.Store(int64(-ago))
	defer f.caClock.Store(0)
	cert, err := f.ca.Issue(context.Background(), csr, ca.Request{Usage: usage, Validity: validity})
	if err != nil {
		return nil, err
	}
	return &Identity{key, cert}, nil
}

// peer returns one of the identities of the third security server, made when
// it is first asked for.
func (f *fixture) peer(name string, make func() (*Identity, error)) (*Identity, error) {
	f.mu.Lock()
	i := f.peers[name]
	f.mu.Unlock()
	if i != nil {
		return i, nil
	}
	i, err := make()
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.peers[name] = i
	return i, nil
}

func selfSigned() (*Identity, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "information system"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &Identity{key, cert}, nil
}
