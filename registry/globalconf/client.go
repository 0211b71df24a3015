// SPDX-License-Identifier: Apache-2.0

package globalconf

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

const (
	defaultInterval = time.Minute
	firstRetry      = time.Second
	connectTimeout  = 10 * time.Second // as X-Road's client
	headerTimeout   = 30 * time.Second // likewise
	// directoryTimeout and partTimeout bound a whole download, so that a peer
	// that sends a byte now and then cannot hold up the cycle.
	directoryTimeout = 30 * time.Second
	partTimeout      = 3 * time.Minute
	// maxSkew is how far in the future a generation may lie before it counts as
	// received now.
	maxSkew = 5 * time.Minute
	// maxPartners bounds the federated instances asked at a time.
	maxPartners = 4
)

// ClientConfig configures a Client. One of Anchor and AnchorFile is needed.
type ClientConfig struct {
	Anchor     []byte
	AnchorFile string // read again in every cycle
	// External says that the anchor is that of an external source: shared
	// parameters only, no federation.
	External bool
	// Dir is the configuration folder; "" keeps the configuration in memory only.
	Dir string
	// HTTP is nil for a client with X-Road's timeouts. Redirects are never
	// followed.
	HTTP *http.Client
	// AllowedFederations lists the instances whose configuration is downloaded,
	// without regard to case; "all" permits all, "none" overrides everything.
	// Empty means none.
	AllowedFederations []string
	// Version is the only configuration version to ask for; 0 means the newest
	// that the source has.
	Version int
	// Interval is the time between two updates, one minute if zero; it varies by
	// a tenth.
	Interval time.Duration
	// MaxPartSize bounds a part in bytes, 128 MiB if zero.
	MaxPartSize int64
	Now         func() time.Time // time.Now if nil
	Log         *zap.Logger      // may be nil
	// OnUpdate is called after each update, by the goroutine that made it, with
	// the current view (nil before the first success) and the update's error.
	OnUpdate func(*View, error)
}

// Stats tell how a Client fares.
type Stats struct {
	LastAttempt time.Time
	LastSuccess time.Time
	LastError   error // of the last attempt
	Failures    int   // attempts since the last success
	Updates     uint64
	Changes     uint64 // updates that brought other contents
	Downloaded  uint64 // bytes
	Location    string // of the last success
	Federated   map[string]error
}

// Client keeps a View up to date. It is safe for concurrent use.
type Client struct {
	cfg   ClientConfig
	http  *http.Client
	store store
	view  atomic.Pointer[View]

	// updating serialises updates. It is locked before mu.
	updating sync.Mutex

	// mu guards the rest; it is held for moments only.
	mu         sync.Mutex
	own        *stored
	federated  map[string]*stored
	remembered map[string]remembered // by instance
	stats      Stats

	downloaded atomic.Uint64
}

// remembered is a location that worked, and the version found there.
type remembered struct {
	url     string
	version int
}

// source is where one instance's configuration comes from.
type source struct {
	anchor   *Anchor
	identity string
	external bool
}

// newSource names a source by its anchor.
func newSource(a *Anchor, external bool) *source { return &source{a, a.identity(), external} }

// NewClient reads the anchor and what the folder holds from earlier runs, so
// that a View is there even while no central server can be reached. A stored
// configuration that does not verify is ignored, as is one of another instance.
func NewClient(cfg ClientConfig) (*Client, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Interval <= 0 {
		cfg.Interval = defaultInterval
	}
	if cfg.MaxPartSize <= 0 {
		cfg.MaxPartSize = defaultMaxPart
	}
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	c := &Client{cfg: cfg, http: httpClient(cfg.HTTP), store: store{dir: cfg.Dir}, remembered: map[string]remembered{}, federated: map[string]*stored{}}
	src, err := c.source()
	if err != nil {
		return nil, err
	}
	if cfg.Dir != "" {
		if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
			return nil, fmt.Errorf("configuration folder: %w", err)
		}
		c.resume(src)
	}
	return c, nil
}

func httpClient(given *http.Client) *http.Client {
	c := &http.Client{}
	if given != nil {
		*c = *given
	} else {
		c.Transport = &http.Transport{
			DialContext:           (&net.Dialer{Timeout: connectTimeout}).DialContext,
			TLSHandshakeTimeout:   connectTimeout,
			ResponseHeaderTimeout: headerTimeout,
			IdleConnTimeout:       2 * defaultInterval,
			MaxIdleConnsPerHost:   2,
			// What is hashed is what the server stores.
			DisableCompression: true,
		}
	}
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c
}

func (c *Client) source() (*source, error) {
	anchor := c.cfg.Anchor
	if c.cfg.AnchorFile != "" {
		var err error
		if anchor, err = os.ReadFile(c.cfg.AnchorFile); err != nil {
			return nil, fmt.Errorf("configuration anchor: %w", err)
		}
	}
	a, err := ParseAnchor(anchor)
	if err != nil {
		return nil, err
	}
	if _, err := folderName(a.Instance); err != nil {
		return nil, err
	}
	return newSource(a, c.cfg.External), nil
}

// resume loads the folder.
func (c *Client) resume(src *source) {
	if own, err := ownInstance(c.cfg.Dir); err != nil || own != src.anchor.Instance {
		return
	}
	own, err := c.load(src)
	if err != nil {
		c.cfg.Log.Warn("stored global configuration is not used", zap.String("instance", src.anchor.Instance), zap.Error(err))
		return
	}
	c.own = own
	for _, f := range c.partners(own) {
		s, err := c.load(f)
		if err == nil {
			c.federated[s.name] = s
		} else if !errors.Is(err, fs.ErrNotExist) {
			c.cfg.Log.Warn("stored global configuration is not used", zap.String("instance", f.anchor.Instance), zap.Error(err))
		}
	}
	c.compose()
}

// load reads one stored instance. Its signature may be by a key of the anchor
// or, unless the anchor has changed since, by one that the stored parameters
// announce: key rotations pass without a new anchor.
func (c *Client) load(src *source) (*stored, error) {
	return load(c.cfg.Dir, src.anchor.Instance, func(f folder) (*stored, error) {
		f.limit = c.cfg.MaxPartSize
		s, err := f.signed(src.anchor.Instance, src.external, nil, func(receipt) []*x509.Certificate { return src.anchor.Certificates() })
		if err == nil || !errors.Is(err, ErrSignature) && !errors.Is(err, fs.ErrNotExist) {
			return s, err
		}
		asIs, e := f.trusted(src.anchor.Instance)
		if e != nil {
			return nil, e
		}
		if errors.Is(err, fs.ErrNotExist) {
			return asIs, nil // a folder that X-Road wrote
		}
		return f.signed(src.anchor.Instance, src.external, asIs.content, func(r receipt) []*x509.Certificate {
			var certs []*x509.Certificate
			if r.Anchor == src.identity {
				for _, l := range announced(src, asIs) {
					certs = append(certs, l.certs...)
				}
			}
			return certs
		})
	})
}

// View returns the current configuration, nil until the first one was loaded. It
// may have expired: see View.Valid.
func (c *Client) View() *View {
	v := c.view.Load()
	if v != nil && !v.visibleUntil.IsZero() && c.cfg.Now().After(v.visibleUntil) {
		c.mu.Lock()
		defer c.mu.Unlock()
		v = c.compose()
	}
	return v
}

// compose makes the View anew; c.mu is held, or nobody else knows c yet.
func (c *Client) compose() *View {
	federated := make([]*instance, 0, len(c.federated))
	for _, s := range c.federated {
		federated = append(federated, s.instance)
	}
	v := compose(c.own.instance, federated, c.cfg.Now())
	c.view.Store(v)
	return v
}

// Stats returns a snapshot.
func (c *Client) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.Federated = maps.Clone(s.Federated)
	s.Downloaded = c.downloaded.Load()
	return s
}

// Run updates until ctx is done, then returns nil. After a failure it tries
// again soon, then ever more rarely, at the latest after the interval.
func (c *Client) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	retry := firstRetry
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		wait := c.cfg.Interval
		if err := c.Update(ctx); err != nil {
			wait = min(wait, retry)
			retry = min(2*retry, c.cfg.Interval)
		} else {
			retry = firstRetry
		}
		timer.Reset(time.Duration(float64(wait) * (0.9 + 0.2*rand.Float64())))
	}
}

// Update downloads once. Its error concerns the own instance; errors of
// federated instances are logged and told by Stats.
func (c *Client) Update(ctx context.Context) error {
	c.updating.Lock()
	defer c.updating.Unlock()
	before := c.view.Load()
	federated, err := c.update(ctx)

	var problems []error
	c.mu.Lock()
	if c.own != nil {
		c.compose()
	}
	after := c.view.Load()
	s := &c.stats
	s.LastAttempt, s.LastError = c.cfg.Now(), err
	if err != nil {
		s.Failures++
	} else {
		s.LastSuccess, s.Failures, s.Federated, s.Location = s.LastAttempt, 0, federated, c.own.receipt.Location
		s.Updates++
		if before == nil || before.generation != after.generation {
			s.Changes++
			problems = after.Problems()
		}
	}
	failures := s.Failures
	c.mu.Unlock()

	if err != nil {
		c.cfg.Log.Warn("global configuration was not updated", zap.Int("failures", failures), zap.Error(err))
	}
	for name, err := range federated {
		if err != nil {
			c.cfg.Log.Warn("global configuration of a federated instance was not updated", zap.String("instance", name), zap.Error(err))
		}
	}
	for _, p := range problems {
		c.cfg.Log.Warn("global configuration is used in part", zap.Error(p))
	}
	if c.cfg.OnUpdate != nil {
		c.cfg.OnUpdate(after, err)
	}
	return err
}

// update does the work of one cycle and returns the outcome for each federated
// instance.
func (c *Client) update(ctx context.Context) (map[string]error, error) {
	src, err := c.source()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	prev := c.own
	c.mu.Unlock()
	if prev != nil && prev.name != src.anchor.Instance {
		prev = nil // another instance: nothing of the old one counts
	}
	own, err := c.fetch(ctx, src, prev)
	if err != nil {
		return nil, err
	}
	if err := c.keep(own, prev); err != nil {
		return nil, err
	}
	if c.cfg.Dir != "" {
		if err := c.store.identify(own.name); err != nil {
			return nil, fmt.Errorf("store global configuration: %w", err)
		}
	}
	// The own configuration counts at once: a federated instance may be slow.
	c.mu.Lock()
	c.own = own
	old := c.federated
	c.compose()
	c.mu.Unlock()

	partners := c.partners(own)
	results := make([]*stored, len(partners))
	errs := make([]error, len(partners))
	var group errgroup.Group
	group.SetLimit(maxPartners)
	for i, src := range partners {
		group.Go(func() error {
			results[i], errs[i] = c.partner(ctx, src, old[src.anchor.Instance])
			return nil
		})
	}
	group.Wait() //nolint:errcheck // always nil: one partner's failure is not another's

	federated, outcome, folders := map[string]*stored{}, map[string]error{}, map[string]bool{}
	for i, src := range append(partners, src) {
		folder, _ := folderName(src.anchor.Instance)
		folders[folder] = true
		if i < len(partners) {
			outcome[src.anchor.Instance] = errs[i]
			if results[i] != nil {
				federated[src.anchor.Instance] = results[i]
			}
		}
	}
	c.mu.Lock()
	c.federated = federated
	c.mu.Unlock()
	if c.cfg.Dir != "" {
		if err := c.store.sweep(folders); err != nil {
			c.cfg.Log.Warn("old global configuration was not deleted", zap.Error(err))
		}
	}
	return outcome, nil
}

// partner updates one federated instance. After a failure it returns what is
// still good.
func (c *Client) partner(ctx context.Context, src *source, prev *stored) (*stored, error) {
	if prev != nil && !prev.survives(src) {
		prev = nil
	}
	s, err := c.fetch(ctx, src, prev)
	if err == nil {
		err = c.keep(s, prev)
	}
	if err != nil {
		return prev, err
	}
	return s, nil
}

// survives reports whether a federated configuration may stay although its
// anchor has changed: only if the new anchor verifies it.
func (s *stored) survives(src *source) bool {
	if s.receipt.Anchor == src.identity || s.directory == nil {
		return true
	}
	_, err := ParseDirectory(s.directory, src.anchor.Certificates())
	return err == nil
}

// partners returns the federated sources that the private parameters name and
// the filter permits.
func (c *Client) partners(own *stored) []*source {
	if c.cfg.External || own.private == nil {
		return nil
	}
	var list []*source
	for i := range own.private.Anchors {
		a := &own.private.Anchors[i]
		if _, err := folderName(a.Instance); err == nil && a.Instance != own.name && c.allowed(a.Instance) {
			list = append(list, newSource(a, true))
		}
	}
	return list
}

func (c *Client) allowed(instance string) bool {
	ok := false
	for _, f := range c.cfg.AllowedFederations {
		if strings.EqualFold(f, "none") {
			return false
		}
		ok = ok || strings.EqualFold(f, "all") || strings.EqualFold(f, instance)
	}
	return ok
}

// keep stores s unless it is what is stored already.
func (c *Client) keep(s, prev *stored) error {
	if c.cfg.Dir == "" || s == prev {
		return nil
	}
	if err := c.store.put(s, prev); err != nil {
		return fmt.Errorf("store global configuration of %s: %w", s.name, err)
	}
	return nil
}

// location is one place to ask, with the keys that may sign there.
type location struct {
	url     string
	certs   []*x509.Certificate
	version int // 0: to be negotiated
}

// locations lists where to ask: what worked last time, then the addresses that
// the stored shared parameters announce, then those of the anchor, https always
// before http.
func (c *Client) locations(src *source, prev *stored) []location {
	var list []location
	if prev != nil && (prev.receipt.Anchor == src.identity || prev.directory == nil) {
		list = shuffled(announced(src, prev))
	}
	var anchored []location
	for _, s := range src.anchor.Sources {
		certs := parseCertificates(s.Certs)
		if plain, ok := strings.CutPrefix(s.URL, "http:"); ok {
			anchored = append(anchored, location{url: "https:" + plain, certs: certs})
		}
		anchored = append(anchored, location{url: s.URL, certs: certs})
	}
	for _, l := range shuffled(anchored) {
		// A location may occur with several keys, but once with the same.
		if !slices.ContainsFunc(list, l.equal) {
			list = append(list, l)
		}
	}
	c.mu.Lock()
	r, ok := c.remembered[src.anchor.Instance]
	c.mu.Unlock()
	if ok {
		if i := slices.IndexFunc(list, func(l location) bool { return l.url == r.url }); i >= 0 {
			l := list[i]
			l.version = r.version
			list = slices.Insert(slices.Delete(list, i, i+1), 0, l)
		}
	}
	return list
}

func (l location) equal(m location) bool {
	return l.url == m.url && slices.EqualFunc(l.certs, m.certs, func(a, b *x509.Certificate) bool { return bytes.Equal(a.Raw, b.Raw) })
}

// shuffled orders https before http, and at random within.
func shuffled(list []location) []location {
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	slices.SortStableFunc(list, func(a, b location) int {
		return strings.Compare(b.url[:len("http:s")], a.url[:len("http:s")])
	})
	return list
}

// announced lists the locations that stored shared parameters name. The folder
// in the anchor's URL tells which keys sign there.
func announced(src *source, prev *stored) []location {
	i := slices.IndexFunc(src.anchor.Sources, func(s AnchorSource) bool { return strings.HasPrefix(s.URL, "http:") })
	u, err := url.Parse(src.anchor.Sources[max(i, 0)].URL)
	if err != nil {
		return nil
	}
	var list []location
	for _, s := range prev.shared.model.Sources {
		var certs [][]byte
		switch strings.Trim(u.Path, "/") {
		case "internalconf":
			certs = s.InternalCerts
		case "externalconf":
			certs = s.ExternalCerts
		default: // a configuration proxy
			certs = slices.Concat(s.InternalCerts, s.ExternalCerts)
		}
		host := s.Address
		if ip := net.ParseIP(host); ip != nil && ip.To4() == nil {
			host = "[" + host + "]"
		}
		for _, scheme := range []string{"https", "http"} {
			at := url.URL{Scheme: scheme, Host: host, Path: u.Path}
			if back, err := url.Parse(at.String()); err == nil && back.Host == host && host != "" {
				list = append(list, location{url: at.String(), certs: parseCertificates(certs)})
			}
		}
	}
	return list
}

// fetch asks the locations in turn until one serves a good configuration. Its
// error wraps ErrUnavailable and what went wrong at each location.
func (c *Client) fetch(ctx context.Context, src *source, prev *stored) (*stored, error) {
	var errs []error
	for _, l := range c.locations(src, prev) {
		s, version, err := c.fetchFrom(ctx, l, src, prev)
		if err == nil {
			c.mu.Lock()
			c.remembered[src.anchor.Instance] = remembered{l.url, version}
			c.mu.Unlock()
			return s, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", l.url, err))
		if ctx.Err() != nil {
			break
		}
	}
	c.mu.Lock()
	delete(c.remembered, src.anchor.Instance)
	c.mu.Unlock()
	return nil, fmt.Errorf("%w: %s: %w", ErrUnavailable, src.anchor.Instance, errors.Join(errs...))
}

// fetchFrom downloads and verifies everything that one location serves. It
// returns prev itself if there is nothing new.
func (c *Client) fetchFrom(ctx context.Context, l location, src *source, prev *stored) (*stored, int, error) {
	at, doc, version, err := c.directory(ctx, l)
	if err != nil {
		return nil, 0, err
	}
	d, err := ParseDirectory(doc, l.certs)
	if err != nil {
		return nil, 0, err
	}
	now := c.cfg.Now()
	if now.After(d.Expires) {
		return nil, 0, fmt.Errorf("%w: it expired at %s", ErrOutdated, d.Expires.UTC().Format(time.RFC3339))
	}
	if version != 0 && d.Version != version {
		return nil, 0, fmt.Errorf("%w: %d instead of %d", ErrVersion, d.Version, version)
	}
	listed, err := selectParts(d, src.anchor.Instance, src.external)
	if err != nil {
		return nil, 0, err
	}
	if prev != nil && prev.receipt.Anchor == src.identity {
		if older, same := prev.newer(d, listed); older && same {
			return prev, version, nil
		} else if older {
			return nil, 0, fmt.Errorf("%w: generated before the configuration received at %s", ErrRollback, prev.receipt.Received.UTC().Format(time.RFC3339))
		}
	}
	parts := make([]part, len(listed))
	for i := range listed {
		raw, err := c.part(ctx, at, &listed[i], prev)
		if err != nil {
			return nil, 0, err
		}
		if parts[i], err = newPart(&listed[i], d, raw); err != nil {
			return nil, 0, err
		}
	}
	var known *content
	if prev != nil {
		known = prev.content
	}
	fresh, err := newContent(src.anchor.Instance, d.Version, parts, known)
	if err != nil {
		return nil, 0, err
	}
	return &stored{
		instance:  &instance{expires: d.Expires, content: fresh},
		directory: doc, listed: d,
		receipt: receipt{Anchor: src.identity, Location: l.url, Received: now},
	}, version, nil
}

// newer reports whether s is newer than the directory d, and whether both list
// the same parts.
func (s *stored) newer(d *Directory, listed []Part) (older, same bool) {
	if s.listed == nil {
		return false, false
	}
	mine, err := selectParts(s.listed, s.name, s.private == nil)
	same = err == nil && s.version == d.Version && slices.EqualFunc(mine, listed, func(a, b Part) bool {
		return a.Identifier == b.Identifier && a.Instance == b.Instance && a.HashURI == b.HashURI && bytes.Equal(a.Hash, b.Hash)
	})
	if same {
		return !d.Expires.After(s.listed.Expires), true
	}
	have, ok := s.listed.Generation()
	offered, too := d.Generation()
	if !ok || !too {
		return d.Expires.Before(s.listed.Expires), false
	}
	if latest := s.receipt.Received.Add(maxSkew); have.After(latest) {
		have = latest
	}
	return offered.Before(have), false
}

// directory downloads the signed directory of a location and negotiates its
// version: the highest one that the server does not answer with 404. version is
// 0 if the location itself names one.
func (c *Client) directory(ctx context.Context, l location) (at *url.URL, doc []byte, version int, err error) {
	base, err := url.Parse(l.url)
	if err != nil {
		return nil, nil, 0, err
	}
	get := func(v int) (int, error) {
		u := *base
		if v != 0 {
			q := "version=" + strconv.Itoa(v)
			if u.RawQuery != "" {
				q = u.RawQuery + "&" + q
			}
			u.RawQuery = q
		}
		status, body, err := c.get(ctx, u.String(), maxDirectory, directoryTimeout)
		at, doc, version = &u, body, v
		return status, err
	}
	first, last := CurrentVersion, MinVersion
	if c.cfg.Version != 0 {
		first, last = c.cfg.Version, c.cfg.Version
	}
	if base.Query().Has("version") {
		first, last = 0, 0
	} else if l.version != 0 {
		// Still there? Otherwise negotiate anew.
		if status, err := get(l.version); err != nil || status == http.StatusOK {
			return at, doc, version, err
		}
	}
	for v := first; ; v-- {
		status, err := get(v)
		if err == nil && status != http.StatusOK && status != http.StatusNotFound && v > last {
			status, err = get(v) // the server knows this version: ask once more
		}
		switch {
		case err != nil:
			return nil, nil, 0, err
		case status == http.StatusOK:
			return at, doc, version, nil
		case status == http.StatusNotFound && v == last && v == c.cfg.Version:
			return nil, nil, 0, fmt.Errorf("%w: version %d is not served", ErrVersion, v)
		case status != http.StatusNotFound || v == last:
			return nil, nil, 0, fmt.Errorf("HTTP status %d", status)
		}
	}
}

// part returns a listed part, from prev if that has it.
func (c *Client) part(ctx context.Context, at *url.URL, p *Part, prev *stored) (string, error) {
	if prev != nil {
		if have, ok := prev.find(p.Identifier); ok {
			if prev.lists(p) || p.Matches([]byte(have.raw)) == nil {
				return have.raw, nil
			}
		}
	}
	ref, err := url.Parse(p.Location)
	if err != nil {
		return "", fmt.Errorf("%w: location %q", ErrMalformed, p.Location)
	}
	u := at.ResolveReference(ref)
	// A directory lists files beside itself, never at a host of its choice.
	if u.Scheme != at.Scheme || u.Host != at.Host || u.User != nil {
		return "", fmt.Errorf("%w: location %q", ErrMalformed, p.Location)
	}
	status, body, err := c.get(ctx, u.String(), c.cfg.MaxPartSize, partTimeout)
	if err != nil {
		return "", err
	}
	if status != http.StatusOK {
		return "", fmt.Errorf("%s: HTTP status %d", p.Location, status)
	}
	return string(body), p.Matches(body)
}

// lists reports whether s was downloaded by a directory that lists exactly p.
func (s *stored) lists(p *Part) bool {
	return s.listed != nil && slices.ContainsFunc(s.listed.Parts, func(q Part) bool {
		return q.Identifier == p.Identifier && q.Instance == p.Instance && q.HashURI == p.HashURI && bytes.Equal(q.Hash, p.Hash)
	})
}

func (c *Client) get(ctx context.Context, url string, limit int64, timeout time.Duration) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		// Enough for the connection to be used again.
		io.Copy(io.Discard, io.LimitReader(resp.Body, 4<<10)) //nolint:errcheck // only a courtesy
		return resp.StatusCode, nil, nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	c.downloaded.Add(uint64(len(body)))
	if err == nil && int64(len(body)) > limit {
		err = fmt.Errorf("%w: %s is larger than %d bytes", ErrMalformed, url, limit)
	}
	return resp.StatusCode, body, err
}
