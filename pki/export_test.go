// SPDX-License-Identifier: Apache-2.0

package pki

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
)

// CreateQuickToken is CreateToken with so few rounds of key derivation that
// tests need not wait. It stays quick until it is opened anew.
func CreateQuickToken(dir string, pin []byte) (*Token, error) {
	return createToken(dir, pin, quickSeal)
}

// quickSeal writes PBES2 (RFC 8018) with PBKDF2-HMAC-SHA256 and AES-256-CBC, as
// seal does.
func quickSeal(der, pin []byte) (*pem.Block, error) {
	const rounds = 10
	salt, iv := make([]byte, 16), make([]byte, aes.BlockSize)
	_, _ = rand.Read(salt)
	_, _ = rand.Read(iv)
	key, err := pbkdf2.Key(sha256.New, string(pin), salt, rounds, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	padding := aes.BlockSize - len(der)%aes.BlockSize
	text := append([]byte(nil), der...)
	for range padding {
		text = append(text, byte(padding))
	}
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(text, text)
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
	}}, text})
	if err != nil {
		return nil, err
	}
	return &pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: b}, nil
}
