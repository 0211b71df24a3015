// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/zap"

	"kontor/pki"
)

// pollInterval is how often a node asks a shared store for news, in case a
// notification was lost.
const pollInterval = 500 * time.Millisecond

// JoinConfig describes a further node of a registry.
type JoinConfig struct {
	// Node is its name; empty, only with Replace, means the first node.
	Node string
	// Address at which clients reach this node, as CreateConfig.Address.
	Address string
	// Replace allows the name of a node that has joined before, and whose
	// directory is lost. Its signing keys are retired.
	Replace bool
	// Algorithm of the two signing keys; empty means RSA-3072.
	Algorithm pki.Algorithm
	// By is written to the journal as the author.
	By Author
	// Store holds the journal that another node created. Join closes it.
	Store SharedStore
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Join makes a further node of an existing registry in dir, with signing keys of
// its own. All nodes accept changes and publish; clients learn the new address
// and keys from the configuration.
func Join(dir string, pin []byte, cfg JoinConfig) error {
	if err := join(dir, pin, cfg); err != nil {
		return fmt.Errorf("join registry in %s: %w", dir, err)
	}
	return nil
}

func join(dir string, pin []byte, cfg JoinConfig) (err error) {
	defer func() { err = errors.Join(err, cfg.Store.Close()) }()
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Algorithm == "" {
		cfg.Algorithm = pki.RSA3072
	}
	if err := checkAuthor(cfg.By); err != nil {
		return err
	}
	j, st, err := openJournal(cfg.Store)
	if err != nil {
		return err
	}
	if st.number == 0 {
		return fmt.Errorf("%w: create it on the first node", ErrNotFound)
	}
	choose := func(st *State) ([]Change, error) {
		place := &SetNode{cfg.Node, cfg.Address}
		switch {
		case cfg.Node == "" && !cfg.Replace:
			return nil, refuse(place, ErrInvalid, "a further node needs a name", "give one (node)")
		case st.node(cfg.Node) != nil && !cfg.Replace:
			return nil, refuse(place, ErrExists, nodeName(cfg.Node)+" exists already", "choose another name or, if that node is lost, replace it (--replace)")
		case cfg.Node != "":
			return []Change{place}, nil
		}
		system := st.System()
		system.Address = cfg.Address
		return []Change{&SetSystem{system}}, nil
	}
	changes, err := choose(st)
	if err != nil {
		return err
	}
	if _, err := st.Try(changes); err != nil { // before a key is made for nothing
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	keys, err := firstKeys(dir, pin, cfg.Node, cfg.Algorithm)
	if err != nil {
		return err
	}
	for range maxRaces {
		if changes, err = choose(st); err != nil {
			return err
		}
		changes = append(changes, keys...)
		for _, src := range []Source{Internal, External} {
			for _, k := range st.nodeKeys(cfg.Node, src) {
				changes = append(changes, &RetireKey{src, k.Hash()})
			}
		}
		at := cfg.Now().UTC()
		if _, err := st.try(at, cfg.By, changes); err != nil {
			return err
		}
		err := j.append(at, cfg.By, changes)
		if !errors.Is(err, ErrMoved) {
			return err
		}
		if st, _, err = j.follow(st); err != nil {
			return err
		}
	}
	return ErrMoved
}

// Move moves the journal of the registry in dir, which must not be open, into a
// store that other nodes can share; from then on it is opened with that store.
// The store must be empty, and is closed. An interrupted Move can be repeated.
func Move(dir string, to SharedStore) error {
	if err := move(dir, to); err != nil {
		return fmt.Errorf("move journal of registry %s: %w", dir, err)
	}
	return nil
}

func move(dir string, to SharedStore) (err error) {
	defer func() { err = errors.Join(err, to.Close()) }()
	local := filepath.Join(dir, journalDir)
	if _, err := os.Stat(local); errors.Is(err, os.ErrNotExist) {
		return ErrNotFound
	}
	from, err := openPebble(local, vfs.Default, zap.NewNop())
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, from.Close()); err == nil {
			err = os.Rename(local, local+".moved")
		}
	}()
	j, st, err := openJournal(from) // nothing damaged is moved
	if err != nil {
		return err
	}
	if st.number == 0 {
		return ErrNotFound
	}
	if have, err := to.Head(); err != nil || bytes.Equal(have, j.raw) {
		return err
	}
	var all [][]byte
	if err := from.Scan(1, func(_ uint64, b []byte) error {
		all = append(all, bytes.Clone(b))
		return nil
	}); err != nil {
		return err
	}
	err = to.Append(nil, 1, all, j.raw)
	if errors.Is(err, ErrMoved) {
		return fmt.Errorf("%w: the store holds another journal", ErrCreated)
	}
	return err
}

// trouble is what keeps this node from knowing what others do.
type trouble struct{ err error }

// watch follows the journal until unwatch is called.
func (r *Registry) watch(store SharedStore) {
	ctx, cancel := context.WithCancel(context.Background())
	news := make(chan struct{}, 1)
	var running sync.WaitGroup
	running.Go(func() { r.listen(ctx, store, news) })
	running.Go(func() { r.follow(ctx, news) })
	r.unwatch = func() {
		cancel()
		running.Wait()
	}
}

// listen passes on the store's notifications. Polling makes up for those that
// get lost.
func (r *Registry) listen(ctx context.Context, store SharedStore, news chan<- struct{}) {
	pause := time.NewTicker(10 * pollInterval)
	defer pause.Stop()
	for {
		err := store.Watch(ctx, func() {
			select {
			case news <- struct{}{}:
			default:
			}
		})
		if ctx.Err() != nil {
			return
		}
		r.cfg.Log.Debug("changes of other nodes are not announced, only polled for", zap.Error(err))
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
	}
}

// follow folds what other nodes append.
func (r *Registry) follow(ctx context.Context, news <-chan struct{}) {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-news:
		}
		r.mu.Lock()
		err := r.catchUp()
		r.mu.Unlock()
		last := r.trouble.Swap(&trouble{err})
		known := last != nil && last.err != nil
		switch {
		case err != nil && !known:
			r.cfg.Log.Error("changes of other nodes cannot be read; this node goes on publishing what it knows", zap.Error(err))
		case err == nil && known:
			r.cfg.Log.Info("changes of other nodes can be read again")
		}
	}
}

// catchUp folds what other nodes have appended; r.mu is held.
func (r *Registry) catchUp() error {
	st := r.State()
	next, changes, err := r.journal.follow(st)
	if err == nil && next != st {
		r.moveTo(next, changes)
	}
	return err
}
