// SPDX-License-Identifier: Apache-2.0

package msglog

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// Large bodies are files, named after the sequence number that was next when
// they were adopted and a random part, and spread over folders of shardSize
// numbers. So what an interrupted Append leaves behind has a number not below
// the one at which the log was last opened, and Open need not read folders that
// it has checked before.
const shardBits = 16

// bodyStore counts the body files and remembers the folder in use.
type bodyStore struct {
	count atomic.Int64
	size  atomic.Int64

	mu    sync.Mutex
	shard string // exists, durably
}

// bodyRef is the value of a body key.
type bodyRef struct {
	seq  uint64
	size int64
}

func (r bodyRef) encode() []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, r.seq), uint64(r.size))
}

func decodeBodyRef(b []byte) (bodyRef, error) {
	if len(b) != 16 {
		return bodyRef{}, errEncoding
	}
	return bodyRef{binary.BigEndian.Uint64(b), int64(binary.BigEndian.Uint64(b[8:]))}, nil
}

// bodyName returns the name of a file adopted when next was the next number.
func bodyName(next uint64) string {
	var random [8]byte
	rand.Read(random[:])
	return fmt.Sprintf("%016x-%x", next, random)
}

// bodyNumber reads the number from a name, false if it is not a body's.
func bodyNumber(name string) (uint64, bool) {
	if len(name) != 33 || name[16] != '-' {
		return 0, false
	}
	if _, err := hex.DecodeString(name[17:]); err != nil {
		return 0, false
	}
	n, err := strconv.ParseUint(name[:16], 16, 64)
	return n, err == nil
}

func shardName(next uint64) string { return fmt.Sprintf("%012x", next>>shardBits) }

func (l *Log) bodyPath(name string) string {
	n, _ := bodyNumber(name)
	return filepath.Join(l.bodyDir(), shardName(n), name)
}

// adoption is the taking over of the files of one message.
type adoption struct {
	next uint64
	dir  string // empty until the first file
}

// adopt gives the spool file at path a second name among the bodies and makes
// its bytes durable; settle does that for the name. The spool's own name stays
// for whoever still reads or sends the body. If no record follows, the name is
// collected by Open.
func (l *Log) adopt(a *adoption, path string, size int64) (name string, err error) {
	f, err := l.fs.Open(path)
	if err != nil {
		return "", err
	}
	info, err := f.Stat()
	if err == nil && info.Size() != size {
		err = fmt.Errorf("spool file has %d bytes instead of %d", info.Size(), size)
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return "", err
	}
	if a.dir == "" {
		a.next = l.next.Load()
		if a.dir, err = l.shard(a.next); err != nil {
			return "", err
		}
	}
	name = bodyName(a.next)
	if err := l.fs.Link(path, filepath.Join(a.dir, name)); err != nil {
		return "", fmt.Errorf("%w (bodies must be spooled in %s)", err, l.SpoolDir())
	}
	return name, nil
}

// settle makes the names of adopted files durable.
func (l *Log) settle(a *adoption) error {
	if a.dir == "" {
		return nil
	}
	return l.fs.syncDir(a.dir)
}

// shard returns the folder for a number, created durably if need be.
func (l *Log) shard(next uint64) (string, error) {
	dir := filepath.Join(l.bodyDir(), shardName(next))
	l.bodies.mu.Lock()
	defer l.bodies.mu.Unlock()
	if l.bodies.shard != dir {
		if err := l.mkdir(dir); err != nil {
			return "", err
		}
		l.bodies.shard = dir
	}
	return dir, nil
}

// collect removes spool files of messages that were under way, body files
// without a record, and what retention could not finish removing.
func (l *Log) collect() error {
	if err := l.clearSpool(); err != nil {
		return fmt.Errorf("clear spool: %w", err)
	}
	checked, err := l.getNumber(keyCollect)
	if err != nil {
		return err
	}
	shards, err := l.fs.List(l.bodyDir())
	if err != nil {
		return err
	}
	for _, shard := range shards {
		n, err := strconv.ParseUint(shard, 16, 64)
		if err != nil || shardName(n<<shardBits) != shard || n < checked>>shardBits {
			continue
		}
		if err := l.collectShard(filepath.Join(l.bodyDir(), shard), checked); err != nil {
			return fmt.Errorf("collect bodies: %w", err)
		}
	}
	if err := l.countBodies(); err != nil {
		return err
	}
	if err := l.removePruned(); err != nil {
		return err
	}
	if next := l.durable.Load() + 1; next != checked {
		return l.db.Set(keyCollect, numberKey(0, next)[1:], pebble.NoSync)
	}
	return nil
}

func (l *Log) clearSpool() error {
	names, err := l.fs.List(l.SpoolDir())
	if err != nil {
		return err
	}
	for _, name := range names {
		err = errors.Join(err, l.fs.Remove(filepath.Join(l.SpoolDir(), name)))
	}
	return err
}

func (l *Log) collectShard(dir string, checked uint64) error {
	names, err := l.fs.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if n, ok := bodyNumber(name); !ok || n < checked {
			continue
		}
		ref, err := get(l.db, nameKey(prefixBody, name))
		if err != nil {
			return err
		}
		if ref != nil {
			continue
		}
		if err := l.fs.Remove(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// removeBodies removes the files of records that retention has removed, and
// then their names. A name begins with a number that is not above that of its
// record, so only the first ones come into question.
func (l *Log) removeBodies() error {
	if err := l.index.catchUp(); err != nil {
		return err
	}
	pruned := l.prune.upTo.Load()
	var freed []string
	var sizes []int64
	shards := map[string]bool{}
	err := l.eachBody(nameKey(prefixBody, fmt.Sprintf("%016x", pruned+1)), func(name string, value []byte) error {
		ref, err := decodeBodyRef(value)
		if err != nil {
			return fmt.Errorf("body %s: %w", name, err)
		}
		if ref.seq > pruned {
			return nil
		}
		path := l.bodyPath(name)
		if err := l.fs.Remove(path); err != nil && !notExist(err) {
			return fmt.Errorf("remove body: %w", err)
		}
		shards[filepath.Dir(path)] = true
		freed, sizes = append(freed, name), append(sizes, ref.size)
		return nil
	})
	if err != nil || len(freed) == 0 {
		return err
	}
	for shard := range shards {
		if err := l.fs.syncDir(shard); err != nil && !notExist(err) {
			return err
		}
	}
	b := l.db.NewBatch()
	for i, name := range freed {
		if err := b.Delete(nameKey(prefixBody, name), nil); err != nil {
			return errors.Join(err, b.Close())
		}
		l.bodies.count.Add(-1)
		l.bodies.size.Add(-sizes[i])
	}
	return l.guard(func() error { return errors.Join(l.db.Apply(b, pebble.NoSync), b.Close()) })
}

// eachBody visits the names of body files below a key.
func (l *Log) eachBody(upper []byte, visit func(name string, value []byte) error) error {
	it, err := l.db.NewIter(&pebble.IterOptions{LowerBound: []byte{prefixBody}, UpperBound: upper})
	if err != nil {
		return err
	}
	for it.First(); err == nil && it.Valid(); it.Next() {
		err = visit(string(it.Key()[1:]), it.Value())
	}
	return errors.Join(err, it.Error(), it.Close())
}

func (l *Log) countBodies() error {
	var count, size int64
	err := l.eachBody([]byte{prefixBody + 1}, func(name string, value []byte) error {
		ref, err := decodeBodyRef(value)
		if err != nil {
			return fmt.Errorf("body %s: %w", name, err)
		}
		count++
		size += ref.size
		return nil
	})
	l.bodies.count.Store(count)
	l.bodies.size.Store(size)
	return err
}

// OpenBody opens the body of attachment n of e, counted from 0. It returns nil
// without error if the message has no such attachment or it was withheld.
func (l *Log) OpenBody(_ context.Context, e *Entry, n int) (io.ReadCloser, error) {
	if n < 0 || n >= len(e.Bodies) {
		return nil, nil
	}
	b := e.Bodies[n]
	switch b.State {
	case BodyInline:
		return io.NopCloser(bytes.NewReader(b.data)), nil
	case BodyFile:
		name := string(b.data)
		if _, ok := bodyNumber(name); !ok || strings.ContainsAny(name, `/\`) {
			return nil, fmt.Errorf("record %d: invalid name of a body file", e.Seq)
		}
		f, err := l.fs.Open(l.bodyPath(name))
		if err != nil {
			return nil, fmt.Errorf("record %d: body: %w", e.Seq, err)
		}
		return f, nil
	}
	return nil, nil
}
