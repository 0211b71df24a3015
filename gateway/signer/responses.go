// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"kontor/pki"
	"kontor/pki/ocsp"
	"kontor/registry/globalconf"
)

const (
	// minInterval is X-Road's lower bound for fetching, and its pause after a
	// round that failed.
	minInterval = time.Minute
	// scanInterval is how often the token is looked at for new certificates.
	scanInterval = 5 * time.Second
	// parallelFetches bounds the connections of one round.
	parallelFetches = 4
	// maxResponders bounds the responders asked for one certificate.
	maxResponders = 8
	// maxResponse bounds a kept response; real ones are 0.5–4 KB.
	maxResponse = 64 << 10

	suffix = ".ocsp"
)

// response is the last good OCSP response of a certificate.
type response struct {
	der        []byte
	generation string    // of the View by which it was judged last; "": not yet
	until      time.Time // fresh until then, under that View
}

type failure struct {
	at  time.Time
	err error
}

// good returns the response for a certificate if it is good under view at the
// instant at, and until when it will be.
func (s *Signer) good(view *globalconf.View, l link, at time.Time) ([]byte, time.Time, error) {
	hash := pki.HashOf(l.cert)
	s.mu.RLock()
	r := s.responses[hash]
	f, failed := s.failures[hash]
	s.mu.RUnlock()
	switch {
	case r == nil && failed:
		return nil, time.Time{}, fmt.Errorf("no OCSP response: %w", f.err)
	case r == nil:
		return nil, time.Time{}, fmt.Errorf("no OCSP response yet: %w", ocsp.ErrUnavailable)
	case r.generation == view.Generation() && at.Before(r.until):
		return r.der, r.until, nil
	}
	v, err := ocsp.Verify(r.der, l.cert, l.issuer, view.OCSPResponders(view.Instance(), l.issuer), at, view.OCSPPolicy())
	if err != nil {
		if failed {
			err = fmt.Errorf("%w (last fetch: %w)", err, f.err)
		}
		return nil, time.Time{}, fmt.Errorf("OCSP response: %w", err)
	}
	judged := &response{r.der, view.Generation(), freshUntil(v, view.OCSPPolicy())}
	s.mu.Lock()
	if s.responses[hash] == r {
		s.responses[hash] = judged
	}
	s.mu.Unlock()
	return judged.der, judged.until, nil
}

// freshUntil returns the instant at which a response goes stale.
func freshUntil(r *ocsp.Response, p ocsp.Policy) time.Time {
	freshness := p.Freshness
	if freshness <= 0 {
		freshness = ocsp.DefaultFreshness
	}
	until := r.ThisUpdate.Add(freshness)
	if !p.IgnoreNextUpdate && !r.NextUpdate.IsZero() {
		until = earliest(until, r.NextUpdate)
	}
	return until
}

// fetchSoon fetches a response on behalf of a waiting message: once for all who
// wait, for a bounded time, and not again right after a failure.
func (s *Signer) fetchSoon(ctx context.Context, view *globalconf.View, l link, at time.Time) error {
	hash := pki.HashOf(l.cert)
	s.mu.RLock()
	f, failed := s.failures[hash]
	s.mu.RUnlock()
	if failed && at.Sub(f.at) < fetchPause {
		return f.err
	}
	result := s.flights.DoChan(string(hash[:]), func() (any, error) {
		// Others may wait for the same response: it outlives this caller.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchPatience)
		defer cancel()
		return nil, s.fetch(ctx, view, l)
	})
	select {
	case r := <-result:
		return r.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fetch asks the responders in order until one gives a good response, which
// replaces the old one. If the certificate is revoked, or no responder knows
// it, the old response is dropped; any other failure leaves it.
func (s *Signer) fetch(ctx context.Context, view *globalconf.View, l link) error {
	hash := pki.HashOf(l.cert)
	var errs []error
	for _, url := range responders(view, l) {
		der, err := s.client.Fetch(ctx, l.cert, l.issuer, []string{url})
		var v *ocsp.Response
		if err == nil {
			v, err = ocsp.Verify(der, l.cert, l.issuer, view.OCSPResponders(view.Instance(), l.issuer), s.now(), view.OCSPPolicy())
		}
		if err == nil {
			s.keep(hash, &response{v.Raw, view.Generation(), freshUntil(v, view.OCSPPolicy())})
			return nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", url, err))
		if errors.Is(err, ocsp.ErrRevoked) {
			break
		}
	}
	err := errors.Join(errs...)
	if len(errs) == 0 {
		err = fmt.Errorf("%w: neither the global configuration nor the certificate names a responder", ocsp.ErrUnavailable)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures[hash] = failure{s.now(), err}
	if errors.Is(err, ocsp.ErrRevoked) || errors.Is(err, ocsp.ErrUnknown) {
		delete(s.responses, hash)
		s.chosen = choices{}
		s.remove(hash)
	}
	return err
}

// responders returns the URLs to ask about a certificate: those of the global
// configuration, then those that the certificate names.
func responders(view *globalconf.View, l link) []string {
	var urls []string
	add := func(u string) {
		if u != "" && len(urls) < maxResponders && !slices.Contains(urls, u) {
			urls = append(urls, u)
		}
	}
	for _, a := range view.Authorities(l.issuer.RawSubject) {
		if a.Cert.Equal(l.issuer) {
			for _, r := range a.Responders {
				add(r.URL)
			}
		}
	}
	for _, u := range l.cert.OCSPServer {
		add(u)
	}
	return urls
}

func (s *Signer) keep(hash pki.CertHash, r *response) {
	s.mu.Lock()
	s.responses[hash] = r
	delete(s.failures, hash)
	s.mu.Unlock()
	if err := s.save(hash, r.der); err != nil {
		s.log.Warn("OCSP response not kept on disk", zap.String("certificate", hash.Hex()), zap.Error(err))
	}
}

// OCSP returns the response for one of the server's own certificates, or an
// intermediate above it, by the SHA-1 or SHA-256 of its DER form in hex. Only
// good and fresh ones are given out.
func (s *Signer) OCSP(hash string) ([]byte, bool) {
	view := s.view()
	if view == nil || len(hash) > 2*len(pki.CertHash{}) {
		return nil, false
	}
	s.mu.RLock()
	name, ok := s.names[strings.ToLower(hash)]
	l := s.own[name]
	s.mu.RUnlock()
	if !ok {
		return nil, false
	}
	der, _, err := s.good(view, l, s.now())
	return der, err == nil
}

// scan looks at the token: which certificates, and intermediates above them,
// need OCSP responses under view.
func (s *Signer) scan(view *globalconf.View) []link {
	var links []link
	own, names := map[pki.CertHash]link{}, map[string]pki.CertHash{}
	for _, key := range s.token.Keys() {
		for _, tc := range key.Certificates() {
			if !tc.Status.Active {
				continue
			}
			chain, err := pki.VerifyChain(tc.Cert, nil, view, s.now())
			if err != nil {
				continue // Status tells
			}
			for _, l := range climb(chain, view) {
				hash := pki.HashOf(l.cert)
				if _, seen := own[hash]; seen {
					continue
				}
				own[hash] = l
				sum := sha1.Sum(l.cert.Raw)
				names[hash.Hex()], names[hex.EncodeToString(sum[:])] = hash, hash
				links = append(links, l)
			}
		}
	}
	s.mu.Lock()
	s.own, s.names = own, names
	s.mu.Unlock()
	return links
}

// Refresh fetches the OCSP responses of all active certificates once, and
// forgets those of certificates that are gone.
func (s *Signer) Refresh(ctx context.Context) error {
	view := s.view()
	if view == nil {
		return ErrNoView
	}
	links := s.scan(view)
	err := s.fetchAll(ctx, view, links)
	s.prune()
	return err
}

func (s *Signer) fetchAll(ctx context.Context, view *globalconf.View, links []link) error {
	errs := make([]error, len(links))
	var g errgroup.Group
	g.SetLimit(parallelFetches)
	for i, l := range links {
		g.Go(func() error {
			if err := s.fetch(ctx, view, l); err != nil {
				errs[i] = fmt.Errorf("certificate %s: %w", pki.HashOf(l.cert).Hex(), err)
			}
			return nil
		})
	}
	_ = g.Wait() // the goroutines report through errs
	return errors.Join(errs...)
}

// fetchNew fetches for certificates that nobody has asked about yet.
func (s *Signer) fetchNew(ctx context.Context) error {
	view := s.view()
	if view == nil {
		return ErrNoView
	}
	links := s.scan(view)
	s.mu.RLock()
	links = slices.DeleteFunc(links, func(l link) bool {
		hash := pki.HashOf(l.cert)
		_, failed := s.failures[hash]
		return failed || s.responses[hash] != nil
	})
	s.mu.RUnlock()
	return s.fetchAll(ctx, view, links)
}

// Run keeps the OCSP responses fresh until ctx is done, then returns nil. It
// fetches at once, then at the interval of the global configuration (at least
// 60 s), 60 s after a round that failed, and soon after a certificate was added
// to the token.
func (s *Signer) Run(ctx context.Context) error {
	var due time.Time
	for {
		started := s.now()
		var err error
		if started.Before(due) {
			err = s.fetchNew(ctx)
		} else if err = s.Refresh(ctx); errors.Is(err, ErrNoView) {
			err = nil // it will come; look again at the next scan
		} else {
			due = started.Add(s.pause(err))
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			s.log.Warn("OCSP responses could not be fetched; without fresh ones messages are refused", zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(scanInterval):
		}
	}
}

// pause returns how long to wait after a round.
func (s *Signer) pause(err error) time.Duration {
	if err != nil {
		return minInterval
	}
	if s.interval > 0 {
		return max(s.interval, scanInterval)
	}
	view := s.view()
	interval := view.OCSPFetchInterval()
	// Responses must not go stale between two rounds.
	return max(min(interval, view.OCSPPolicy().Freshness/2), minInterval)
}

// prune forgets what belongs to no certificate of the token, nor to an
// intermediate above one.
func (s *Signer) prune() {
	held := map[pki.CertHash]bool{}
	for _, key := range s.token.Keys() {
		for _, tc := range key.Certificates() {
			held[pki.HashOf(tc.Cert)] = true
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	gone := func(hash pki.CertHash) bool {
		_, own := s.own[hash]
		return !own && !held[hash]
	}
	for hash := range s.responses {
		if gone(hash) {
			delete(s.responses, hash)
			s.remove(hash)
		}
	}
	for hash := range s.failures {
		if gone(hash) {
			delete(s.failures, hash)
		}
	}
}

// load reads the responses on disk. They are judged when they are used.
func (s *Signer) load() error {
	if s.dir == "" {
		return nil
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), suffix)
		hash, err := pki.ParseCertHash(name)
		if !ok || err != nil {
			continue
		}
		der, err := readBounded(filepath.Join(s.dir, e.Name()))
		if err != nil {
			return err
		}
		s.responses[hash] = &response{der: der}
	}
	return nil
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxResponse))
}

// save keeps a response on disk, whole or not at all.
func (s *Signer) save(hash pki.CertHash, der []byte) error {
	if s.dir == "" {
		return nil
	}
	f, err := os.CreateTemp(s.dir, ".ocsp-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(der)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), s.file(hash))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(s.dir)
}

func (s *Signer) file(hash pki.CertHash) string { return filepath.Join(s.dir, hash.Hex()+suffix) }

func (s *Signer) remove(hash pki.CertHash) {
	if s.dir == "" {
		return
	}
	if err := os.Remove(s.file(hash)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("OCSP response not removed from disk", zap.String("certificate", hash.Hex()), zap.Error(err))
	}
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
