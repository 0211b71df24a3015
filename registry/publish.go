// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"kontor/registry/globalconf"
)

// keepParts is how long parts stay after something newer replaced them: a
// client may have read the directory that names them just before.
const keepParts = 600 * time.Second

var (
	versionName = regexp.MustCompile(`^V[2-6]$`)
	folderName  = regexp.MustCompile(`^[0-9]{23}$`)
)

// publisher keeps what is published on disk: per version one file for each
// directory and one folder for each generation of parts,
//
//	V6/internalconf
//	V6/externalconf
//	V6/20261121180000000000000/shared-params.xml
//
// Directories are replaced by rename, and only after all they name is on disk,
// so a crash leaves the last publication whole.
type publisher struct {
	root     *os.Root
	now      func() time.Time
	log      *zap.Logger
	status   atomic.Pointer[publication]
	mu       sync.Mutex // held while publishing
	current  map[int]*generation
	number   uint64               // state that current was generated from
	replaced map[string]time.Time // folders that no directory names any more, and since when
	last     time.Time            // instant in the name of the newest folder
}

// generation is the set of parts that the directories of one version name.
type generation struct {
	folder string // V6/20261121180000000000000
	parts  []published
}

// published is a part that lies in its folder, or will.
type published struct {
	file    string
	size    int64
	part    globalconf.Part
	content []byte // nil once written
}

// publication is the outcome of the last attempts.
type publication struct {
	at       time.Time // last success
	expires  time.Time
	number   uint64 // journal entry that was published
	versions []int
	failed   time.Time // zero: the last attempt succeeded
	err      error
}

func openPublisher(dir string, cfg Config) (*publisher, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	p := &publisher{root: root, now: cfg.Now, log: cfg.Log, current: map[int]*generation{}, replaced: map[string]time.Time{}}
	p.status.Store(&publication{})
	if err := p.adopt(); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return p, nil
}

// adopt takes over what an earlier process published. Its folders are all
// treated as replaced just now: the first publication makes new ones.
func (p *publisher) adopt() error {
	now := p.now()
	for v := minVersion; v <= maxVersion; v++ {
		dir := versionDir(v)
		entries, err := fs.ReadDir(p.root.FS(), dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		for _, e := range entries {
			name := e.Name()
			switch {
			case e.IsDir() && folderName.MatchString(name):
				p.replaced[path.Join(dir, name)] = now
				if t, err := parseFolder(name); err == nil && t.After(p.last) {
					p.last = t
				}
			case len(name) > 0 && name[0] == '.': // left by a crash
				if err := p.root.RemoveAll(path.Join(dir, name)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (p *publisher) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.root.Close()
}

func versionDir(v int) string { return "V" + strconv.Itoa(v) }

// parseFolder reads the instant from a folder's name.
func parseFolder(name string) (time.Time, error) {
	t, err := time.Parse("20060102150405", name[:14])
	if err != nil {
		return t, err
	}
	nanos, err := strconv.ParseUint(name[14:], 10, 32)
	return t.Add(time.Duration(nanos)), err
}

// Publish generates, checks, signs and publishes the configuration of the
// current state, in all versions or, if it returns an error, in none. Parts
// that have not changed stay where they are; the directories are signed anew.
func (r *Registry) Publish(ctx context.Context) error {
	p := r.pub
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	st := r.State()
	next := *p.status.Load()
	if err := r.publish(ctx, st, &next); err != nil {
		next.failed, next.err = p.now(), err
		p.status.Store(&next)
		return fmt.Errorf("publish configuration: %w", err)
	}
	next.failed, next.err = time.Time{}, nil
	p.status.Store(&next)
	if err := p.clean(); err != nil {
		p.log.Warn("old configuration parts were not removed", zap.Error(err))
	}
	return nil
}

func (r *Registry) publish(ctx context.Context, st *State, done *publication) error {
	p := r.pub
	// 1 generate, or take what is published if nothing has changed
	generations, err := p.generations(st)
	if err != nil {
		return err
	}
	// 2 sign, and read everything back
	now := p.now()
	expires := now.Add(time.Duration(st.system.ConfigurationValidity) * time.Second)
	directories, err := r.sign(st, generations, expires)
	if err != nil {
		return err
	}
	if err := r.rehearse(ctx, st, directories, generations[maxVersion]); err != nil {
		return fmt.Errorf("our own reader refuses it: %w", err)
	}
	// 3 write: first the parts, then the directories that name them
	if err := p.writeFolders(generations); err != nil {
		return err
	}
	if err := p.replace(directories); err != nil {
		return err
	}
	for v := minVersion; v < st.system.MinimumVersion; v++ {
		if err := p.withdraw(v); err != nil {
			return err
		}
	}
	// 4 remember
	if len(p.current) == 0 { // what an earlier process published was named until now
		for folder := range p.replaced {
			p.replaced[folder] = now
		}
	}
	for _, g := range p.current {
		p.replaced[g.folder] = now
	}
	for _, g := range generations {
		delete(p.replaced, g.folder)
	}
	p.current, p.number = generations, st.number
	done.at, done.expires, done.number = now, expires, st.number
	done.versions = slices.Sorted(maps.Keys(generations))
	return nil
}

// generations returns the parts of every version that is to be published.
// Versions whose parts are as before, and still on disk, keep their folder.
func (p *publisher) generations(st *State) (map[int]*generation, error) {
	if p.number == st.number && p.whole() {
		return p.current, nil
	}
	r, err := newRenderer(st)
	if err != nil {
		return nil, err
	}
	var fresh [maxVersion + 1]*generation
	var renderers errgroup.Group
	stamp := p.stamp(st)
	for v := st.system.MinimumVersion; v <= maxVersion; v++ {
		renderers.Go(func() error {
			parts, err := r.parts(v)
			if err != nil {
				return fmt.Errorf("version %d: %w", v, err)
			}
			fresh[v] = newGeneration(st.instance, path.Join(versionDir(v), stamp), parts)
			return nil
		})
	}
	if err := renderers.Wait(); err != nil {
		return nil, err
	}
	all, whole := map[int]*generation{}, p.whole()
	for v, g := range fresh {
		if g == nil {
			continue
		}
		all[v] = g
		if old := p.current[v]; whole && old != nil && old.sameParts(g) {
			all[v] = old
		}
	}
	return all, nil
}

// whole reports whether something is published and all its parts are on disk.
func (p *publisher) whole() bool {
	for _, g := range p.current {
		for _, c := range g.parts {
			if info, err := p.root.Stat(path.Join(g.folder, c.file)); err != nil || info.Size() != c.size {
				return false
			}
		}
	}
	return len(p.current) > 0
}

// stamp names a new generation. Names only grow, even if the clock steps back:
// clients refuse what calls itself older than what they have. Where there are
// several nodes, the name comes from the journal, so that one that has seen more
// of it never calls itself older than another, whatever their clocks say.
func (p *publisher) stamp(st *State) string {
	t := p.now().UTC()
	if len(st.nodes) > 0 {
		t = st.stamp
	}
	if !t.After(p.last) {
		t = p.last.Add(1)
	}
	p.last = t
	return globalconf.Folder(t)
}

func newGeneration(instance, folder string, parts []part) *generation {
	g := &generation{folder: folder}
	for _, c := range parts {
		// Of every part: X-Road's clients take nothing if one does not say.
		listed := globalconf.NewPart(c.identifier, instance, "/"+path.Join(folder, c.file), c.content)
		g.parts = append(g.parts, published{c.file, int64(len(c.content)), listed, c.content})
	}
	return g
}

func (g *generation) sameParts(other *generation) bool {
	return slices.EqualFunc(g.parts, other.parts, func(a, b published) bool {
		return a.part.Identifier == b.part.Identifier && a.file == b.file && bytes.Equal(a.part.Hash, b.part.Hash)
	})
}

// directory lists the parts that a source offers.
func (g *generation) directory(src Source, version int, expires time.Time) *globalconf.Directory {
	d := &globalconf.Directory{Version: version, Expires: expires}
	for _, c := range g.parts {
		if src == Internal || c.part.Identifier == globalconf.ContentSharedParams {
			d.Parts = append(d.Parts, c.part)
		}
	}
	return d
}

// sign makes the directories of all versions, by path, and has each read back
// with all certificates that clients trust.
func (r *Registry) sign(st *State, generations map[int]*generation, expires time.Time) (map[string][]byte, error) {
	directories := map[string][]byte{}
	for _, src := range []Source{Internal, External} {
		key, cert, err := r.signer(st, src)
		if err != nil {
			return nil, err
		}
		trusted, err := st.trusted(r.cfg.Node, src)
		if err != nil {
			return nil, fmt.Errorf("%s anchor: %w", src, err)
		}
		for v, g := range generations {
			doc, err := signDirectory(g.directory(src, v, expires), key, cert, trusted)
			if err != nil {
				return nil, fmt.Errorf("version %d: %w", v, err)
			}
			directories[path.Join(versionDir(v), directoryName(src))] = doc
		}
	}
	return directories, nil
}

func signDirectory(d *globalconf.Directory, key crypto.Signer, cert *x509.Certificate, trusted []*x509.Certificate) ([]byte, error) {
	doc, err := d.Sign(key, cert)
	if err != nil {
		return nil, err
	}
	got, err := globalconf.ParseDirectory(doc, trusted)
	if err != nil {
		return nil, err
	}
	same := got.Version == d.Version && got.Expires.Equal(d.Expires.Truncate(time.Second)) &&
		slices.EqualFunc(got.Parts, d.Parts, func(a, b globalconf.Part) bool {
			return a.Identifier == b.Identifier && a.Instance == b.Instance && a.Location == b.Location && bytes.Equal(a.Hash, b.Hash)
		})
	if !same {
		return nil, errors.New("the signed directory does not say what was signed")
	}
	return doc, nil
}

// writeFolders writes new generations durably. Until a directory names their
// folders, they are rubbish. Writers that wait for the disk together share its
// commits.
func (p *publisher) writeFolders(generations map[int]*generation) error {
	var writers errgroup.Group
	for _, g := range generations {
		if g.parts[0].content == nil {
			continue // written before
		}
		p.replaced[g.folder] = p.now()
		writers.Go(func() error { return p.writeFolder(g) })
	}
	return writers.Wait()
}

func (p *publisher) writeFolder(g *generation) error {
	err := p.root.MkdirAll(g.folder, 0o755)
	for i := 0; err == nil && i < len(g.parts); i++ {
		err = p.write(path.Join(g.folder, g.parts[i].file), g.parts[i].content)
	}
	for _, dir := range []string{g.folder, path.Dir(g.folder), "."} {
		if err == nil {
			err = p.sync(dir)
		}
	}
	if err != nil {
		return errors.Join(err, p.root.RemoveAll(g.folder))
	}
	for i := range g.parts {
		g.parts[i].content = nil
	}
	return nil
}

// replace puts the directories in place of the last ones: all are written
// before the first is renamed.
func (p *publisher) replace(directories map[string][]byte) error {
	var writers errgroup.Group
	for name, doc := range directories {
		writers.Go(func() error { return p.write(temporary(name), doc) })
	}
	if err := writers.Wait(); err != nil {
		return err
	}
	changed := map[string]bool{}
	for name := range directories {
		if err := p.root.Rename(temporary(name), name); err != nil {
			return err
		}
		changed[path.Dir(name)] = true
	}
	var syncs errgroup.Group
	for dir := range changed {
		syncs.Go(func() error { return p.sync(dir) })
	}
	return syncs.Wait()
}

func temporary(name string) string { return path.Join(path.Dir(name), "."+path.Base(name)) }

// withdraw stops publishing a version.
func (p *publisher) withdraw(v int) error {
	for _, src := range []Source{Internal, External} {
		if err := p.root.Remove(path.Join(versionDir(v), directoryName(src))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// clean removes folders that no directory has named for long enough.
func (p *publisher) clean() error {
	var errs []error
	for folder, since := range p.replaced {
		if p.now().Sub(since) < keepParts {
			continue
		}
		if err := p.root.RemoveAll(folder); err != nil {
			errs = append(errs, err)
			continue
		}
		delete(p.replaced, folder)
	}
	return errors.Join(errs...)
}

func (p *publisher) write(name string, content []byte) (err error) {
	f, err := p.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(content); err != nil {
		return err
	}
	return f.Sync()
}

func (p *publisher) sync(dir string) error {
	d, err := p.root.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Run publishes at once, after every change and every Interval, until ctx
// ends. A failed publication is logged and tried again; the last good one
// stays until it expires.
func (r *Registry) Run(ctx context.Context) error {
	tick := time.NewTicker(r.cfg.Interval)
	defer tick.Stop()
	for {
		if err := r.Publish(ctx); err != nil && ctx.Err() == nil {
			s := r.Status()
			r.cfg.Log.Error("configuration was not published; the last good one stays", zap.Error(err), zap.Time("valid until", s.Expires))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-r.changed:
		}
	}
}
