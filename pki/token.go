// SPDX-License-Identifier: Apache-2.0

package pki

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"go.step.sm/crypto/pemutil"
)

// Errors of tokens.
var (
	// ErrNoToken: the directory holds no token.
	ErrNoToken = errors.New("no token")
	// ErrTokenExists: the directory already holds a token.
	ErrTokenExists = errors.New("token already exists")
	// ErrWrongPIN: the PIN does not open the token.
	ErrWrongPIN = errors.New("wrong PIN")
	// ErrPermissions: other users may read or change the token.
	ErrPermissions = errors.New("unsafe permissions")
	// ErrDamaged: the token's files contradict each other.
	ErrDamaged = errors.New("token damaged")
	// ErrChanged: another process changed the token; open it anew.
	ErrChanged = errors.New("token changed by another process")
	// ErrNoKey: no key of the token fits.
	ErrNoKey = errors.New("no such key")
	// ErrNoCertificate: no key of the token has that certificate.
	ErrNoCertificate = errors.New("no such certificate")
	// ErrCertificateExists: the key has that certificate already.
	ErrCertificateExists = errors.New("certificate already imported")
	// ErrCertificateUsage: the certificate's key usage does not fit the key's.
	ErrCertificateUsage = errors.New("certificate usage does not fit the key")
)

// States of certificates, named as X-Road names them.
const (
	StateSaved                  = "saved"
	StateRegistrationInProgress = "registration in progress"
	StateRegistered             = "registered"
	StateDeletionInProgress     = "deletion in progress"
	StateGlobalError            = "global error"
)

// CertStatus is what the security server knows of a certificate of its own.
type CertStatus struct {
	State  string `json:"state"`
	Active bool   `json:"active"`
}

func (s CertStatus) check() error {
	switch s.State {
	case StateSaved, StateRegistrationInProgress, StateRegistered, StateDeletionInProgress, StateGlobalError:
		return nil
	}
	return fmt.Errorf("unknown certificate state %q", s.State)
}

// TokenCert is a certificate of a key.
type TokenCert struct {
	Cert   *x509.Certificate
	Status CertStatus
}

const (
	indexName   = "token.json"
	lockName    = "token.lock"
	keySuffix   = ".key.pem"
	pinLabel    = "pin" // the file that only proves the PIN
	maxIndex    = 16 << 20
	maxKeyFile  = 64 << 10
	maxLabel    = 255
	formatMajor = 1
)

// Token is a directory of keys, each in a PKCS#8 file encrypted with the token's
// PIN, and an index with their labels, usages and certificates. Every change is
// durable when the method returns: files are written aside, synced and renamed,
// and a key exists only once the index names it. Methods are safe for
// concurrent use. Several processes may have the same token open; one that
// missed another's change gets ErrChanged when it tries one of its own.
type Token struct {
	dir  string
	seal sealer

	mu    sync.RWMutex // guards all below and the certificates of keys
	pin   []byte
	index index
	keys  []*Key
}

// sealer encrypts a PKCS#8 key with a PIN.
type sealer func(der, pin []byte) (*pem.Block, error)

func seal(der, pin []byte) (*pem.Block, error) {
	return pemutil.EncryptPKCS8PrivateKey(rand.Reader, der, pin, x509.PEMCipherAES256)
}

// Key is a key of a token.
type Key struct {
	token     *Token
	id, label string
	usage     Usage
	algorithm Algorithm
	signer    crypto.Signer
	certs     []TokenCert // guarded by token.mu, replaced, never changed in place
}

// index is the JSON file that makes a directory a token.
type index struct {
	Format  int        `json:"format"`
	Change  uint64     `json:"change"` // counts changes, tells processes of each other's
	PINFile string     `json:"pinFile"`
	Keys    []keyEntry `json:"keys"`
}

type keyEntry struct {
	ID           string      `json:"id"`
	Label        string      `json:"label"`
	Usage        Usage       `json:"usage"`
	Algorithm    Algorithm   `json:"algorithm"`
	File         string      `json:"file"`
	PublicKey    []byte      `json:"publicKey"` // SubjectPublicKeyInfo
	Created      time.Time   `json:"created"`
	Certificates []certEntry `json:"certificates"`
}

type certEntry struct {
	CertStatus
	Certificate []byte `json:"certificate"` // DER
}

// CreateToken makes a new token in dir, which is created if need be and must not
// hold a token yet (ErrTokenExists). The PIN must not be empty.
func CreateToken(dir string, pin []byte) (*Token, error) { return createToken(dir, pin, seal) }

func createToken(dir string, pin []byte, seal sealer) (*Token, error) {
	if err := checkPIN(pin); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create token: %w", err)
	}
	if err := checkMode(dir, true); err != nil {
		return nil, err
	}
	unlock, err := lock(filepath.Join(dir, lockName))
	if err != nil {
		return nil, fmt.Errorf("create token: %w", err)
	}
	defer unlock()
	if _, err := os.Lstat(filepath.Join(dir, indexName)); err == nil {
		return nil, fmt.Errorf("%w in %s", ErrTokenExists, dir)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("create token: %w", err)
	}
	t := &Token{dir: dir, seal: seal, pin: slices.Clone(pin), index: index{Format: formatMajor}}
	probe, err := P256.generate()
	if err != nil {
		return nil, fmt.Errorf("create token: %w", err)
	}
	if t.index.PINFile, err = t.writeKey(pinLabel, probe, pin); err != nil {
		return nil, fmt.Errorf("create token: %w", err)
	}
	if err := t.writeIndex(t.index); err != nil {
		return nil, fmt.Errorf("create token: %w", err)
	}
	return t, syncDir(filepath.Dir(dir))
}

// OpenToken opens the token in dir: ErrNoToken, ErrWrongPIN, ErrPermissions,
// ErrDamaged.
func OpenToken(dir string, pin []byte) (*Token, error) {
	if _, err := os.Stat(filepath.Join(dir, indexName)); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w in %s", ErrNoToken, dir)
	}
	if err := checkMode(dir, true); err != nil {
		return nil, err
	}
	unlock, err := lock(filepath.Join(dir, lockName))
	if err != nil {
		return nil, fmt.Errorf("open token: %w", err)
	}
	defer unlock()
	idx, err := readIndex(dir)
	if err != nil {
		return nil, fmt.Errorf("open token: %w", err)
	}
	t := &Token{dir: dir, seal: seal, pin: slices.Clone(pin), index: idx}
	if _, err := t.readKey(idx.PINFile, pin); err != nil {
		return nil, fmt.Errorf("open token %s: %w", dir, err)
	}
	if err := t.load(); err != nil {
		return nil, fmt.Errorf("open token %s: %w", dir, err)
	}
	t.removeOrphans()
	return t, nil
}

// load makes the keys of the index. Decryption is slow by design, so all keys
// are decrypted at once.
func (t *Token) load() error {
	t.keys = make([]*Key, len(t.index.Keys))
	failures := make([]error, len(t.index.Keys))
	var wg sync.WaitGroup
	for i, e := range t.index.Keys {
		wg.Go(func() {
			if t.keys[i], failures[i] = t.loadKey(e); failures[i] != nil {
				failures[i] = fmt.Errorf("key %s: %w", e.ID, failures[i])
			}
		})
	}
	wg.Wait()
	return errors.Join(failures...)
}

func (t *Token) loadKey(e keyEntry) (*Key, error) {
	signer, err := t.readKey(e.File, t.pin)
	if errors.Is(err, ErrWrongPIN) {
		// The PIN opened the token, so it is this file that is wrong.
		return nil, fmt.Errorf("%w: %s is not encrypted with the token's PIN", ErrDamaged, e.File)
	}
	if err != nil {
		return nil, err
	}
	public, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil || !bytes.Equal(public, e.PublicKey) || !e.Algorithm.matches(signer.Public()) {
		return nil, fmt.Errorf("%w: %s holds another key", ErrDamaged, e.File)
	}
	if _, err := ParseUsage(string(e.Usage)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	k := &Key{token: t, id: e.ID, label: e.Label, usage: e.Usage, algorithm: e.Algorithm, signer: signer}
	for _, c := range e.Certificates {
		cert, err := x509.ParseCertificate(c.Certificate)
		if err != nil {
			return nil, fmt.Errorf("%w: certificate: %w", ErrDamaged, err)
		}
		if err := c.check(); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		k.certs = append(k.certs, TokenCert{Cert: cert, Status: c.CertStatus})
	}
	return k, nil
}

// Generate makes a new key. Labels are for people and need not be unique.
func (t *Token) Generate(label string, use Usage, alg Algorithm) (*Key, error) {
	if len(label) > maxLabel {
		return nil, fmt.Errorf("generate key: label longer than %d bytes", maxLabel)
	}
	if _, err := ParseUsage(string(use)); err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	signer, err := alg.generate()
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	digest := sha256.Sum256(public)
	k := &Key{token: t, id: hex.EncodeToString(digest[:10]), label: label, usage: use, algorithm: alg, signer: signer}
	err = t.change(func(next *index) error {
		file, err := t.writeKey(k.id, signer, t.pin)
		if err != nil {
			return err
		}
		next.Keys = append(next.Keys, keyEntry{ID: k.id, Label: label, Usage: use, Algorithm: alg, File: file,
			PublicKey: public, Created: time.Now().UTC().Truncate(time.Second), Certificates: []certEntry{}})
		return nil
	}, func() { t.keys = append(t.keys, k) })
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	return k, nil
}

// Keys returns the keys in order of their creation.
func (t *Token) Keys() []*Key {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.Clone(t.keys)
}

// Key finds a key by its ID.
func (t *Token) Key(id string) (*Key, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	i := slices.IndexFunc(t.keys, func(k *Key) bool { return k.id == id })
	if i < 0 {
		return nil, false
	}
	return t.keys[i], true
}

// RemoveKey deletes a key with its certificates, irrevocably.
func (t *Token) RemoveKey(id string) error {
	var at int
	err := t.change(func(next *index) error {
		at = slices.IndexFunc(next.Keys, func(e keyEntry) bool { return e.ID == id })
		if at < 0 {
			return fmt.Errorf("%w: %s", ErrNoKey, id)
		}
		next.Keys = slices.Delete(next.Keys, at, at+1)
		return nil
	}, func() { t.keys = slices.Delete(t.keys, at, at+1) })
	if err != nil {
		return fmt.Errorf("remove key: %w", err)
	}
	return nil
}

// AddCertificate gives c to the key it certifies and returns that key: ErrNoKey
// if the token has none with its public key, ErrCertificateUsage unless c is
// clearly for the key's purpose and for no other.
func (t *Token) AddCertificate(c *x509.Certificate, st CertStatus) (*Key, error) {
	if err := st.check(); err != nil {
		return nil, fmt.Errorf("add certificate: %w", err)
	}
	k := t.keyFor(c)
	if k == nil {
		return nil, fmt.Errorf("add certificate: %w with the public key of %q", ErrNoKey, c.Subject)
	}
	auth, sign := IsAuthCert(c), IsSignCert(c)
	switch {
	case auth && sign:
		return nil, fmt.Errorf("add certificate: %w: it is for both signing and authentication", ErrCertificateUsage)
	case auth != (k.usage == Authentication) || sign != (k.usage == Signing):
		return nil, fmt.Errorf("add certificate: %w: the key is for %s", ErrCertificateUsage, k.usage)
	}
	err := t.changeKey(k, func(certs []TokenCert) ([]TokenCert, error) {
		if slices.ContainsFunc(certs, func(have TokenCert) bool { return have.Cert.Equal(c) }) {
			return nil, ErrCertificateExists
		}
		return append(certs, TokenCert{Cert: c, Status: st}), nil
	})
	if err != nil {
		return nil, fmt.Errorf("add certificate: %w", err)
	}
	return k, nil
}

func (t *Token) keyFor(c *x509.Certificate) *Key {
	t.mu.RLock()
	defer t.mu.RUnlock()
	i := slices.IndexFunc(t.keys, func(k *Key) bool { return samePublicKey(k.Public(), c.PublicKey) })
	if i < 0 {
		return nil
	}
	return t.keys[i]
}

// Certificate finds a certificate and its key.
func (t *Token) Certificate(hash CertHash) (*Key, TokenCert, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, k := range t.keys {
		for _, c := range k.certs {
			if HashOf(c.Cert) == hash {
				return k, c, true
			}
		}
	}
	return nil, TokenCert{}, false
}

// SetCertificate changes the status of a certificate: ErrNoCertificate.
func (t *Token) SetCertificate(hash CertHash, st CertStatus) error {
	if err := st.check(); err != nil {
		return fmt.Errorf("set certificate: %w", err)
	}
	return t.changeCertificate("set certificate", hash, func(certs []TokenCert, i int) []TokenCert {
		certs[i].Status = st
		return certs
	})
}

// RemoveCertificate takes a certificate from its key: ErrNoCertificate.
func (t *Token) RemoveCertificate(hash CertHash) error {
	return t.changeCertificate("remove certificate", hash, func(certs []TokenCert, i int) []TokenCert {
		return slices.Delete(certs, i, i+1)
	})
}

func (t *Token) changeCertificate(what string, hash CertHash, edit func([]TokenCert, int) []TokenCert) error {
	k, _, ok := t.Certificate(hash)
	if !ok {
		return fmt.Errorf("%s: %w: %s", what, ErrNoCertificate, hash)
	}
	err := t.changeKey(k, func(certs []TokenCert) ([]TokenCert, error) {
		i := slices.IndexFunc(certs, func(c TokenCert) bool { return HashOf(c.Cert) == hash })
		if i < 0 {
			return nil, fmt.Errorf("%w: %s", ErrNoCertificate, hash)
		}
		return edit(certs, i), nil
	})
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// changeKey replaces the certificates of k by what edit makes of a copy.
func (t *Token) changeKey(k *Key, edit func([]TokenCert) ([]TokenCert, error)) error {
	var certs []TokenCert
	return t.change(func(next *index) error {
		i := slices.IndexFunc(next.Keys, func(e keyEntry) bool { return e.ID == k.id })
		if i < 0 {
			return fmt.Errorf("%w: %s", ErrNoKey, k.id)
		}
		var err error
		if certs, err = edit(slices.Clone(k.certs)); err != nil {
			return err
		}
		entries := make([]certEntry, len(certs))
		for j, c := range certs {
			entries[j] = certEntry{CertStatus: c.Status, Certificate: c.Cert.Raw}
		}
		next.Keys[i].Certificates = entries
		return nil
	}, func() { k.certs = certs })
}

// ChangePIN encrypts all keys anew. It takes effect at once: after a crash the
// token opens with either the old PIN or the new one, whole. The old files are
// removed, but a disk may keep their blocks; a PIN that became known calls for
// new keys.
func (t *Token) ChangePIN(old, new []byte) error {
	if err := checkPIN(new); err != nil {
		return err
	}
	err := t.change(func(next *index) error {
		if !bytes.Equal(old, t.pin) {
			return ErrWrongPIN
		}
		probe, err := P256.generate()
		if err != nil {
			return err
		}
		if next.PINFile, err = t.writeKey(pinLabel, probe, new); err != nil {
			return err
		}
		for i := range next.Keys {
			if next.Keys[i].File, err = t.writeKey(next.Keys[i].ID, t.keys[i].signer, new); err != nil {
				return err
			}
		}
		return nil
	}, func() { t.pin = slices.Clone(new) })
	if err != nil {
		return fmt.Errorf("change PIN: %w", err)
	}
	return nil
}

// change makes one durable change: edit alters a copy of the index and may write
// new key files, the index is replaced, and only then apply alters the memory.
func (t *Token) change(edit func(next *index) error, apply func()) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	unlock, err := lock(filepath.Join(t.dir, lockName))
	if err != nil {
		return err
	}
	defer unlock()
	onDisk, err := readIndex(t.dir)
	if err != nil {
		return err
	}
	if onDisk.Change != t.index.Change {
		return ErrChanged
	}
	next := t.index
	next.Change++
	next.Keys = slices.Clone(t.index.Keys)
	if err := edit(&next); err != nil {
		t.removeOrphans()
		return err
	}
	if err := t.writeIndex(next); err != nil {
		// The rename may or may not have happened: leave the new key files
		// alone, the next start removes those that nothing names.
		return err
	}
	t.index = next
	apply()
	t.removeOrphans()
	return nil
}

// removeOrphans deletes key files that the index does not name: remains of a
// crash, or of the change just made. The lock must be held, for between the
// writing of a key and of the index every new key is an orphan. Failure is
// harmless, the next start tries again.
func (t *Token) removeOrphans() {
	named := map[string]bool{t.index.PINFile: true}
	for _, e := range t.index.Keys {
		named[e.File] = true
	}
	entries, err := os.ReadDir(t.dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if name := e.Name(); !named[name] && (strings.HasSuffix(name, keySuffix) || strings.HasPrefix(name, tempPrefix)) {
			_ = os.Remove(filepath.Join(t.dir, name))
		}
	}
}

func (t *Token) writeIndex(x index) error {
	b, err := json.MarshalIndent(x, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(t.dir, indexName), append(b, '\n'))
}

func readIndex(dir string) (index, error) {
	var x index
	b, err := readFile(filepath.Join(dir, indexName), maxIndex)
	if err != nil {
		return x, err
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&x); err != nil {
		return x, fmt.Errorf("%w: %s: %w", ErrDamaged, indexName, err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return x, fmt.Errorf("%w: %s: trailing data", ErrDamaged, indexName)
	}
	if x.Format != formatMajor {
		return x, fmt.Errorf("%w: %s has format %d, this program knows %d", ErrDamaged, indexName, x.Format, formatMajor)
	}
	return x, nil
}

// writeKey stores a key, encrypted, in a new file of which nothing knows yet.
// The random part of the name lets old and new versions stand side by side.
func (t *Token) writeKey(name string, key crypto.Signer, pin []byte) (file string, err error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", err
	}
	block, err := t.seal(der, pin)
	if err != nil {
		return "", err
	}
	var nonce [6]byte
	_, _ = rand.Read(nonce[:])
	file = name + "-" + hex.EncodeToString(nonce[:]) + keySuffix
	return file, writeFile(filepath.Join(t.dir, file), pem.EncodeToMemory(block))
}

func (t *Token) readKey(file string, pin []byte) (_ crypto.Signer, err error) {
	if file != filepath.Base(file) || !strings.HasSuffix(file, keySuffix) {
		return nil, fmt.Errorf("%w: the index names %q", ErrDamaged, file)
	}
	b, err := readFile(filepath.Join(t.dir, file), maxKeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s is missing", ErrDamaged, file)
	}
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(b)
	if block == nil || block.Type != "ENCRYPTED PRIVATE KEY" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("%w: %s is not an encrypted key", ErrDamaged, file)
	}
	// The library panics on ciphertexts and initialisation vectors of odd length.
	defer func() {
		if recover() != nil {
			err = fmt.Errorf("%w: %s is not an encrypted key", ErrDamaged, file)
		}
	}()
	der, err := pemutil.DecryptPKCS8PrivateKey(block.Bytes, pin)
	if errors.Is(err, x509.IncorrectPasswordError) {
		return nil, ErrWrongPIN
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, file, err)
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		// One wrong PIN in 256 yields a valid padding around noise.
		return nil, ErrWrongPIN
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%w: %s holds a key that cannot sign", ErrDamaged, file)
	}
	return signer, nil
}

func checkPIN(pin []byte) error {
	if len(pin) == 0 {
		return errors.New("the PIN must not be empty")
	}
	return nil
}

// ID identifies the key within its token.
func (k *Key) ID() string { return k.id }

// Label is the name that people gave to the key.
func (k *Key) Label() string { return k.label }

// Usage says what the key is for.
func (k *Key) Usage() Usage { return k.usage }

// Algorithm returns the key's type and size.
func (k *Key) Algorithm() Algorithm { return k.algorithm }

// Public returns the public key.
func (k *Key) Public() crypto.PublicKey { return k.signer.Public() }

// Certificates returns the key's certificates in order of import.
func (k *Key) Certificates() []TokenCert {
	k.token.mu.RLock()
	defer k.token.mu.RUnlock()
	return slices.Clone(k.certs)
}

// Signer signs with the key. It is safe for concurrent use, and the private key
// cannot be had from it.
func (k *Key) Signer() crypto.Signer { return keySigner{k.signer} }

type keySigner struct{ key crypto.Signer }

func (s keySigner) Public() crypto.PublicKey { return s.key.Public() }

func (s keySigner) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.key.Sign(random, digest, opts)
}
