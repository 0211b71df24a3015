// SPDX-License-Identifier: Apache-2.0

package globalconf

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Names in a configuration folder.
const (
	instanceFile   = "instance-identifier"
	filesFile      = "files" // written by central servers
	directoryFile  = "directory.mime"
	metadataSuffix = ".metadata"

	newSuffix = ".new" // a folder being written: .DEV.new
	oldSuffix = ".old" // a folder being replaced: .DEV.old
)

const (
	defaultMaxPart = 128 << 20 // 100,000 subsystems take some 20 MB
	maxMetadata    = 16 << 10
)

// metadata is what X-Road stores beside each part.
type metadata struct {
	Identifier string `json:"contentIdentifier,omitempty"`
	Instance   string `json:"instanceIdentifier,omitempty"`
	Expires    string `json:"expirationDate,omitempty"`
	FileName   string `json:"contentFileName,omitempty"`
	Location   string `json:"contentLocation,omitempty"`
	Version    string `json:"configurationVersion,omitempty"`
}

// receipt is our own metadata of the signed directory.
type receipt struct {
	Anchor   string    `json:"anchor"`   // identity of the anchor it was verified with
	Location string    `json:"location"` // where it was downloaded
	Received time.Time `json:"received"`
}

// stored is an instance's configuration together with its evidence.
type stored struct {
	*instance
	directory []byte // the signed directory; nil in a folder that X-Road wrote
	listed    *Directory
	receipt   receipt
}

// identity changes whenever an anchor does.
func (a *Anchor) identity() string {
	h := sha256.New()
	fmt.Fprintf(h, "%s %q", a.Generated.UTC().Format(time.RFC3339Nano), a.Instance)
	for _, s := range a.Sources {
		fmt.Fprintf(h, " %q %x", s.URL, s.Certs)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// folderName encodes an instance as X-Road names its folder.
func folderName(instance string) (string, error) {
	name := strings.NewReplacer("~", "%7E", "%2A", "*").Replace(url.QueryEscape(instance))
	if name == "" || name[0] == '.' || name == instanceFile || name == filesFile || len(name) > 200 {
		return "", fmt.Errorf("%w: instance identifier %q", ErrMalformed, instance)
	}
	return name, nil
}

// selectParts picks what a source may say: the parts of its own instance, and
// from an external source only the shared parameters.
func selectParts(d *Directory, instance string, external bool) ([]Part, error) {
	var parts []Part
	files := map[string]bool{}
	for _, p := range d.Parts {
		if p.Instance != "" && p.Instance != instance || external && p.Identifier != ContentSharedParams {
			continue
		}
		file, err := p.file()
		if err != nil {
			return nil, err
		}
		if files[file] {
			return nil, fmt.Errorf("%w: two parts are named %s", ErrMalformed, file)
		}
		files[file] = true
		parts = append(parts, p)
	}
	if !files[FileSharedParams] {
		return nil, fmt.Errorf("%w: %s of %s", ErrMissingPart, ContentSharedParams, instance)
	}
	if !external && !files[FilePrivateParams] {
		return nil, fmt.Errorf("%w: %s of %s", ErrMissingPart, ContentPrivateParams, instance)
	}
	slices.SortFunc(parts, func(a, b Part) int { return strings.Compare(a.Identifier, b.Identifier) })
	return parts, nil
}

// newPart describes verified content.
func newPart(p *Part, d *Directory, raw string) (part, error) {
	file, err := p.file()
	return part{file: file, raw: raw, metadata: metadata{
		Identifier: p.Identifier, Instance: p.Instance, Location: p.Location, FileName: p.FileName,
		Expires: d.Expires.UTC().Format(time.RFC3339Nano), Version: strconv.Itoa(d.Version),
	}}, err
}

// folder reads one instance's folder. Its content stays the same while it is
// read, even if it is replaced meanwhile.
type folder struct {
	*os.Root
	limit int64
}

// openFolder opens the folder of an instance, or what a crash left of it.
func openFolder(dir, name string, limit int64) (folder, error) {
	r, err := os.OpenRoot(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		if old, e := os.OpenRoot(filepath.Join(dir, "."+name+oldSuffix)); e == nil {
			r, err = old, nil
		}
	}
	return folder{r, limit}, err
}

func (f folder) read(name string, limit int64) ([]byte, error) {
	file, err := f.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if st, err := file.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s is not a regular file", ErrMalformed, name)
	}
	b, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%w: %s is larger than %d bytes", ErrMalformed, name, limit)
	}
	return b, err
}

func (f folder) metadata(file string, out any) (bool, error) {
	b, err := f.read(file+metadataSuffix, maxMetadata)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(b, out)
	}
	if err != nil {
		return false, fmt.Errorf("%w: metadata of %s: %v", ErrMalformed, file, err)
	}
	return true, nil
}

// identifierOf tells what a file without metadata is.
var identifierOf = map[string]string{
	FilePrivateParams: ContentPrivateParams, FileSharedParams: ContentSharedParams, FileMonitoring: ContentMonitoring,
	FileFetchInterval: ContentFetchInterval, FileNextUpdate: ContentNextUpdate,
}

// trusted reads the folder as it stands, as X-Road does: without metadata a part
// is of version 2 and never expires.
func (f folder) trusted(name string) (*stored, error) {
	entries, err := fs.ReadDir(f.FS(), ".")
	if err != nil {
		return nil, err
	}
	s := &stored{}
	version, expires := MinVersion, time.Time{}
	var parts []part
	for _, e := range entries {
		file := e.Name()
		if e.IsDir() || file == directoryFile || strings.HasSuffix(file, metadataSuffix) || len(parts) == maxParts {
			continue
		}
		p := part{file: file}
		if _, err := f.metadata(file, &p.metadata); err != nil {
			return nil, err
		}
		// For the two that matter the name decides, whatever the metadata say.
		if known := identifierOf[file]; known != "" && p.metadata.Identifier == "" ||
			known == ContentPrivateParams || known == ContentSharedParams {
			p.metadata.Identifier = known
		} else if p.metadata.Identifier == "" || p.metadata.Identifier == ContentPrivateParams || p.metadata.Identifier == ContentSharedParams {
			continue
		}
		raw, err := f.read(file, f.limit)
		if err != nil {
			return nil, err
		}
		p.raw = string(raw)
		if p.metadata.Identifier == ContentSharedParams || p.metadata.Identifier == ContentPrivateParams {
			at, v, err := p.metadata.parse()
			if err != nil {
				return nil, err
			}
			if !at.IsZero() && (expires.IsZero() || at.Before(expires)) {
				expires = at
			}
			if p.metadata.Identifier == ContentSharedParams {
				version = v
			}
		}
		parts = append(parts, p)
	}
	c, err := newContent(name, version, parts, nil)
	if err != nil {
		return nil, err
	}
	s.instance = &instance{expires: expires, content: c}
	return s, nil
}

func (m *metadata) parse() (expires time.Time, version int, err error) {
	version = MinVersion
	if m.Version != "" {
		if version, err = strconv.Atoi(m.Version); err != nil {
			return expires, 0, fmt.Errorf("%w: %q", ErrVersion, m.Version)
		}
	}
	if m.Expires != "" {
		expires, err = parseExpiry(m.Expires)
	}
	return expires, version, err
}

// signed reads the folder by its signed directory: only what it lists, only with
// the listed hashes. Certificates are asked of certs once the receipt is read;
// what parsed holds is not parsed again.
func (f folder) signed(name string, external bool, parsed *content, certs func(receipt) []*x509.Certificate) (*stored, error) {
	s := &stored{}
	var err error
	if s.directory, err = f.read(directoryFile, maxDirectory); err != nil {
		return nil, err
	}
	if _, err := f.metadata(directoryFile, &s.receipt); err != nil {
		return nil, err
	}
	if s.listed, err = ParseDirectory(s.directory, certs(s.receipt)); err != nil {
		return nil, err
	}
	listed, err := selectParts(s.listed, name, external)
	if err != nil {
		return nil, err
	}
	parts := make([]part, len(listed))
	for i := range listed {
		file, err := listed[i].file()
		if err != nil {
			return nil, err
		}
		raw, err := f.read(file, f.limit)
		if err != nil {
			return nil, err
		}
		if err := listed[i].Matches(raw); err != nil {
			return nil, err
		}
		if parts[i], err = newPart(&listed[i], s.listed, string(raw)); err != nil {
			return nil, err
		}
	}
	c, err := newContent(name, s.listed.Version, parts, parsed)
	if err != nil {
		return nil, err
	}
	s.instance = &instance{expires: s.listed.Expires, content: c}
	return s, nil
}

// ownInstance reads instance-identifier.
func ownInstance(dir string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, instanceFile))
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return strings.TrimSpace(string(b)), nil
}

// LoadDir reads a configuration folder as it stands, X-Road's or our own. It
// trusts the folder: neither signatures nor hashes are checked, and nothing is
// hidden for being expired. What cannot be read of other instances is left out
// and told by Problems.
func LoadDir(dir string) (*View, error) {
	own, err := ownInstance(dir)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	first, err := loadTrusted(dir, own)
	if err != nil {
		return nil, err
	}
	var federated []*instance
	var problems []error
	seen := map[string]bool{own: true}
	for _, e := range entries {
		folder := e.Name()
		if inner, kind := unfinished(folder); kind == oldSuffix {
			folder = inner // a crash may have left only this
		}
		name, err := url.QueryUnescape(folder)
		if !e.IsDir() || err != nil || strings.HasPrefix(folder, ".") || seen[name] {
			continue
		}
		seen[name] = true
		s, err := loadTrusted(dir, name)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		federated = append(federated, s.instance)
	}
	v := compose(first.instance, federated, time.Time{})
	v.problems = problems
	return v, nil
}

func loadTrusted(dir, instance string) (*stored, error) {
	return load(dir, instance, func(f folder) (*stored, error) { return f.trusted(instance) })
}

func load(dir, instance string, read func(folder) (*stored, error)) (*stored, error) {
	name, err := folderName(instance)
	if err != nil {
		return nil, err
	}
	f, err := openFolder(dir, name, defaultMaxPart)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	defer f.Close()
	s, err := read(f)
	if err != nil {
		return nil, fmt.Errorf("stored configuration of %s: %w", instance, err)
	}
	return s, nil
}

// LoadSignedDir reads a configuration folder that a Client has written and
// verifies it offline: the directory's signature with the certificates of the
// anchor, then the hashes of all parts; other files are not read. Federated
// instances are verified with the anchors in the private parameters; those that
// do not verify are left out and told by Problems. Expiry is not judged.
//
// After a key rotation an anchor of that time is needed: the keys that the
// configuration itself announces prove nothing about it.
func LoadSignedDir(dir string, anchor []byte) (*View, error) {
	a, err := ParseAnchor(anchor)
	if err != nil {
		return nil, err
	}
	read := func(a *Anchor, external bool) (*stored, error) {
		return load(dir, a.Instance, func(f folder) (*stored, error) {
			return f.signed(a.Instance, external, nil, func(receipt) []*x509.Certificate { return a.Certificates() })
		})
	}
	own, err := read(a, false)
	if errors.Is(err, ErrMissingPart) {
		own, err = read(a, true) // the anchor of an external source
	}
	if err != nil {
		return nil, err
	}
	var federated []*instance
	var problems []error
	if own.private != nil {
		for i := range own.private.Anchors {
			b := &own.private.Anchors[i]
			s, err := read(b, true)
			switch {
			case b.Instance == a.Instance || errors.Is(err, fs.ErrNotExist):
			case err != nil:
				problems = append(problems, err)
			default:
				federated = append(federated, s.instance)
			}
		}
	}
	v := compose(own.instance, federated, time.Time{})
	v.problems = problems
	return v, nil
}

// store writes configuration folders.
type store struct {
	dir string
	// before, if set, is asked before every change to the disk; a test stops
	// there as a crash would.
	before func() error
}

// do makes one change to the disk.
func (st store) do(change func() error) error {
	if st.before != nil {
		if err := st.before(); err != nil {
			return err
		}
	}
	return change()
}

func (st store) rename(from, to string) error {
	return st.do(func() error { return os.Rename(from, to) })
}

func (st store) removeAll(path string) error {
	return st.do(func() error { return os.RemoveAll(path) })
}

// put replaces an instance's folder as a whole. prev is what the folder holds;
// its unchanged parts are linked, not written again.
func (st store) put(s, prev *stored) error {
	name, err := folderName(s.name)
	if err != nil {
		return err
	}
	final, fresh, old := filepath.Join(st.dir, name), filepath.Join(st.dir, "."+name+newSuffix), filepath.Join(st.dir, "."+name+oldSuffix)
	if err := st.recover(name); err != nil {
		return err
	}
	if err := st.do(func() error { return os.Mkdir(fresh, 0o755) }); err != nil {
		return err
	}
	for i := range s.parts {
		p := &s.parts[i]
		if err := st.part(filepath.Join(fresh, p.file), filepath.Join(final, p.file), p, prev); err != nil {
			return err
		}
		if err := st.writeJSON(filepath.Join(fresh, p.file+metadataSuffix), &p.metadata); err != nil {
			return err
		}
	}
	if err := st.writeJSON(filepath.Join(fresh, directoryFile+metadataSuffix), &s.receipt); err != nil {
		return err
	}
	if err := st.writeFile(filepath.Join(fresh, directoryFile), s.directory); err != nil {
		return err
	}
	if err := syncDir(fresh); err != nil {
		return err
	}
	if err := st.rename(final, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := st.rename(fresh, final); err != nil {
		return err
	}
	if err := syncDir(st.dir); err != nil {
		return err
	}
	return st.removeAll(old)
}

// part writes one part, or links it if the folder has it already.
func (st store) part(fresh, final string, p *part, prev *stored) error {
	if prev != nil {
		if q, ok := prev.find(p.metadata.Identifier); ok && q.file == p.file && q.raw == p.raw {
			if info, err := os.Lstat(final); err == nil && info.Mode().IsRegular() && info.Size() == int64(len(p.raw)) {
				if st.do(func() error { return os.Link(final, fresh) }) == nil {
					return nil
				}
			}
		}
	}
	return st.writeFile(fresh, []byte(p.raw))
}

// recover brings back what a crash left behind of an instance's folder.
func (st store) recover(name string) error {
	final, old := filepath.Join(st.dir, name), filepath.Join(st.dir, "."+name+oldSuffix)
	if _, err := os.Lstat(final); errors.Is(err, fs.ErrNotExist) {
		if err := st.rename(old, final); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := st.removeAll(old); err != nil {
		return err
	}
	return st.removeAll(filepath.Join(st.dir, "."+name+newSuffix))
}

// unfinished takes the name of a folder being written or replaced apart.
func unfinished(name string) (folder, suffix string) {
	if inner, ok := strings.CutPrefix(name, "."); ok {
		for _, suffix := range []string{newSuffix, oldSuffix} {
			if folder, ok := strings.CutSuffix(inner, suffix); ok {
				return folder, suffix
			}
		}
	}
	return "", ""
}

// identify writes instance-identifier.
func (st store) identify(instance string) error {
	if have, err := ownInstance(st.dir); err == nil && have == instance {
		return nil
	}
	path := filepath.Join(st.dir, instanceFile)
	if err := st.writeFile(path+newSuffix, []byte(instance)); err != nil {
		return err
	}
	if err := st.rename(path+newSuffix, path); err != nil {
		return err
	}
	return syncDir(st.dir)
}

// sweep deletes the folders of instances that are not to be kept. A folder that
// does not look like one of a configuration is left alone.
func (st store) sweep(keep map[string]bool) error {
	entries, err := os.ReadDir(st.dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		path := filepath.Join(st.dir, e.Name())
		inner, kind := unfinished(e.Name())
		if kind != "" && keep[inner] {
			errs = append(errs, st.recover(inner))
			continue
		}
		_, err := os.Lstat(filepath.Join(path, FileSharedParams))
		if e.IsDir() && err == nil && !keep[e.Name()] {
			errs = append(errs, st.removeAll(path))
		}
	}
	return errors.Join(errs...)
}

func (st store) writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return st.writeFile(path, b)
}

// writeFile writes and syncs a file. A crash may leave an empty one.
func (st store) writeFile(path string, b []byte) error {
	var f *os.File
	err := st.do(func() (err error) {
		f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
		return err
	})
	if err != nil {
		return err
	}
	err = st.do(func() error {
		_, err := f.Write(b)
		return err
	})
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
