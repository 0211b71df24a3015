// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"go.step.sm/crypto/kms/apiv1"
	"go.step.sm/crypto/kms/softkms"
	"go.step.sm/crypto/pemutil"
	"go.step.sm/crypto/x509util"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"kontor/pki"
)

const (
	dbDir        = "db"
	maxFileSize  = 64 << 10
	rootValidity = 20 * 365 * 24 * time.Hour
)

// CreateConfig describes a new authority.
type CreateConfig struct {
	// Name becomes the common name of the authority's certificate.
	Name string
	// Instance becomes its organisation: the ecosystem that it serves.
	Instance string
	// Algorithm of the authority's, the responder's and the time-stamping
	// keys; empty means P-256.
	Algorithm pki.Algorithm
	// Validity of these certificates; zero means twenty years.
	Validity time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Create makes an authority in dir, which is made if need be and must not hold
// one yet. What an interrupted Create left behind is overwritten: the
// authority exists from the moment its certificate is on disk, which is
// written last.
func Create(dir string, pass []byte, cfg CreateConfig) error {
	if err := create(dir, pass, cfg); err != nil {
		return fmt.Errorf("create certification authority %s: %w", dir, err)
	}
	return nil
}

func create(dir string, pass []byte, cfg CreateConfig) error {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Validity == 0 {
		cfg.Validity = rootValidity
	}
	if cfg.Algorithm == "" {
		cfg.Algorithm = pki.P256
	}
	switch {
	case len(pass) == 0:
		return errors.New("an empty passphrase protects nothing; give one")
	case !validName(cfg.Name) || !validName(cfg.Instance):
		return errors.New("name and instance are needed: printable text of at most 64 characters")
	case cfg.Validity < 0:
		return errors.New("the validity cannot be negative")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	switch _, err := os.Lstat(filepath.Join(dir, "ca.pem")); {
	case err == nil:
		return ErrExists
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	ids, err := makeIdentities(cfg)
	if err != nil {
		return err
	}
	recs, err := openRecords(filepath.Join(dir, dbDir), zap.NewNop())
	if err != nil {
		return err
	}
	defer recs.Close()
	for _, id := range []identity{ids.ocsp, ids.tsa} {
		if err := recs.put(&Record{Certificate: id.cert, Issued: id.cert.NotBefore}); err != nil {
			return err
		}
	}
	if err := recs.Close(); err != nil {
		return err
	}
	return ids.write(dir, pass)
}

func validName(s string) bool {
	return strings.TrimSpace(s) != "" && len([]rune(s)) <= 64 && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// identities are the three keys of an authority with their certificates.
type identities struct{ ca, ocsp, tsa identity }

// named lists them in the order in which they are written: the authority last.
func (ids *identities) named() []namedIdentity {
	return []namedIdentity{{"ocsp", &ids.ocsp}, {"tsa", &ids.tsa}, {"ca", &ids.ca}}
}

type namedIdentity struct {
	name string
	*identity
}

func makeIdentities(cfg CreateConfig) (*identities, error) {
	var ids identities
	var keys errgroup.Group
	for _, id := range ids.named() {
		keys.Go(func() (err error) {
			id.signer, err = newKey(cfg.Algorithm)
			return err
		})
	}
	if err := keys.Wait(); err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	notBefore := cfg.Now().UTC().Truncate(time.Second).Add(-backdate)
	notAfter := notBefore.Add(cfg.Validity)
	root := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{cfg.Instance}, CommonName: cfg.Name},
		NotBefore:             notBefore,
		NotAfter:              notAfter,
		BasicConstraintsValid: true,
		IsCA:                  true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
	}
	if ids.ca.cert, err = x509util.CreateCertificate(root, root, ids.ca.signer.Public(), ids.ca.signer); err != nil {
		return nil, err
	}
	auth, err := embed(ids.ca)
	if err != nil {
		return nil, err
	}
	for _, own := range []struct {
		id      *identity
		suffix  string
		profile profile
	}{{&ids.ocsp, " OCSP", ocspProfile}, {&ids.tsa, " TSA", tsaProfile}} {
		subject, err := asn1.Marshal(pkix.Name{Organization: []string{cfg.Instance}, CommonName: cfg.Name + own.suffix}.ToRDNSequence())
		if err != nil {
			return nil, err
		}
		csr, err := ownRequest(own.id.signer, subject)
		if err != nil {
			return nil, err
		}
		own.id.cert, err = sign(context.Background(), auth, csr, template{
			profile: own.profile, subject: subject, notBefore: notBefore, notAfter: notAfter,
		})
		if err != nil {
			return nil, err
		}
	}
	return &ids, nil
}

// ownRequest wraps one of the authority's own keys into the request that the
// issuing core wants.
func ownRequest(signer crypto.Signer, subject []byte) (*x509.CertificateRequest, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{RawSubject: subject}, signer)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificateRequest(der)
}

func newKey(alg pki.Algorithm) (crypto.Signer, error) {
	req := &apiv1.CreateKeyRequest{}
	switch alg {
	case pki.P256:
		req.SignatureAlgorithm = apiv1.ECDSAWithSHA256
	case pki.P384:
		req.SignatureAlgorithm = apiv1.ECDSAWithSHA384
	case pki.RSA2048:
		req.SignatureAlgorithm, req.Bits = apiv1.SHA256WithRSA, 2048
	case pki.RSA3072:
		req.SignatureAlgorithm, req.Bits = apiv1.SHA256WithRSA, 3072
	case pki.RSA4096:
		req.SignatureAlgorithm, req.Bits = apiv1.SHA256WithRSA, 4096
	default:
		return nil, fmt.Errorf("unknown key algorithm %q", alg)
	}
	keys := &softkms.SoftKMS{}
	created, err := keys.CreateKey(req)
	if err != nil {
		return nil, err
	}
	return keys.CreateSigner(&created.CreateSignerRequest)
}

// newSerial draws 127 random bits: positive, and far more than the 64 that
// the CA/Browser Forum asks of a serial number.
func newSerial() (*big.Int, error) {
	b := make([]byte, 16)
	for {
		if _, err := rand.Read(b); err != nil {
			return nil, err
		}
		b[0] &= 0x7f
		if serial := new(big.Int).SetBytes(b); serial.BitLen() > 64 {
			return serial, nil
		}
	}
}

func (ids *identities) write(dir string, pass []byte) error {
	for _, id := range ids.named() {
		block, err := pemutil.Serialize(id.signer, pemutil.WithPKCS8(true), pemutil.WithPassword(pass))
		if err != nil {
			return err
		}
		if err := writeFile(dir, id.name+".key", pem.EncodeToMemory(block), 0o600); err != nil {
			return err
		}
		if err := writeFile(dir, id.name+".pem", certPEM(id.cert), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func certPEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// loadIdentities reads and decrypts the three keys, in parallel: deriving the
// decryption key is slow on purpose.
func loadIdentities(dir string, pass []byte) (*identities, error) {
	if _, err := os.Lstat(filepath.Join(dir, "ca.pem")); errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotFound
	}
	var ids identities
	var g errgroup.Group
	for _, id := range ids.named() {
		g.Go(func() error {
			got, err := loadIdentity(dir, id.name, pass)
			if err != nil {
				return err
			}
			*id.identity = *got
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if !ids.ca.cert.IsCA {
		return nil, errors.New("ca.pem is not the certificate of an authority")
	}
	for _, id := range ids.named() {
		if err := id.cert.CheckSignatureFrom(ids.ca.cert); err != nil {
			return nil, fmt.Errorf("%s.pem was not issued by ca.pem: %w", id.name, err)
		}
	}
	return &ids, nil
}

func loadIdentity(dir, name string, pass []byte) (*identity, error) {
	raw, err := readFile(filepath.Join(dir, name+".pem"))
	if err != nil {
		return nil, err
	}
	cert, err := pemutil.ParseCertificate(raw)
	if err != nil {
		return nil, fmt.Errorf("%s.pem: %w", name, err)
	}
	key, err := readFile(filepath.Join(dir, name+".key"))
	if err != nil {
		return nil, err
	}
	signer, err := decrypt(key, pass)
	if err != nil {
		return nil, fmt.Errorf("%s.key: %w", name, err)
	}
	pub, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !pub.Equal(cert.PublicKey) {
		return nil, fmt.Errorf("%s.key is not the key of %s.pem", name, name)
	}
	return &identity{cert: cert, signer: signer}, nil
}

func decrypt(key, pass []byte) (signer crypto.Signer, err error) {
	block, rest := pem.Decode(key)
	if block == nil || block.Type != "ENCRYPTED PRIVATE KEY" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("not an encrypted key")
	}
	// The library panics on ciphertexts and initialisation vectors of odd length.
	defer func() {
		if recover() != nil {
			err = errors.New("the file is damaged")
		}
	}()
	signer, err = (&softkms.SoftKMS{}).CreateSigner(&apiv1.CreateSignerRequest{SigningKeyPEM: key, Password: pass})
	if err != nil {
		// One wrong passphrase in 256 yields valid padding around noise, so
		// it cannot be told from a damaged file.
		return nil, fmt.Errorf("%w, or the file is damaged (%v)", ErrPassphrase, err)
	}
	return signer, nil
}
