// SPDX-License-Identifier: Apache-2.0

package msglog

import (
	"context"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"kontor/gateway/message"
)

// bodySource is what the log needs of a message.Body.
type bodySource interface {
	Present() bool
	Size() int64
	Digest() [sha512.Size]byte
	Bytes() ([]byte, bool) // false if it is in a file
	Path() string
}

// maxRecord bounds a record; the write-ahead log cannot take batches near 4 GB,
// and heads, signatures and inline bodies are far smaller.
const maxRecord = 64 << 20

// Append makes r durable and sets r.Seq. On any error the message counts as not
// logged. The context can end the wait for a turn, never the wait for the disk:
// once the record is on its way, only the disk knows.
func (l *Log) Append(ctx context.Context, r *Record) error {
	if r.Body == nil {
		return l.append(ctx, r, nil)
	}
	return l.append(ctx, r, r.Body)
}

func (l *Log) append(ctx context.Context, r *Record, body bodySource) error {
	if err := l.enter(); err != nil {
		return err
	}
	defer l.exit()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := l.admit(r); err != nil {
		return err
	}
	if body != nil && !body.Present() {
		body = nil
	}
	if err := r.validate(body); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	e := &Entry{Record: *r}
	e.Body = nil
	if e.Time.IsZero() {
		e.Time = l.cfg.Now()
	}
	e.Time = e.Time.Round(0).UTC()
	if e.Time.Before(minTime) || e.Time.After(maxTime) {
		return fmt.Errorf("%w: time %v", ErrInvalid, e.Time)
	}
	l.withhold(e)
	l.inFlight.Add(1)
	defer l.inFlight.Add(-1)
	if body != nil {
		if err := l.takeBody(e, body); err != nil {
			return fmt.Errorf("keep message body: %w", err)
		}
	}
	seq, err := l.write(ctx, e)
	if err != nil {
		return err
	}
	r.Seq, r.Time = seq, e.Time
	l.appended.Add(1)
	return nil
}

// admit says whether the log may take a record now.
func (l *Log) admit(r *Record) error {
	if err := l.failedErr(); err != nil {
		return err
	}
	if l.cfg.Stamp == nil || l.cfg.HasTSA != nil && !l.cfg.HasTSA() {
		return fmt.Errorf("%w: choose one of those that the global configuration approves", ErrNoTSA)
	}
	if err := l.stamps.admit(l.cfg.Now(), l.cfg.FailurePeriod); err != nil {
		return err
	}
	n := len(r.Head) + len(r.Evidence.Signature) + len(r.Evidence.Chain) + len(r.Evidence.ChainResult) + 64<<10
	return l.admitSpace(int64(n))
}

// validate refuses what could not be evidence: the digests must be those of
// the very bytes that are logged.
func (r *Record) validate(body bodySource) error {
	switch {
	case r.Side != Client && r.Side != Server:
		return errors.New("side is missing")
	case r.MessageID == "":
		return errors.New("message id is missing")
	case r.Client.IsZero() || r.Service.IsZero():
		return errors.New("client or service is missing")
	case len(r.Evidence.Signature) == 0:
		return errors.New("signature is missing")
	case (r.Evidence.ChainResult == nil) != (r.Evidence.Chain == nil):
		return errors.New("hash chain and its result belong together")
	case len(r.Evidence.Attachments) > maxAttachments:
		return errors.New("too many attachments")
	case sha512.Sum512(r.Head) != r.Evidence.Message:
		return errors.New("head is not what was signed")
	case body != nil && (len(r.Evidence.Attachments) == 0 || body.Digest() != r.Evidence.Attachments[0]):
		return errors.New("body is not what was signed")
	}
	return nil
}

// withhold applies the body policy to the head.
func (l *Log) withhold(e *Entry) {
	if l.cfg.BodyPolicy != NoBodies {
		return
	}
	e.HeadWithheld = true
	if e.Response {
		h, err := message.ParseResponseHead(e.Head)
		if err != nil {
			e.Head = nil
			return
		}
		h.Fields = protocolFields(h.Fields)
		e.Head = h.Append(nil)
		return
	}
	h, err := message.ParseRequestHead(e.Head)
	if err != nil {
		e.Head = nil
		return
	}
	h.Target = servicePrefix(h.Target)
	h.Fields = protocolFields(h.Fields)
	e.Head = h.Append(nil)
}

// protocolFields keeps the fields whose names begin with "x-road-".
func protocolFields(in []message.Field) []message.Field {
	const prefix = "x-road-"
	var out []message.Field
	for _, f := range in {
		if len(f.Name) >= len(prefix) && strings.EqualFold(f.Name[:len(prefix)], prefix) {
			out = append(out, f)
		}
	}
	return out
}

// servicePrefix cuts a target /r1/instance/class/member/subsystem/service/…
// after the service.
func servicePrefix(target string) string {
	slashes := 0
	for i := range len(target) {
		switch target[i] {
		case '?':
			return target[:i]
		case '/':
			if slashes++; slashes == 7 {
				return target[:i]
			}
		}
	}
	return target
}

// takeBody decides where the body goes and, if it is in a file, adopts that.
func (l *Log) takeBody(e *Entry, body bodySource) error {
	e.BodySize = body.Size()
	if l.cfg.BodyPolicy == NoBodies {
		e.BodyState = BodyWithheld
		return nil
	}
	if b, ok := body.Bytes(); ok {
		if int64(len(b)) != e.BodySize {
			return io.ErrUnexpectedEOF
		}
		e.BodyState, e.body = BodyInline, b
		return nil
	}
	name, err := l.adopt(body.Path(), e.BodySize)
	if err != nil {
		return err
	}
	e.BodyState, e.body = BodyFile, []byte(name)
	return nil
}

var buffers = sync.Pool{New: func() any { return new([]byte) }}

// maxPooled keeps one large message from holding its memory for ever.
const maxPooled = 128 << 10

// write gives e its number and commits it.
func (l *Log) write(ctx context.Context, e *Entry) (seq uint64, err error) {
	buf := buffers.Get().(*[]byte)
	value := e.appendTo((*buf)[:0])
	if cap(value) <= maxPooled {
		defer func() { *buf = value[:0]; buffers.Put(buf) }()
	}
	if len(value) > maxRecord {
		l.discard(e)
		return 0, fmt.Errorf("%w: %d bytes", ErrInvalid, len(value))
	}
	select {
	case l.order <- struct{}{}:
	case <-ctx.Done():
		l.discard(e)
		return 0, ctx.Err()
	case <-l.failed:
		return 0, l.failure
	}
	b, err := l.enqueueEntry(e, value)
	<-l.order
	if err != nil {
		return 0, err
	}
	if err := l.await(b); err != nil {
		return 0, err
	}
	if e.BodyState == BodyFile {
		l.bodies.count.Add(1)
		l.bodies.size.Add(e.BodySize)
	}
	return e.Seq, nil
}

// enqueueEntry is called by the holder of order.
func (l *Log) enqueueEntry(e *Entry, value []byte) (*pebble.Batch, error) {
	e.Seq = l.next.Load()
	b := l.db.NewBatchWithSize(len(value) + 512)
	err := b.Set(numberKey(prefixRecord, e.Seq), value, nil)
	for _, key := range indexKeys(e) {
		err = errors.Join(err, b.Set(key, nil, nil))
	}
	if e.BodyState == BodyFile {
		err = errors.Join(err, b.Set(nameKey(prefixBody, string(e.body)), bodyRef{e.Seq, e.BodySize}.encode(), nil))
	}
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	if err := l.enqueue(b); err != nil {
		return nil, err
	}
	l.next.Store(e.Seq + 1)
	l.stamps.noteAppend(e.Seq, e.Time)
	return b, nil
}

// discard removes an adopted body whose record was certainly never written.
func (l *Log) discard(e *Entry) {
	if e.BodyState == BodyFile {
		// Open collects what cannot be removed now.
		_ = l.fs.Remove(l.bodyPath(string(e.body)))
	}
}

// Get returns one record.
func (l *Log) Get(_ context.Context, seq uint64) (*Entry, error) {
	if err := l.enter(); err != nil {
		return nil, err
	}
	defer l.exit()
	return l.get(l.db, seq)
}

func (l *Log) get(r pebble.Reader, seq uint64) (*Entry, error) {
	v, err := get(r, numberKey(prefixRecord, seq))
	if err != nil {
		return nil, err
	}
	if v == nil {
		return nil, fmt.Errorf("%w: number %d", ErrNotFound, seq)
	}
	e, err := decodeEntry(seq, v)
	if err != nil {
		return nil, err
	}
	e.Stamped = seq <= l.stamps.upTo.Load()
	return e, nil
}

// timeBounds of the time index.
var minTime, maxTime = time.Unix(0, 0), time.Unix(0, 1<<63-1)
