// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/zap"
)

var (
	// ErrMoved says that the journal's head is not what an append was to follow:
	// another node appended first.
	ErrMoved = errors.New("another node has changed the registry meanwhile")
	// ErrUncertain says that the connection to a shared store was lost in the
	// moment of a commit: the change may have been stored, and shows then as soon
	// as the store can be reached again.
	ErrUncertain = errors.New("it is not known whether the change was stored; look before you repeat it")
)

// Store keeps the bytes of the journal. Append and Head do not overlap; Scan
// may overlap with both.
type Store interface {
	// Append adds entries, numbered from first on, and replaces the head, as
	// one step: all of it is durable when Append returns nil. previous is the
	// head that they follow, nil if there is none; if the store has another, it
	// stays as it is and the error is ErrMoved. After any other error the store
	// may hold all or nothing of it, and is not used again.
	Append(previous []byte, first uint64, entries [][]byte, head []byte) error
	// Scan calls fn with the entries numbered from on, in order, until fn
	// returns an error, which it passes on. fn must not keep the bytes.
	Scan(from uint64, fn func(number uint64, entry []byte) error) error
	// Head returns what the last Append stored as head, or nil.
	Head() ([]byte, error)
	// Close releases the store.
	Close() error
}

// SharedStore is a Store that the nodes of a registry have open at once. It
// outlives lost connections: after an error of Append that is not ErrUncertain
// nothing was stored, and after one that is, later calls wait for the outcome.
type SharedStore interface {
	Store
	// Watch calls changed when it begins and whenever another node may have
	// appended, until ctx ends or, which is an error, it cannot tell any more.
	// It may overlap with everything else but Close.
	Watch(ctx context.Context, changed func()) error
}

const entryPrefix = 'e'

var headKey = []byte("head")

// pebbleStore is the Store on local disk.
type pebbleStore struct{ db *pebble.DB }

func openPebble(dir string, fs vfs.FS, log *zap.Logger) (Store, error) {
	db, err := pebble.Open(dir, &pebble.Options{
		FS:                 fs,
		FormatMajorVersion: pebble.FormatNewest, // the default is the oldest
		WALBytesPerSync:    256 << 10,           // else a long write stalls commits
		MemTableSize:       4 << 20,
		Logger:             pebbleLog{log.Sugar()},
	})
	if errors.Is(err, syscall.EAGAIN) {
		return nil, fmt.Errorf("open database %s: %w; another process has it open: it runs already", dir, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", dir, err)
	}
	return &pebbleStore{db}, nil
}

func entryKey(number uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{entryPrefix}, number)
}

func (s *pebbleStore) Append(previous []byte, first uint64, entries [][]byte, head []byte) error {
	if have, err := s.Head(); err != nil {
		return err
	} else if !bytes.Equal(have, previous) {
		return ErrMoved
	}
	batch := s.db.NewBatch()
	defer batch.Close()
	for i, entry := range entries {
		if err := batch.Set(entryKey(first+uint64(i)), entry, nil); err != nil {
			return err
		}
	}
	if err := batch.Set(headKey, head, nil); err != nil {
		return err
	}
	return batch.Commit(pebble.Sync)
}

func (s *pebbleStore) Scan(from uint64, fn func(uint64, []byte) error) error {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: entryKey(from), UpperBound: []byte{entryPrefix + 1}})
	if err != nil {
		return err
	}
	defer it.Close()
	for it.First(); it.Valid(); it.Next() {
		key := it.Key()
		if len(key) != 9 {
			return fmt.Errorf("%w: key %x is not one of the journal's", ErrJournal, key)
		}
		entry, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		if err := fn(binary.BigEndian.Uint64(key[1:]), entry); err != nil {
			return err
		}
	}
	return it.Error()
}

func (s *pebbleStore) Head() ([]byte, error) {
	value, closer, err := s.db.Get(headKey)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	return append([]byte(nil), value...), nil
}

func (s *pebbleStore) Close() error { return s.db.Close() }

// pebbleLog passes on what an operator should know; the database's own
// housekeeping is not part of it. Fatal errors (a failed sync of the write-ahead
// log) end the process: what is on disk is then unknown until it is read again.
type pebbleLog struct{ *zap.SugaredLogger }

func (l pebbleLog) Infof(string, ...any) {}
