// SPDX-License-Identifier: Apache-2.0

package testnet

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"go.step.sm/crypto/pemutil"

	"kontor/pki"
)

// Keys are encrypted so that a thief needs long to guess the PIN. Tests have
// nothing to steal and no time: the folders here are made by hand, with few
// rounds of key derivation.

// pin of everything.
const pin = "testnet"

// seal writes PBES2 (RFC 8018) with PBKDF2-HMAC-SHA256 and AES-256-CBC.
func seal(key any) ([]byte, error) {
	const rounds = 10
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	salt, iv := make([]byte, 16), make([]byte, aes.BlockSize)
	_, _ = rand.Read(salt) // never fails
	_, _ = rand.Read(iv)
	secret, err := pbkdf2.Key(sha256.New, pin, salt, rounds, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, err
	}
	padding := aes.BlockSize - len(der)%aes.BlockSize
	for range padding {
		der = append(der, byte(padding))
	}
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(der, der)
	type kdf struct {
		Salt   []byte
		Rounds int
		PRF    pkix.AlgorithmIdentifier
	}
	type scheme struct {
		OID    asn1.ObjectIdentifier
		Params any
	}
	b, err := asn1.Marshal(struct {
		Algorithm scheme
		Data      []byte
	}{scheme{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}, struct{ KDF, Cipher scheme }{
		scheme{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12},
			kdf{salt, rounds, pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 9}, Parameters: asn1.NullRawValue}}},
		scheme{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}, iv},
	}}, der})
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: b}), nil
}

// reseal encrypts the keys of a token anew, quickly.
func reseal(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.key.pem"))
	if err != nil {
		return err
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		block, _ := pem.Decode(b)
		der, err := pemutil.DecryptPKCS8PrivateKey(block.Bytes, []byte(pin))
		if err != nil {
			return err
		}
		key, err := x509.ParsePKCS8PrivateKey(der)
		if err != nil {
			return err
		}
		if b, err = seal(key); err != nil {
			return err
		}
		if err := os.WriteFile(file, b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// tokenKey is a key for writeToken.
type tokenKey struct {
	*Identity
	usage pki.Usage
	state string
}

// writeToken writes a software token.
func writeToken(dir string, keys ...tokenKey) error {
	type entry map[string]any
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	probe, err := newKey()
	if err != nil {
		return err
	}
	files := map[string]any{"pin-000000000000.key.pem": probe}
	list := []entry{}
	for i, k := range keys {
		file := fmt.Sprintf("key%d-000000000000.key.pem", i)
		files[file] = k.Key
		public, err := x509.MarshalPKIXPublicKey(k.Key.Public())
		if err != nil {
			return err
		}
		list = append(list, entry{"id": fmt.Sprint("key", i), "label": k.usage, "usage": k.usage, "algorithm": pki.P256, "file": file,
			"publicKey": public, "created": time.Now(),
			"certificates": []entry{{"state": k.state, "active": true, "certificate": k.Cert.Raw}}})
	}
	for name, key := range files {
		b, err := seal(key)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			return err
		}
	}
	index, err := json.Marshal(entry{"format": 1, "change": 1, "pinFile": "pin-000000000000.key.pem", "keys": list})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "token.json"), index, 0o600)
}

// writeAuthority writes a certification authority of the given age.
func writeAuthority(dir, instance string, age time.Duration) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	begin := time.Now().Add(-age).Truncate(time.Second)
	usage := func(oid asn1.ObjectIdentifier) []pkix.Extension {
		return []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: must(asn1.Marshal([]asn1.ObjectIdentifier{oid}))}}
	}
	var root *Identity
	for i, c := range []struct {
		file, name string
		extra      []pkix.Extension
		usage      x509.KeyUsage
	}{
		{"ca", "Test CA", nil, x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature},
		{"ocsp", "Test CA OCSP", usage(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 9}), x509.KeyUsageDigitalSignature},
		{"tsa", "Test CA TSA", usage(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 8}), x509.KeyUsageContentCommitment},
	} {
		key, err := newKey()
		if err != nil {
			return err
		}
		template := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{Organization: []string{instance}, CommonName: c.name},
			NotBefore: begin, NotAfter: begin.AddDate(20, 0, 0), KeyUsage: c.usage, ExtraExtensions: c.extra,
			BasicConstraintsValid: true, IsCA: root == nil,
		}
		issuer := &Identity{key, template}
		if root != nil {
			issuer = root
		}
		der, err := x509.CreateCertificate(rand.Reader, template, issuer.Cert, key.Public(), issuer.Key)
		if err != nil {
			return err
		}
		if root == nil {
			root = &Identity{Key: key}
			if root.Cert, err = x509.ParseCertificate(der); err != nil {
				return err
			}
		}
		b, err := seal(key)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, c.file+".key"), b, 0o600); err != nil {
			return err
		}
		b = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
		if err := os.WriteFile(filepath.Join(dir, c.file+".pem"), b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func newKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }
