// SPDX-License-Identifier: Apache-2.0

// Package mirror is a configuration proxy: it downloads the global
// configuration of another registry, verifies it, signs it with its own key and
// serves it, in every version that it found. Gateways that load through it trust
// its anchor instead of the registry's.
//
// What it serves is what the registry said, but for the sources in the shared
// parameters, which name the mirror and its key. A source of the configuration
// that fails leaves the last good one in place until that expires, at the latest
// when the registry said that it would: a mirror does not prolong what it was
// given. Nothing is served that the reader of gateways refuses.
//
// The directory of a mirror:
//
//	keys/         the signing key, encrypted with the PIN
//	mirror.json   its certificate
//	upstream/VN/  what was downloaded, with the registry's signature
//	public/       the parts that are served
package mirror

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"kontor/pki"
	"kontor/registry/globalconf"
)

const (
	keysDir     = "keys"
	upstreamDir = "upstream"
	publicDir   = "public"
	indexFile   = "mirror.json"

	defaultInterval = time.Minute
	defaultValidity = 10 * time.Minute
	firstRetry      = time.Second
	// keepParts is how long parts stay after something newer replaced them.
	keepParts = 600 * time.Second
)

var (
	// ErrCreated says that Create found a mirror already.
	ErrCreated = errors.New("a mirror exists here already")
	// ErrNotFound says that Open found no mirror.
	ErrNotFound = errors.New("no mirror here")
	// ErrUnavailable says that no version could be brought up to date.
	ErrUnavailable = errors.New("the configuration could not be mirrored")
)

// DefaultName is the first segment of a mirror's addresses.
const DefaultName = "mirror"

var nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)

// CheckName refuses what cannot be the name of a mirror. Names of a registry's
// own sources are taken: clients choose keys by them.
func CheckName(name string) error {
	if !nameForm.MatchString(name) || name == "internalconf" || name == "externalconf" {
		return fmt.Errorf("%q cannot be the name of a mirror; use letters, digits, - and _", name)
	}
	return nil
}

// Config is what Open needs beside the directory.
type Config struct {
	Name       string // first segment of all addresses; DefaultName if empty
	Address    string // host, with a port if that is not 80, at which clients reach the mirror
	AnchorFile string // anchor of the registry that is mirrored; read again in every cycle
	External   bool   // the anchor is that of an external source
	// Federations lists the instances whose shared parameters are mirrored, too,
	// as in globalconf.ClientConfig. Gateways download those of federated
	// instances themselves; X-Road's security servers take them from here.
	Federations []string
	Interval    time.Duration // between two downloads; a minute if zero
	Validity    time.Duration // of what is served, at most; ten minutes if zero
	HTTP        *http.Client  // nil: a client with X-Road's timeouts
	Now         func() time.Time
	Log         *zap.Logger // what an operator should act upon; may be nil
}

// Mirror is an open mirror. It is safe for concurrent use.
type Mirror struct {
	cfg    Config
	dir    string
	key    crypto.Signer
	cert   *x509.Certificate
	anchor *globalconf.Anchor
	// anchorXML is what Anchor returns.
	anchorXML []byte
	public    *os.Root
	upstream  map[int]*upstream

	site atomic.Pointer[site] // what is served

	mu       sync.Mutex // held by Update
	last     int64      // newest generation, in milliseconds
	replaced []replaced
}

// upstream is one configuration version of the registry.
type upstream struct {
	client *globalconf.Client
	err    error // of the last download
}

type replaced struct {
	folder string
	paths  []string
	at     time.Time
}

// index is mirror.json.
type index struct {
	Created     time.Time `json:"created"`
	Certificate []byte    `json:"certificate"`
}

// Create makes the key of a new mirror in dir.
func Create(dir string, pin []byte, alg pki.Algorithm) error {
	if err := create(dir, pin, alg); err != nil {
		return fmt.Errorf("create mirror %s: %w", dir, err)
	}
	return nil
}

func create(dir string, pin []byte, alg pki.Algorithm) error {
	if alg == "" {
		alg = pki.RSA3072
	}
	file := filepath.Join(dir, indexFile)
	if _, err := os.Lstat(file); err == nil {
		return ErrCreated
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	token, err := pki.CreateToken(filepath.Join(dir, keysDir), pin)
	if errors.Is(err, pki.ErrTokenExists) { // an interrupted Create
		token, err = pki.OpenToken(filepath.Join(dir, keysDir), pin)
	}
	if err != nil {
		return err
	}
	key, err := token.Generate("mirrorSigningKey", pki.Signing, alg)
	if err != nil {
		return err
	}
	// Only a container for the public key, in the form of X-Road's.
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mirrorSigningKey"},
		NotBefore: time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2038, 1, 1, 0, 0, 0, 0, time.UTC),
		KeyUsage:              x509.KeyUsageContentCommitment | x509.KeyUsageCertSign,
		BasicConstraintsValid: true, IsCA: true, SignatureAlgorithm: x509.SHA512WithRSA,
	}
	if _, ok := key.Public().(*ecdsa.PublicKey); ok {
		template.SignatureAlgorithm = x509.ECDSAWithSHA512
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key.Signer())
	if err != nil {
		return err
	}
	b, err := json.Marshal(index{time.Now().UTC().Truncate(time.Second), der})
	if err != nil {
		return err
	}
	return writeFile(file, b)
}

// Open opens the mirror that Create made in dir. What was downloaded before is
// served at once.
func Open(dir string, pin []byte, cfg Config) (*Mirror, error) {
	if cfg.Name == "" {
		cfg.Name = DefaultName
	}
	if cfg.Interval <= 0 {
		cfg.Interval = defaultInterval
	}
	if cfg.Validity <= 0 {
		cfg.Validity = defaultValidity
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	m, err := open(dir, pin, cfg)
	if err != nil {
		return nil, fmt.Errorf("open mirror %s: %w", dir, err)
	}
	return m, nil
}

func open(dir string, pin []byte, cfg Config) (*Mirror, error) {
	if err := CheckName(cfg.Name); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(dir, indexFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	var ix index
	if err := json.Unmarshal(b, &ix); err != nil {
		return nil, fmt.Errorf("%s: %w", indexFile, err)
	}
	m := &Mirror{cfg: cfg, dir: dir, upstream: map[int]*upstream{}}
	m.site.Store(&site{})
	if m.cert, err = x509.ParseCertificate(ix.Certificate); err != nil {
		return nil, err
	}
	if m.key, err = openKey(filepath.Join(dir, keysDir), pin, m.cert); err != nil {
		return nil, err
	}
	if err := m.newAnchor(ix.Created); err != nil {
		return nil, err
	}
	original, err := os.ReadFile(cfg.AnchorFile)
	if err != nil {
		return nil, fmt.Errorf("anchor: %w", err)
	}
	if a, err := globalconf.ParseAnchor(original); err != nil {
		return nil, fmt.Errorf("anchor: %w", err)
	} else if slices.ContainsFunc(a.Certificates(), m.cert.Equal) {
		return nil, errors.New("the anchor is this mirror's own; give that of the registry")
	}
	for v := globalconf.MinVersion; v <= globalconf.CurrentVersion; v++ {
		client, err := globalconf.NewClient(globalconf.ClientConfig{
			AnchorFile: cfg.AnchorFile, External: cfg.External, Dir: filepath.Join(dir, upstreamDir, "V"+strconv.Itoa(v)),
			HTTP: cfg.HTTP, AllowedFederations: cfg.Federations, Version: v, Now: cfg.Now})
		if err != nil {
			return nil, err
		}
		m.upstream[v] = &upstream{client: client}
	}
	if err := m.openPublic(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.publish(context.Background()); err != nil {
		cfg.Log.Warn("what was mirrored before is not served", zap.Error(err))
	}
	return m, nil
}

func openKey(dir string, pin []byte, cert *x509.Certificate) (crypto.Signer, error) {
	token, err := pki.OpenToken(dir, pin)
	if err != nil {
		return nil, err
	}
	for _, key := range token.Keys() {
		if pub, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); ok && pub.Equal(cert.PublicKey) {
			return key.Signer(), nil
		}
	}
	return nil, errors.New("the token does not hold the key of the mirror's certificate")
}

// newAnchor makes the anchor of the mirror. It carries the identifier of the
// mirrored instance.
func (m *Mirror) newAnchor(created time.Time) error {
	b, err := os.ReadFile(m.cfg.AnchorFile)
	if err != nil {
		return fmt.Errorf("anchor: %w", err)
	}
	original, err := globalconf.ParseAnchor(b)
	if err != nil {
		return err
	}
	m.anchor = &globalconf.Anchor{Generated: created, Instance: original.Instance}
	schemes := []string{"http", "https"}
	if _, port, err := net.SplitHostPort(m.cfg.Address); err == nil && port != "" {
		schemes = schemes[:1] // one port does not serve both
	}
	for _, scheme := range schemes {
		m.anchor.Sources = append(m.anchor.Sources, globalconf.AnchorSource{
			URL: scheme + "://" + m.host() + m.path("conf"), Certs: [][]byte{m.cert.Raw}})
	}
	m.anchorXML, err = m.anchor.Marshal()
	return err
}

// host is the address as it stands in URLs.
func (m *Mirror) host() string {
	if ip := net.ParseIP(m.cfg.Address); ip != nil && ip.To4() == nil {
		return "[" + m.cfg.Address + "]"
	}
	return m.cfg.Address
}

func (m *Mirror) path(rest string) string { return "/" + m.cfg.Name + "/" + rest }

// Anchor returns the anchor for the gateways that load through the mirror.
func (m *Mirror) Anchor() []byte { return slices.Clone(m.anchorXML) }

// Close releases the directory. Run must have returned.
func (m *Mirror) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.public.Close()
}

// Update downloads once and publishes what came. It fails if not a single
// version is up to date; Status tells how each fares.
func (m *Mirror) Update(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all errgroup.Group
	for _, u := range m.upstream {
		all.Go(func() error { u.err = u.client.Update(ctx); return nil })
	}
	_ = all.Wait() // always nil: every version has its own error
	err := m.publish(ctx)
	var errs []error
	for _, u := range m.upstream {
		if u.err == nil {
			return err
		}
		errs = append(errs, u.err)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, errors.Join(append(errs, err)...))
}

// Run updates at once and then every Interval, until ctx ends; after a failure
// sooner.
func (m *Mirror) Run(ctx context.Context) error {
	retry := firstRetry
	for {
		wait := m.cfg.Interval
		if err := m.Update(ctx); err != nil && ctx.Err() == nil {
			m.cfg.Log.Error("configuration was not mirrored; the last good one stays until it expires", zap.Error(err), zap.Time("valid until", m.Status().Expires))
			wait, retry = min(wait, retry), min(2*retry, m.cfg.Interval)
		} else {
			retry = firstRetry
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// VersionStatus is the condition of one configuration version.
type VersionStatus struct {
	Version  int       `json:"version"`
	Expires  time.Time `json:"expires,omitzero"` // of what is served; zero: nothing is
	Location string    `json:"location,omitempty"`
	Updated  time.Time `json:"updated,omitzero"`
	Error    string    `json:"error,omitempty"` // of the last download
}

// Status is the condition of a mirror.
type Status struct {
	Instance string          `json:"instance"`
	Expires  time.Time       `json:"expires,omitzero"` // the last of all versions
	Versions []VersionStatus `json:"versions"`
	Healthy  bool            `json:"healthy"` // something valid is served
}

// Status returns the condition at this moment.
func (m *Mirror) Status() Status {
	s := Status{Instance: m.anchor.Instance}
	served := m.site.Load()
	for _, v := range slices.Sorted(maps.Keys(m.upstream)) {
		stats := m.upstream[v].client.Stats()
		vs := VersionStatus{Version: v, Location: stats.Location, Updated: stats.LastSuccess}
		if stats.LastError != nil {
			vs.Error = stats.LastError.Error()
		}
		if d := served.directories[v]; d != nil {
			vs.Expires = d.expires
			if d.expires.After(s.Expires) {
				s.Expires = d.expires
			}
		}
		s.Versions = append(s.Versions, vs)
	}
	s.Healthy = m.cfg.Now().Before(s.Expires)
	return s
}

func writeFile(path string, b []byte) (err error) {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
