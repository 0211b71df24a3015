// SPDX-License-Identifier: Apache-2.0

// Package registry is the central server of an ecosystem: it knows the members,
// their subsystems and security servers, the approved trust services and the
// parameters that hold for all, and publishes them as the global configuration
// that gateways and X-Road security servers poll.
//
// What it knows is a journal: every accepted change is one entry, durable and
// chained to the one before, and the current State is their fold. Changes come
// in sets through one door, Registry.Apply (or Update), which accepts all of a
// set or nothing. Plan computes the set that makes a declaration true.
//
// From the state the configuration of every version is generated, read back by
// the reader that gateways use, and only then put in place of the last one. A
// configuration that fails is never published; the last good one stays until
// it expires.
//
// The directory of a registry:
//
//	journal/  the journal (Pebble)
//	keys/     the signing keys of the two sources, encrypted with the PIN
//	public/   what is published, laid out so that any web server could serve it
//
// The journal may be in a SharedStore instead, which the directories of several
// nodes have in common: all of them accept changes and publish. Each follows
// what the others append, and keeps publishing what it knows when it cannot.
package registry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/zap"

	"kontor/pki"
)

// Versions of the global configuration that a registry publishes.
const (
	minVersion = 2
	maxVersion = 6
)

const (
	journalDir = "journal"
	keysDir    = "keys"
	publicDir  = "public"
	lockFile   = "LOCK" // named as the databases' own

	maxReason = 2000 // characters of an author's reason
	maxRaces  = 100  // times that other nodes may come first in one update
)

var (
	// ErrCreated says that Create found a registry already.
	ErrCreated = errors.New("a registry exists here already")
	// ErrNotFound says that Open found no registry.
	ErrNotFound = errors.New("no registry here")

	errClosed = errors.New("the registry is closed")
)

// CreateConfig describes a new registry.
type CreateConfig struct {
	// Instance is the identifier of the ecosystem; it can never be changed.
	Instance string
	// Address is the host name or IP address at which all clients reach the
	// registry, with a port if that is not 80. Without a port, clients also
	// try HTTPS.
	Address string
	// Algorithm of the two signing keys; empty means RSA-3072, which every
	// release of X-Road reads.
	Algorithm pki.Algorithm
	// By is written to the journal as the author of the first entries.
	By Author
	// Store overrides where the journal is kept; nil means in the directory.
	// Create closes it.
	Store Store
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Config is what Open needs beside the directory.
type Config struct {
	// Interval between two publications without a change; zero means a minute.
	Interval time.Duration
	// PublicDir overrides where the publication is kept; empty means in the
	// directory. Nothing else may be in it. A web server that is to serve it
	// needs a folder of its own here, as the registry's is closed to others.
	PublicDir string
	// Store overrides where the journal is kept; nil means in the directory.
	// The registry closes it. Other nodes may have a SharedStore open as well.
	Store Store
	// Node is the name under which this node joined; empty means the first one.
	Node string
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Log receives what an operator should act upon; nil discards it.
	Log *zap.Logger
}

// Registry is an open registry. It is safe for concurrent use.
type Registry struct {
	cfg   Config
	token *pki.Token
	store Store
	pub   *publisher

	state   atomic.Pointer[State]
	changed chan struct{} // holds a token while a change awaits publication
	trouble atomic.Pointer[trouble]
	unwatch func() // ends watching other nodes
	unlock  func() error

	mu      sync.Mutex // held while a change set is accepted
	journal *journal

	close func() error
}

// Create makes a registry in dir with its signing keys. What an interrupted
// Create left behind is used by the next one, with the same PIN.
func Create(dir string, pin []byte, cfg CreateConfig) error {
	if err := create(dir, pin, cfg); err != nil {
		return fmt.Errorf("create registry %s: %w", dir, err)
	}
	return nil
}

func create(dir string, pin []byte, cfg CreateConfig) (err error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Algorithm == "" {
		cfg.Algorithm = pki.RSA3072
	}
	if err := checkAuthor(cfg.By); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	store := cfg.Store
	if store == nil {
		if store, err = openPebble(filepath.Join(dir, journalDir), vfs.Default, zap.NewNop()); err != nil {
			return err
		}
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	j, st, err := openJournal(store)
	if err != nil {
		return err
	}
	if st.number > 0 && j.shared {
		return fmt.Errorf("%w; to add a further node to it, join it", ErrCreated)
	}
	if st.number > 0 {
		return ErrCreated
	}
	system := st.System()
	system.Address = cfg.Address
	changes := []Change{&FoundInstance{cfg.Instance}, &SetSystem{system}}
	if _, err := st.Try(changes); err != nil { // before a key is made for nothing
		return err
	}
	keys, err := firstKeys(dir, pin, "", cfg.Algorithm)
	if err != nil {
		return err
	}
	changes = append(changes, keys...)
	at := cfg.Now().UTC()
	if _, err := st.try(at, cfg.By, changes); err != nil {
		return err
	}
	return j.append(at, cfg.By, changes)
}

// firstKeys makes a node's first signing keys in its directory and the changes
// that put them to use.
func firstKeys(dir string, pin []byte, node string, alg pki.Algorithm) ([]Change, error) {
	token, err := pki.CreateToken(filepath.Join(dir, keysDir), pin)
	if errors.Is(err, pki.ErrTokenExists) {
		token, err = pki.OpenToken(filepath.Join(dir, keysDir), pin)
	}
	if err != nil {
		return nil, err
	}
	var changes []Change
	for _, src := range []Source{Internal, External} {
		cert, err := newSourceKey(token, src, alg)
		if err != nil {
			return nil, err
		}
		changes = append(changes, &AddKey{src, cert, node}, &ActivateKey{src, hashOf(cert)})
	}
	return changes, nil
}

// Open opens the registry that Create or Join made in dir. Only one process can
// have it open. The whole journal is checked and folded; a damaged one is
// ErrJournal.
func Open(dir string, pin []byte, cfg Config) (*Registry, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	if cfg.Interval <= 0 {
		cfg.Interval = time.Minute
	}
	r, err := open(dir, pin, cfg)
	if err != nil {
		return nil, fmt.Errorf("open registry %s: %w", dir, err)
	}
	return r, nil
}

func open(dir string, pin []byte, cfg Config) (_ *Registry, err error) {
	store := cfg.Store
	if store == nil {
		if _, err := os.Stat(filepath.Join(dir, journalDir)); errors.Is(err, os.ErrNotExist) {
			return nil, ErrNotFound
		}
		if store, err = openPebble(filepath.Join(dir, journalDir), vfs.Default, cfg.Log); err != nil {
			return nil, err
		}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, store.Close())
		}
	}()
	j, st, err := openJournal(store)
	if err != nil {
		return nil, err
	}
	if st.number == 0 {
		return nil, ErrNotFound
	}
	if st.node(cfg.Node) == nil {
		return nil, fmt.Errorf("%w: node %s is not one of the registry's; join it first (kontor registry init --join)", ErrNotFound, cfg.Node)
	}
	token, err := pki.OpenToken(filepath.Join(dir, keysDir), pin)
	if err != nil {
		return nil, err
	}
	if cfg.PublicDir == "" {
		cfg.PublicDir = filepath.Join(dir, publicDir)
	}
	pub, err := openPublisher(cfg.PublicDir, cfg)
	if err != nil {
		return nil, err
	}
	r := &Registry{cfg: cfg, token: token, store: store, pub: pub, journal: j, changed: make(chan struct{}, 1), unlock: func() error { return nil }}
	if j.shared { // a journal of one's own is locked already
		lock, err := vfs.Default.Lock(filepath.Join(dir, lockFile))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("this node runs already: %w", err), pub.close())
		}
		r.unlock = lock.Close
	}
	r.close = sync.OnceValue(r.shut)
	r.state.Store(st)
	r.unwatch = func() {}
	if shared, ok := store.(SharedStore); ok {
		r.watch(shared)
	}
	return r, nil
}

// Close releases the directory. Run must have returned, and nothing but State
// and Status may be called any more. Only the first call does anything.
func (r *Registry) Close() error { return r.close() }

func (r *Registry) shut() error {
	r.unwatch()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.journal.failed = errClosed
	return errors.Join(r.pub.close(), r.store.Close(), r.unlock())
}

// State returns the current state, an immutable snapshot.
func (r *Registry) State() *State { return r.state.Load() }

// Apply accepts the changes as one set, in order, and returns the number of the
// last journal entry. They are durable when it returns; publication follows
// (Run, Publish). An error that is a Refusal says which change is not
// acceptable and why; after any error, nothing has changed. No changes are no
// entry.
func (r *Registry) Apply(ctx context.Context, by Author, changes []Change) (uint64, error) {
	return r.Update(ctx, by, func(*State) ([]Change, error) { return changes, nil })
}

// Update is Apply for changes that depend on the state: choose returns them
// for the state that they will be applied to, and nothing comes between. Its
// error is passed on. It must not call Apply or Update, and may be called
// again with a newer state if another node comes first.
func (r *Registry) Update(ctx context.Context, by Author, choose func(*State) ([]Change, error)) (uint64, error) {
	if err := checkAuthor(by); err != nil {
		return 0, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if r.journal.shared { // who refuses something should know what others did
		if err := r.catchUp(); err != nil {
			return 0, err
		}
	}
	for range maxRaces {
		number, err := r.update(by, choose)
		if !errors.Is(err, ErrMoved) || !r.journal.shared {
			return number, err
		}
		if err := errors.Join(r.catchUp(), ctx.Err()); err != nil {
			return 0, err
		}
	}
	return 0, fmt.Errorf("%w, again and again; nothing has changed, try later", ErrMoved)
}

// update is one attempt to append to the journal as this node knows it; r.mu is
// held.
func (r *Registry) update(by Author, choose func(*State) ([]Change, error)) (uint64, error) {
	st := r.State()
	changes, err := choose(st)
	if err != nil {
		return 0, err
	}
	if len(changes) == 0 {
		return st.number, nil
	}
	at := r.cfg.Now().UTC()
	next, err := st.try(at, by, changes)
	if err != nil {
		return 0, err
	}
	if err := r.checkKeys(next, changes); err != nil {
		return 0, err
	}
	if err := r.journal.append(at, by, changes); err != nil {
		return 0, err
	}
	r.moveTo(next, changes)
	return next.number, nil
}

// moveTo makes the state after some changes the current one; r.mu is held.
func (r *Registry) moveTo(next *State, changes []Change) {
	before := r.State()
	r.state.Store(next)
	r.removeRetired(before, changes)
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// Journal calls fn for the entries from the given number on, oldest first,
// until fn returns an error, which is passed on.
func (r *Registry) Journal(ctx context.Context, from uint64, fn func(*Entry) error) error {
	return r.store.Scan(from, func(_ uint64, b []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		e, err := decodeEntry(b)
		if err != nil {
			return err
		}
		return fn(e)
	})
}

func checkAuthor(by Author) error {
	if strings.TrimSpace(by.Who) == "" {
		return errors.New("a change needs an author: who decided it")
	}
	for _, text := range []string{by.Who, by.Why, by.Request} {
		if !utf8.ValidString(text) || utf8.RuneCountInString(text) > maxReason || strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }) {
			return fmt.Errorf("author, reason and request must be text of at most %d characters", maxReason)
		}
	}
	return nil
}
