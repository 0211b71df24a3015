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
	shared bool // with other nodes
	last   head
	raw    []byte // last as it is stored; nil if there is no entry
	failed error  // set when what the store holds is unknown, or is not this journal any more
}

// openJournal reads and checks the whole journal and folds it into the state.
func openJournal(store Store) (*journal, *State, error) {
	_, shared := store.(SharedStore)
	j, st := &journal{store: store, shared: shared}, newState()
	if _, err := j.read(st); err != nil {
		return nil, nil, err
	}
	return j, st, nil
}

// read folds the entries that follow the last known one into st and returns
// their changes. After an error j is as it was, and st is not to be used.
func (j *journal) read(st *State) ([]Change, error) {
	var changes []Change
	var announced uint64 // by a head, while another node was appending
	last := j.last
	for {
		err := j.store.Scan(last.Number+1, func(number uint64, b []byte) error {
			if number != last.Number+1 {
				return fmt.Errorf("%w: entry %d is missing (found %d)", ErrJournal, last.Number+1, number)
			}
			e, err := decodeEntry(b)
			if err != nil {
				return fmt.Errorf("%w: entry %d: %w", ErrJournal, number, err)
			}
			if e.Number != number {
				return fmt.Errorf("%w: entry %d calls itself %d", ErrJournal, number, e.Number)
			}
			if e.Previous != last.Hash {
				return fmt.Errorf("%w: entry %d does not follow entry %d: one of the two was changed", ErrJournal, number, number-1)
			}
			if err := st.fold(e); err != nil {
				return fmt.Errorf("%w: entry %d: %w", ErrJournal, number, err)
			}
			last = head{number, sha256.Sum256(b)}
			if j.last.Number > 0 { // who reads all asks for the state only
				changes = append(changes, e.Change)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		if announced > last.Number {
			return nil, fmt.Errorf("%w: entries %d to %d are missing", ErrJournal, last.Number+1, announced)
		}
		raw, err := j.store.Head()
		if err != nil {
			return nil, err
		}
		var stored head
		if raw != nil {
			if err := unmarshal(raw, &stored); err != nil {
				return nil, fmt.Errorf("%w: head: %w", ErrJournal, err)
			}
		}
		switch {
		case stored.Number > last.Number:
			announced = stored.Number
			continue
		case stored.Number < j.last.Number:
			return nil, fmt.Errorf("%w: it was set back to entry %d, and had %d before", ErrJournal, stored.Number, j.last.Number)
		case stored != last:
			return nil, fmt.Errorf("%w: its last entry %d was changed", ErrJournal, last.Number)
		}
		j.last, j.raw = last, raw
		return changes, nil
	}
}

// follow returns the state with what other nodes have appended, and their
// changes; st itself if there is nothing new.
func (j *journal) follow(st *State) (*State, []Change, error) {
	if j.failed != nil {
		return nil, nil, j.unusable()
	}
	raw, err := j.store.Head()
	if err != nil {
		return nil, nil, fmt.Errorf("read journal: %w", err)
	}
	if bytes.Equal(raw, j.raw) {
		return st, nil, nil
	}
	next := st.clone()
	changes, err := j.read(next)
	if errors.Is(err, ErrJournal) {
		j.failed = err
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read journal: %w", err)
	}
	return next, changes, nil
}

func (j *journal) unusable() error {
	if errors.Is(j.failed, ErrJournal) {
		return j.failed
	}
	return fmt.Errorf("the journal takes no entries since a write failed; restart the registry: %w", j.failed)
}

// append writes the changes durably, all or none.
func (j *journal) append(at time.Time, by Author, changes []Change) error {
	if j.failed != nil {
		return j.unusable()
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
	raw, err := marshal(last)
	if err != nil {
		return err
	}
	if err := j.store.Append(j.raw, j.last.Number+1, encoded, raw); err != nil {
		if !j.shared {
			j.failed = err
		}
		return fmt.Errorf("write journal: %w", err)
	}
	j.last, j.raw = last, raw
	return nil
}
