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

// maxRecord bounds a record; heads, signatures and inline bodies are far smaller.
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
	e.Head = headWithoutBody(e.Head, e.Response)
}

// headWithoutBody is what [NoBodies] keeps of a head; one that cannot be read is
// not kept at all.
func headWithoutBody(head []byte, response bool) []byte {
	if soap, err := message.ReadEnvelope(head); err == nil && !soap.Fault {
		return soap.WithBody(nil)
	}
	if response {
		h, err := message.ParseResponseHead(head)
		if err != nil {
			return nil
		}
		h.Fields = protocolFields(h.Fields)
		return h.Append(nil)
	}
	h, err := message.ParseRequestHead(head)
	if err != nil {
		return nil
	}
	h.Target = servicePrefix(h.Target)
	h.Fields = protocolFields(h.Fields)
	return h.Append(nil)
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
	known, learn := l.patterns.find(e.Evidence.Signature, l.segFirst.Load(), l.next.Load())
	leaf := l.leaves.digest(e.Evidence.Signature)
	note := noteOf(e, &l.names)
	value := e.appendTo((*buf)[:0], known)
	out, err := l.addRecord(ctx, e, value, known, learn, leaf, note)
	if err == errStalePattern {
		value = e.appendTo(value[:0], nil)
		out, err = l.addRecord(ctx, e, value, nil, learn, leaf, note)
	}
	if cap(value) <= maxPooled {
		*buf = value[:0]
		buffers.Put(buf)
	}
	if err != nil {
		if l.failedErr() == nil {
			l.discard(e)
		}
		return 0, err
	}
	if err := out.wait(); err != nil {
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

// errStalePattern means that a record goes to a later segment than its pattern.
var errStalePattern = errors.New("pattern is in another segment")

// addRecord puts a record into a group. With learn, its signature document
// becomes a pattern.
func (l *Log) addRecord(ctx context.Context, e *Entry, value []byte, known *pattern, learn bool, leaf asic.Digest, note recordNote) (*outcome, error) {
	if len(value) > maxRecord {
		return nil, fmt.Errorf("%w: %d bytes", ErrInvalid, len(value))
	}
	return l.add(ctx, len(value), func(q *queue, b *batch) error {
		if known != nil && known.seq < q.first {
			return errStalePattern
		}
		e.Seq = q.next
		b.buf = appendEntry(b.buf, entryRecord, value)
		b.note.records = append(b.note.records, note)
		b.leaves = append(b.leaves, leaf)
		if learn {
			l.patterns.learn(e.Evidence.Signature, e.Seq)
		}
		q.next++
		l.next.Store(q.next)
		return nil
	})
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
	return l.get(seq)
}

func (l *Log) get(seq uint64) (_ *Entry, err error) {
	s, err := l.source()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	return s.entry(seq)
}

// timeBounds of the time index.
var minTime, maxTime = time.Unix(0, 0), time.Unix(0, 1<<63-1)
