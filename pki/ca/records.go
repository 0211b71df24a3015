// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/zap"

	"kontor/pki"
)

// store is what the authority needs of its database. Set and Delete are durable
// when they return; Get returns errNoKey for an unknown key; Scan goes through
// all keys with the prefix, in their order, until fn returns an error.
type store interface {
	Set(key, value []byte) error
	Delete(key []byte) error
	Get(key []byte) ([]byte, error)
	Scan(prefix byte, fn func(value []byte) error) error
	Close() error
}

var errNoKey = errors.New("no such key")

// records keeps what was issued: one value per serial number.
type records struct {
	store store
	close func() error
}

// What the first byte of a key in the database says of its value.
const (
	acmePrefix    = 'a' // step-ca's ACME tables
	bindingPrefix = 'b' // an external account binding, by key identifier
	certPrefix    = 'c' // an issued certificate, by serial number
	accountPrefix = 'k' // the key identifier of the binding of an ACME account
)

// wire is a Record as it is stored.
type wire struct {
	Certificate []byte    `json:"certificate"`
	Usage       pki.Usage `json:"usage,omitempty"`
	Issued      time.Time `json:"issued"`
	Revoked     time.Time `json:"revoked,omitzero"`
	Reason      int       `json:"reason,omitempty"`
}

func openRecords(dir string, log *zap.Logger) (*records, error) {
	s, err := openPebble(dir, vfs.Default, log)
	if err != nil {
		return nil, err
	}
	return newRecords(s), nil
}

func newRecords(s store) *records {
	return &records{store: s, close: sync.OnceValue(s.Close)}
}

// Close closes the store; only the first call does anything.
func (r *records) Close() error { return r.close() }

func (r *records) put(rec *Record) error {
	key, err := serialKey(rec.Certificate.SerialNumber)
	if err != nil {
		return err
	}
	value, err := json.Marshal(wire{rec.Certificate.Raw, rec.Usage, rec.Issued, rec.Revoked, rec.Reason})
	if err != nil {
		return err
	}
	return r.store.Set(append([]byte{certPrefix}, key...), value)
}

func (r *records) get(serial *big.Int) (*Record, error) {
	key, err := serialKey(serial)
	if err != nil {
		return nil, err
	}
	value, err := r.store.Get(append([]byte{certPrefix}, key...))
	if errors.Is(err, errNoKey) {
		return nil, ErrUnknownSerial
	}
	if err != nil {
		return nil, err
	}
	return decodeRecord(value)
}

func (r *records) list(ctx context.Context) ([]*Record, error) {
	var all []*Record
	err := r.store.Scan(certPrefix, func(value []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		rec, err := decodeRecord(value)
		if err != nil {
			return err
		}
		all = append(all, rec)
		return nil
	})
	return all, err
}

func decodeRecord(value []byte) (*Record, error) {
	var w wire
	if err := json.Unmarshal(value, &w); err != nil {
		return nil, fmt.Errorf("stored certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(w.Certificate)
	if err != nil {
		return nil, fmt.Errorf("stored certificate: %w", err)
	}
	return &Record{Certificate: cert, Usage: w.Usage, Issued: w.Issued, Revoked: w.Revoked, Reason: w.Reason}, nil
}

// pebbleStore is the store on disk.
type pebbleStore struct{ db *pebble.DB }

func openPebble(dir string, fs vfs.FS, log *zap.Logger) (*pebbleStore, error) {
	db, err := pebble.Open(dir, &pebble.Options{
		FS:                 fs,
		FormatMajorVersion: pebble.FormatNewest, // the default is the oldest
		WALBytesPerSync:    256 << 10,
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

func (s *pebbleStore) Set(key, value []byte) error { return s.db.Set(key, value, pebble.Sync) }

func (s *pebbleStore) Delete(key []byte) error { return s.db.Delete(key, pebble.Sync) }

func (s *pebbleStore) Get(key []byte) ([]byte, error) {
	value, closer, err := s.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, errNoKey
	}
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	return append([]byte(nil), value...), nil
}

func (s *pebbleStore) Scan(prefix byte, fn func(value []byte) error) error {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{prefix}, UpperBound: []byte{prefix + 1}})
	if err != nil {
		return err
	}
	defer it.Close()
	for it.First(); it.Valid(); it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		if err := fn(value); err != nil {
			return err
		}
	}
	return it.Error()
}

func (s *pebbleStore) Close() error { return s.db.Close() }

// pebbleLog passes on what an operator should know; the database's own
// housekeeping is not part of it.
type pebbleLog struct{ *zap.SugaredLogger }

func (l pebbleLog) Infof(string, ...any) {}
