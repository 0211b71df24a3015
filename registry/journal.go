// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// ErrJournal says that the journal on disk is not the one that was written:
// an entry was changed, is missing or does not fit what precedes it.
var ErrJournal = errors.New("the registry's journal is damaged; restore it from a backup")

// Hash is the SHA-256 of a journal entry's bytes.
type Hash [sha256.Size]byte

// String is the hash in hex.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText gives the hash in hex.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads lower-case hex of full length.
func (h *Hash) UnmarshalText(b []byte) error {
	var got Hash
	if len(b) == 2*len(got) {
		if _, err := hex.Decode(got[:], b); err == nil && got.String() == string(b) {
			*h = got
			return nil
		}
	}
	return fmt.Errorf("%q is not a hash", b)
}

// Author tells on whose account a change is made.
type Author struct {
	Who     string `json:"who"`               // the person or program that decided
	Why     string `json:"why,omitempty"`     // the reason, in that person's words
	Request string `json:"request,omitempty"` // what asked for it: a management request, a file
}

// Entry is one accepted change in the journal.
//
// Its canonical bytes are one JSON object with the members in the order of the
// fields, as they were first written; Previous is the hash of the preceding
// entry's bytes, zero for the first, so that the hash of the last entry
// stands for the whole history.
type Entry struct {
	Number   uint64
	Previous Hash
	Time     time.Time
	Author   Author
	Change   Change
}

// entryWire is an Entry as it is stored.
type entryWire struct {
	Number   uint64          `json:"number"`
	Previous Hash            `json:"previous"`
	Time     time.Time       `json:"time"`
	Author   Author          `json:"author"`
	Change   string          `json:"change"`
	Data     json.RawMessage `json:"data"`
}

// head names the last entry, so that a journal cut short is noticed.
type head struct {
	Number uint64 `json:"number"`
	Hash   Hash   `json:"hash"`
}

func encodeEntry(e *Entry) ([]byte, error) {
	data, err := marshal(e.Change)
	if err != nil {
		return nil, err
	}
	return marshal(entryWire{e.Number, e.Previous, e.Time, e.Author, e.Change.op(), data})
}

func decodeEntry(b []byte) (*Entry, error) {
	var w entryWire
	if err := unmarshal(b, &w); err != nil {
		return nil, err
	}
	change, err := newChange(w.Change)
	if err != nil {
		return nil, err
	}
	if err := unmarshal(w.Data, change); err != nil {
		return nil, fmt.Errorf("%s: %w", w.Change, err)
	}
	return &Entry{w.Number, w.Previous, w.Time, w.Author, change}, nil
}

// marshal is JSON without the escapes that only HTML needs.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// unmarshal is strict: unknown members and trailing bytes are errors.
func unmarshal(b []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("bytes follow the JSON value")
	}
	return nil
}

// journal is the chain of entries in a store. It is not safe for concurrent use.
type journal struct {
	store  Store
	last   head
	failed error // set by a failed append: what the store holds is unknown then
}

// openJournal reads and checks the whole journal and folds it into the state.
func openJournal(store Store) (*journal, *State, error) {
	j, st := &journal{store: store}, newState()
	err := store.Scan(0, func(number uint64, b []byte) error {
		if number != j.last.Number+1 {
			return fmt.Errorf("%w: entry %d is missing (found %d)", ErrJournal, j.last.Number+1, number)
		}
		e, err := decodeEntry(b)
		if err != nil {
			return fmt.Errorf("%w: entry %d: %w", ErrJournal, number, err)
		}
		if e.Number != number {
			return fmt.Errorf("%w: entry %d calls itself %d", ErrJournal, number, e.Number)
		}
		if e.Previous != j.last.Hash {
			return fmt.Errorf("%w: entry %d does not follow entry %d: one of the two was changed", ErrJournal, number, number-1)
		}
		if err := st.fold(e); err != nil {
			return fmt.Errorf("%w: entry %d: %w", ErrJournal, number, err)
		}
		j.last = head{number, sha256.Sum256(b)}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	raw, err := store.Head()
	if err != nil {
		return nil, nil, err
	}
	var stored head
	if raw != nil {
		if err := unmarshal(raw, &stored); err != nil {
			return nil, nil, fmt.Errorf("%w: head: %w", ErrJournal, err)
		}
	}
	if stored.Number > j.last.Number {
		return nil, nil, fmt.Errorf("%w: entries %d to %d are missing", ErrJournal, j.last.Number+1, stored.Number)
	}
	if stored != j.last {
		return nil, nil, fmt.Errorf("%w: its last entry %d was changed", ErrJournal, j.last.Number)
	}
	return j, st, nil
}

// append writes the changes durably, all or none.
func (j *journal) append(at time.Time, by Author, changes []Change) error {
	if j.failed != nil {
		return fmt.Errorf("the journal takes no entries since a write failed; restart the registry: %w", j.failed)
	}
	last := j.last
	encoded := make([][]byte, len(changes))
	for i, c := range changes {
		b, err := encodeEntry(&Entry{last.Number + 1, last.Hash, at, by, c})
		if err != nil {
			return fmt.Errorf("encode %s: %w", c, err)
		}
		encoded[i] = b
		last = head{last.Number + 1, sha256.Sum256(b)}
	}
	rawHead, err := marshal(last)
	if err != nil {
		return err
	}
	if err := j.store.Append(j.last.Number+1, encoded, rawHead); err != nil {
		j.failed = err
		return fmt.Errorf("write journal: %w", err)
	}
	j.last = last
	return nil
}
