// SPDX-License-Identifier: Apache-2.0

package msglog

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/zap"
)

// Retention says what happens to old records.
type Retention struct {
	// Keep is how long a record stays in the log; 0 means for ever. A record
	// that is not time-stamped stays in any case, and so do all after it.
	Keep time.Duration
	// ArchiveDir receives the removed records as X-Road's archive files; it must
	// exist. Empty means that they are deleted.
	ArchiveDir string
	// MaxArchive is the size in bytes above which an archive file is finished;
	// 0 means 32 MiB.
	MaxArchive int64
	// Interval is the pause between two looks at old records; 0 means an hour.
	Interval time.Duration
}

func (r *Retention) setDefaults() {
	if r.MaxArchive == 0 {
		r.MaxArchive = 32 << 20
	}
	if r.Interval == 0 {
		r.Interval = time.Hour
	}
}

// pruneState knows how far records have been removed; they are removed in the
// order of their numbers, so those that remain are without gaps too.
type pruneState struct {
	turn chan struct{} // held while pruning
	upTo atomic.Uint64
}

// pruneBatch bounds the records removed in one step.
const pruneBatch = 4096

// partSuffix marks an archive file that is not finished.
const partSuffix = ".part"

func (l *Log) retentionDue(last time.Time) bool {
	return l.cfg.Retention.Keep > 0 && l.cfg.Now().Sub(last) >= l.cfg.Retention.Interval
}

// Prune archives and removes the records that are older than Retention.Keep
// and returns their number.
func (l *Log) Prune(ctx context.Context) (int, error) {
	if err := l.enter(); err != nil {
		return 0, err
	}
	defer l.exit()
	if l.cfg.Retention.Keep <= 0 {
		return 0, nil
	}
	select {
	case l.prune.turn <- struct{}{}:
		defer func() { <-l.prune.turn }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	before := l.cfg.Now().Add(-l.cfg.Retention.Keep)
	total := 0
	for {
		n, err := l.pruneStep(ctx, before)
		total += n
		if err != nil || n == 0 {
			return total, err
		}
	}
}

// pruneStep removes the oldest records, as many as fit into one archive file.
//
// The archive file is complete and durable before the records go, but under a
// name of its own; it gets its proper name after the entry that removes them and
// notes it as the last archive. So a crash leaves either the records and a file
// to throw away, or no records and a file to rename, and never two archives
// with the same predecessor.
func (l *Log) pruneStep(ctx context.Context, before time.Time) (n int, err error) {
	if err := l.finishArchive(); err != nil {
		return 0, err
	}
	src, err := l.source()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, src.close()) }()
	last := l.prune.upTo.Load()
	a := l.newArchive()
	for stamped := l.stamps.upTo.Load(); last < stamped && n < pruneBatch && !a.full(); n++ {
		e, err := src.entry(last + 1)
		if err == nil && !e.Time.Before(before) {
			break
		}
		if err = errors.Join(err, ctx.Err()); err == nil {
			err = a.add(ctx, e)
		}
		if err != nil {
			return 0, errors.Join(err, a.abandon())
		}
		last = e.Seq
	}
	if n == 0 {
		return 0, nil
	}
	if err := a.finish(); err != nil {
		return 0, errors.Join(err, a.abandon())
	}
	err = l.commitState(context.WithoutCancel(ctx), func(s *state) {
		s.pruned = last
		if a.name != "" {
			s.archive = a.digest + " " + a.name
		}
	})
	if err != nil {
		return 0, err
	}
	l.prune.upTo.Store(last)
	l.cfg.Log.Info("message log: old records removed", zap.Int("records", n), zap.String("archive", a.name))
	return n, errors.Join(l.finishArchive(), l.removePruned())
}

// removePruned removes what is left of records that retention has removed: body
// files, then whole segments.
func (l *Log) removePruned() error {
	if err := l.removeBodies(); err != nil {
		return err
	}
	pruned := l.prune.upTo.Load()
	if l.segs.removable(pruned) == nil {
		return nil
	}
	// What the index has to do for them is done, durably.
	if err := l.index.sync(); err != nil {
		return err
	}
	for seg := l.segs.removable(pruned); seg != nil; seg = l.segs.removable(pruned) {
		if err := l.fs.Remove(l.segmentPath(seg)); err != nil && !notExist(err) {
			return fmt.Errorf("remove segment: %w", err)
		}
		// One by one: a gap among those that are left would be damage.
		if err := l.fs.syncDir(l.segmentDir()); err != nil {
			return err
		}
		l.segs.removeFirst()
	}
	return nil
}

// archive is an archive file being written: containers, and linkinginfo, which
// chains the digests of all of them through all archives.
type archive struct {
	l           *Log
	file        vfs.File // nil until the first container
	path        string
	zip         *zip.Writer
	size        int64
	cache       chainCache
	first, last time.Time

	prevDigest, prevName string
	digest               string
	links                bytes.Buffer
	name                 string // of the finished file
}

func (l *Log) newArchive() *archive { return &archive{l: l} }

func (a *archive) full() bool { return a.size > a.l.cfg.Retention.MaxArchive }

// add appends the container of e.
func (a *archive) add(ctx context.Context, e *Entry) error {
	if a.l.cfg.Retention.ArchiveDir == "" {
		return nil
	}
	if a.file == nil {
		if err := a.begin(); err != nil {
			return fmt.Errorf("begin archive: %w", err)
		}
		a.first, a.last = e.Time, e.Time
	}
	if e.Time.Before(a.first) {
		a.first = e.Time
	}
	if e.Time.After(a.last) {
		a.last = e.Time
	}
	c, err := a.l.container(ctx, e, false, &a.cache)
	if err != nil {
		return err
	}
	name := FileName(e)
	f, err := a.zip.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Deflate, Modified: e.Time})
	if err != nil {
		return err
	}
	h := sha512.New()
	n, err := c.WriteTo(io.MultiWriter(f, h))
	if err != nil {
		return fmt.Errorf("archive record %d: %w", e.Seq, err)
	}
	a.size += n
	a.link(name, h)
	return nil
}

// link chains the digest of one container to all before it.
func (a *archive) link(name string, h hash.Hash) {
	sum := sha512.Sum512([]byte(a.digest + hex.EncodeToString(h.Sum(nil))))
	a.digest = hex.EncodeToString(sum[:])
	fmt.Fprintf(&a.links, "%s %s\n", a.digest, name)
}

func (a *archive) begin() error {
	a.prevDigest, a.prevName, _ = strings.Cut(a.l.state().archive, " ")
	a.digest = a.prevDigest
	a.path = filepath.Join(a.l.cfg.Retention.ArchiveDir, "mlog"+partSuffix)
	var err error
	if a.file, err = a.l.fs.Create(a.path, vfs.WriteCategoryUnspecified); err != nil {
		return err
	}
	a.zip = newZip(a.file)
	return nil
}

// finish completes the file under its temporary name.
func (a *archive) finish() error {
	if a.file == nil {
		return nil
	}
	f, err := a.zip.CreateHeader(&zip.FileHeader{Name: "linkinginfo", Method: zip.Deflate, Modified: a.last})
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(f, "%s %s SHA-512\n%s", orDash(a.prevDigest), orDash(a.prevName), a.links.Bytes()); err != nil {
		return err
	}
	if err := errors.Join(a.zip.Close(), a.file.Sync(), a.file.Close()); err != nil {
		return err
	}
	const stamp = "20060102150405"
	a.name = fmt.Sprintf("mlog-%s-%s-%s.zip", a.first.UTC().Format(stamp), a.last.UTC().Format(stamp), a.digest[:16])
	part := filepath.Join(a.l.cfg.Retention.ArchiveDir, a.name+partSuffix)
	if err := a.l.fs.Rename(a.path, part); err != nil {
		return err
	}
	a.path = part
	return a.l.fs.syncDir(a.l.cfg.Retention.ArchiveDir)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// abandon removes an unfinished file.
func (a *archive) abandon() error {
	if a.file == nil {
		return nil
	}
	_ = a.file.Close() // finish may have closed it
	if err := a.l.fs.Remove(a.path); err != nil && !notExist(err) {
		return err
	}
	return nil
}

// finishArchive gives the last archive file its proper name, if a crash has
// prevented that, and removes those that never became complete.
func (l *Log) finishArchive() error {
	dir := l.cfg.Retention.ArchiveDir
	if dir == "" {
		return nil
	}
	_, name, _ := strings.Cut(l.state().archive, " ")
	files, err := l.fs.List(dir)
	if err != nil {
		return fmt.Errorf("archive folder: %w", err)
	}
	for _, f := range files {
		base, part := strings.CutSuffix(f, partSuffix)
		switch {
		case !part || !strings.HasPrefix(f, "mlog"):
			continue
		case name != "" && base == name:
			err = errors.Join(err, l.fs.Rename(filepath.Join(dir, f), filepath.Join(dir, name)), l.fs.syncDir(dir))
		default:
			err = errors.Join(err, l.fs.Remove(filepath.Join(dir, f)))
		}
	}
	return err
}
