// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Outcomes of audited calls.
const (
	Done    = "done"
	Refused = "refused"
	Failed  = "failed"
)

// Record is one line of an audit log: a call that changed something or was to.
type Record struct {
	Time      time.Time `json:"time"`
	Who       string    `json:"who"`  // name of the API key; empty: none that is valid
	From      string    `json:"from"` // address
	Operation string    `json:"operation"`
	Target    string    `json:"target"`          // method and path
	Call      string    `json:"call,omitempty"`  // names the call in the journal
	What      []string  `json:"what,omitempty"`  // the changes
	Why       string    `json:"why,omitempty"`   // in the caller's words
	Outcome   string    `json:"outcome"`         // done, refused or failed
	Status    int       `json:"status"`          // HTTP
	Code      string    `json:"code,omitempty"`  // of the problem
	Text      string    `json:"text,omitempty"`  // of the problem
	Entry     uint64    `json:"entry,omitempty"` // last journal entry after it
}

// maxTail is where the last record of an audit log is looked for.
const maxTail = 4 << 20

// Audit is a log on disk, one JSON object per line. A record that Append took
// is durable. The file may be renamed at any time: a new one is begun. It is
// safe for concurrent use.
type Audit struct {
	path string

	mu     sync.Mutex
	file   *os.File
	failed error
}

// OpenAudit opens the audit log at path, or begins it. The rest of a record
// that a crash cut off is removed.
func OpenAudit(path string) (*Audit, error) {
	a := &Audit{path: path}
	if err := a.open(); err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	if err := a.repair(); err != nil {
		return nil, fmt.Errorf("audit log: %w", errors.Join(err, a.file.Close()))
	}
	return a, nil
}

func (a *Audit) open() error {
	f, err := os.OpenFile(a.path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(a.path)); err != nil {
		return errors.Join(err, f.Close())
	}
	a.file = f
	return nil
}

func (a *Audit) repair() error {
	tail, begin, err := a.tail()
	if err != nil || len(tail) == 0 || tail[len(tail)-1] == '\n' {
		return err
	}
	return a.file.Truncate(begin + int64(bytes.LastIndexByte(tail, '\n')+1))
}

// tail reads the end of the file and tells where it begins.
func (a *Audit) tail() ([]byte, int64, error) {
	info, err := a.file.Stat()
	if err != nil {
		return nil, 0, err
	}
	begin := max(0, info.Size()-maxTail)
	b := make([]byte, info.Size()-begin)
	n, err := a.file.ReadAt(b, begin)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return b[:n], begin, err
}

// LastEntry returns the greatest journal entry that the end of the log speaks of;
// 0: none.
func (a *Audit) LastEntry() (uint64, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	tail, _, err := a.tail()
	last := uint64(0)
	for line := range bytes.Lines(tail) {
		var r Record
		if json.Unmarshal(line, &r) == nil { // the first line may be cut
			last = max(last, r.Entry)
		}
	}
	return last, err
}

// Append writes a record durably. After a failure all further records are
// refused, for what the disk holds is unknown then.
func (a *Audit) Append(r *Record) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failed != nil {
		return fmt.Errorf("the audit log takes no records since a write failed: %w", a.failed)
	}
	if err := a.append(r); err != nil {
		a.failed = err
		return fmt.Errorf("write audit log: %w", err)
	}
	return nil
}

// Usable tells why the log takes no records, or nil.
func (a *Audit) Usable() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.failed
}

func (a *Audit) append(r *Record) error {
	mine, err := a.file.Stat()
	if err != nil {
		return err
	}
	if there, err := os.Stat(a.path); err != nil || !os.SameFile(mine, there) { // renamed
		if err := errors.Join(a.file.Close(), a.open()); err != nil {
			return err
		}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(r); err != nil {
		return err
	}
	if _, err := a.file.Write(b.Bytes()); err != nil {
		return err
	}
	return a.file.Sync()
}

// Close releases the file.
func (a *Audit) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failed = errors.Join(a.failed, os.ErrClosed)
	return a.file.Close()
}
