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
	"kontor/pki/asic"
)

// bodySource is what the log needs of a message.Body.
type bodySource interface {
	Size() int64
	Digest() [sha512.Size]byte
	Bytes() ([]byte, bool) // false if it is in a file
	Path() string
}

// maxRecord bounds a record; the write-ahead log cannot take batches near 4 GB,
// and heads, signatures and inline bodies are far smaller.
const maxRecord = 64 << 20

// Append makes r durable and sets r.Seq. On any error the message counts as not
// logged. The context can end the wait for a turn, which takes half a minute at
// most in any case, but never the wait for the disk:
// once the record is on its way, only the disk knows.
func (l *Log) Append(ctx context.Context, r *Record) error {
	bodies := make([]bodySource, len(r.Attachments))
	for i, a := range r.Attachments {
		bodies[i] = a.Body
	}
	return l.append(ctx, r, bodies)
}

func (l *Log) append(ctx context.Context, r *Record, bodies []bodySource) error {
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
	if err := r.validate(bodies); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	e := &Entry{Record: *r}
	e.Attachments = nil
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
	if err := l.takeBodies(e, bodies); err != nil {
		l.discard(e)
		return fmt.Errorf("keep message body: %w", err)
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
func (r *Record) validate(bodies []bodySource) error {
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
	case len(bodies) != len(r.Evidence.Attachments):
		return errors.New("attachments are more or fewer than those signed")
	}
	for i, body := range bodies {
		if body.Digest() != r.Evidence.Attachments[i] {
			return fmt.Errorf("attachment %d is not what was signed", i+1)
		}
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

// takeBodies decides where each body goes and adopts those that are in files.
func (l *Log) takeBodies(e *Entry, bodies []bodySource) error {
	var a adoption
	for _, body := range bodies {
		b := Body{Size: body.Size()}
		e.BodySize += b.Size
		if l.cfg.BodyPolicy == NoBodies {
			b.State = BodyWithheld
		} else if data, ok := body.Bytes(); ok {
			if int64(len(data)) != b.Size {
				return io.ErrUnexpectedEOF
			}
			b.State, b.data = BodyInline, data
		} else {
			name, err := l.adopt(&a, body.Path(), b.Size)
			if err != nil {
				return err
			}
			b.State, b.data = BodyFile, []byte(name)
		}
		e.Bodies = append(e.Bodies, b)
	}
	return l.settle(&a)
}

var buffers = sync.Pool{New: func() any { return new([]byte) }}

// maxPooled keeps one large message from holding its memory for ever.
const maxPooled = 128 << 10

// write gives e its number and commits it.
func (l *Log) write(ctx context.Context, e *Entry) (seq uint64, err error) {
	buf := buffers.Get().(*[]byte)
	known, learn := l.patterns.find(e.Evidence.Signature, l.next.Load())
	leaf := l.leaves.digest(e.Evidence.Signature)
	value := e.appendTo((*buf)[:0], known)
	if cap(value) <= maxPooled {
		defer func() { *buf = value[:0]; buffers.Put(buf) }()
	}
	if len(value) > maxRecord {
		l.discard(e)
		return 0, fmt.Errorf("%w: %d bytes", ErrInvalid, len(value))
	}
	if err := l.takeTurn(ctx); err != nil {
		if l.failedErr() == nil {
			l.discard(e)
		}
		return 0, err
	}
	b, err := l.enqueueEntry(e, value, learn, leaf)
	<-l.order
	if err != nil {
		return 0, err
	}
	if err := l.await(b); err != nil {
		return 0, err
	}
	for _, b := range e.Bodies {
		if b.State == BodyFile {
			l.bodies.count.Add(1)
			l.bodies.size.Add(b.Size)
		}
	}
	return e.Seq, nil
}

// turnTimeout bounds the wait for a turn: a turn takes microseconds, so after
// that the log is as good as broken.
const turnTimeout = 30 * time.Second

// takeTurn returns when the caller holds order.
func (l *Log) takeTurn(ctx context.Context) error {
	select {
	case l.order <- struct{}{}:
		return nil
	default: // a timer for each record would cost more than its turn
	}
	timer := time.NewTimer(turnTimeout)
	defer timer.Stop()
	select {
	case l.order <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return fmt.Errorf("no turn to write within %v", turnTimeout)
	case <-l.failed:
		return l.failure
	}
}

// enqueueEntry is called by the holder of order. With learn, the signature
// document becomes a pattern.
func (l *Log) enqueueEntry(e *Entry, value []byte, learn bool, leaf asic.Digest) (*pebble.Batch, error) {
	e.Seq = l.next.Load()
	b := l.db.NewBatchWithSize(len(value) + 512)
	err := b.Set(numberKey(prefixRecord, e.Seq), value, nil)
	if learn {
		err = errors.Join(err, b.Set(numberKey(prefixPattern, e.Seq), e.Evidence.Signature, nil))
	}
	for _, key := range indexKeys(e) {
		err = errors.Join(err, b.Set(key, nil, nil))
	}
	for _, body := range e.Bodies {
		if body.State == BodyFile {
			err = errors.Join(err, b.Set(nameKey(prefixBody, string(body.data)), bodyRef{e.Seq, body.Size}.encode(), nil))
		}
	}
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	if err := l.enqueue(b); err != nil {
		return nil, err
	}
	if learn {
		l.patterns.learn(e.Evidence.Signature, e.Seq)
	}
	l.next.Store(e.Seq + 1)
	l.stamps.noteAppend(e.Seq, e.Time, leaf)
	return b, nil
}

// discard removes adopted bodies whose record was certainly never written.
func (l *Log) discard(e *Entry) {
	for _, b := range e.Bodies {
		if b.State == BodyFile {
			// Open collects what cannot be removed now.
			_ = l.fs.Remove(l.bodyPath(string(b.data)))
		}
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
	e, err := decodeEntry(seq, v, &patternSource{r: r})
	if err != nil {
		return nil, err
	}
	e.Stamped = seq <= l.stamps.upTo.Load()
	return e, nil
}

// timeBounds of the time index.
var minTime, maxTime = time.Unix(0, 0), time.Unix(0, 1<<63-1)
