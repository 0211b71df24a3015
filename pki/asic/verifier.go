// SPDX-License-Identifier: Apache-2.0

package asic

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/maphash"
	"reflect"
	"sync"
	"time"

	"kontor/pki"
	"kontor/pki/ocsp"
	"kontor/pki/xades"
	"kontor/registry/id"
)

// Bounds on what a Verifier remembers.
const (
	ocspVerdictLife = 60 * time.Second // as X-Road's own servers

	maxTrusts    = 2 // the current global configuration and the one it replaced
	maxChains    = 4096
	maxOCSP      = 4096
	maxDocuments = 256

	maxPooledValues = 128 // of a chain: hostile ones are not worth their memory
)

// Verifier checks the signatures of messages. It remembers what costs most:
// the chain of each signing certificate, the verdict on each OCSP response,
// and, for signatures that cover several messages, the signature itself. It
// is safe for concurrent use.
type Verifier struct {
	now       func() time.Time
	parser    *xades.Parser
	seed      maphash.Seed
	documents cache[documentKey, *document]
	chains    sync.Pool // of *hashChain, to read into

	mu     sync.Mutex
	trusts []*trustCache // most recent first
}

// NewVerifier returns a Verifier. now tells the time by which remembered OCSP
// verdicts age; nil means [time.Now].
func NewVerifier(now func() time.Time) *Verifier {
	if now == nil {
		now = time.Now
	}
	return &Verifier{now: now, parser: xades.NewParser(), seed: maphash.MakeSeed(), documents: newCache[documentKey, *document](maxDocuments)}
}

// documentKey finds a signature document and its chain result. Others may have
// the same key: the bytes decide.
type documentKey uint64

// document is a signature and, for the chain form, the result it was found to
// refer to. It never changes. Those remembered are right.
type document struct {
	raw, rawResult []byte // what it was read from
	signature      *xades.Signature
	result         *chainResult
}

// documentKey hashes the chain result alone: it is short, and differs between
// the documents of honest signers.
func (v *Verifier) documentKey(e *Evidence) documentKey {
	return documentKey(maphash.Bytes(v.seed, e.ChainResult))
}

func (d *document) isOf(e *Evidence) bool {
	return bytes.Equal(d.raw, e.Signature) && bytes.Equal(d.rawResult, e.ChainResult)
}

// Signature checks that e is signed by signer, at the instant at, as the
// X-Road signature profile demands and beyond it: every part must be covered
// in the plain form too. It stops at the first error.
func (v *Verifier) Signature(e *Evidence, signer id.Client, trust Trust, at time.Time) (*Verdict, error) {
	doc, verified, err := v.document(e)
	if err != nil {
		return nil, err
	}
	sig := doc.signature

	// 1. Every part is covered.
	if doc.result != nil {
		err = v.verifyChained(e, doc.result)
	} else {
		err = verifyPlain(e, sig)
	}
	if err != nil {
		return nil, err
	}

	// 2. The certificate is the signer's.
	cert := sig.Certificate()
	if !pki.IsSignCert(cert) {
		return nil, fmt.Errorf("%w: its key usage is not nonRepudiation", ErrSigner)
	}
	tc := v.trust(trust)
	chain, chainErr := tc.chain(sig, signer.Instance(), trust, at)
	if chainErr == nil {
		if chain.memberErr != nil {
			return nil, fmt.Errorf("%w: %w", ErrSigner, chain.memberErr)
		}
		if chain.member != signer.Member() {
			return nil, fmt.Errorf("%w: it names %s, not %s", ErrSigner, chain.member, signer.Member())
		}
	}

	// 3. The signature is right. That of a remembered document is.
	if !verified {
		if err := sig.Verify(); err != nil {
			return nil, err
		}
		// Only the chain of a batch holds the values of neighbours, to whose
		// messages the document will come again.
		if bytes.Contains(e.Chain, []byte("HashValue")) {
			v.documents.put(v.documentKey(e), doc)
		}
	}

	// 4. The certificate was good.
	if chainErr != nil {
		return nil, chainErr
	}
	resp, err := tc.status(chain, sig, trust, at, v.now())
	if err != nil {
		return nil, err
	}
	return &Verdict{Signature: sig, Member: chain.member, Authority: chain.Anchor, Chain: chain.Chain, OCSP: resp}, nil
}

// document parses the signature, or finds it among those verified moments ago
// for another message of the same batch.
func (v *Verifier) document(e *Evidence) (d *document, verified bool, err error) {
	if e.ChainResult == nil && e.Chain != nil {
		return nil, false, fmt.Errorf("%w: a chain without a result", ErrMalformedHashChain)
	}
	if e.ChainResult != nil {
		if d, ok := v.documents.get(v.documentKey(e)); ok && d.isOf(e) {
			return d, true, nil
		}
	}
	sig, err := v.parser.Parse(e.Signature)
	if err != nil {
		return nil, false, err
	}
	d = &document{raw: e.Signature, rawResult: e.ChainResult, signature: sig}
	if e.ChainResult != nil {
		if d.result, err = readResult(e.ChainResult); err != nil {
			return nil, false, err
		}
		if err := refersToResult(sig, e.ChainResult); err != nil {
			return nil, false, err
		}
	}
	return d, false, nil
}

// refersToResult checks that sig covers the chain result and nothing else.
func refersToResult(sig *xades.Signature, result []byte) error {
	refs := sig.References()
	if len(refs) != 1 || refs[0].URI != xades.URIChainResult {
		return fmt.Errorf("%w: it does not refer to the hash chain result alone", ErrCoverage)
	}
	return checkReference(refs[0], result)
}

// checkReference compares a reference with the bytes it names.
func checkReference(ref xades.Reference, data []byte) error {
	a, ok := algorithmByURI(ref.DigestMethod)
	if !ok {
		return fmt.Errorf("%w: digest algorithm %.80q", xades.ErrUnsupported, ref.DigestMethod)
	}
	var d Digest
	if n := a.sum(data, &d); !bytes.Equal(d[:n], ref.Digest) {
		return fmt.Errorf("%w: %s", xades.ErrReference, ref.URI)
	}
	return nil
}

func (v *Verifier) verifyChained(e *Evidence, result *chainResult) error {
	chain, ok := v.chains.Get().(*hashChain)
	if !ok {
		chain = new(hashChain)
	}
	defer func() {
		if cap(chain.values) <= maxPooledValues {
			v.chains.Put(chain)
		}
	}()
	if err := readChain(e.Chain, chain); err != nil {
		return err
	}
	return chain.verify(result, nameSigChain, chainParts{n: 1 + len(e.Attachments), find: e.part, name: e.partURI})
}

// verifyPlain checks that the references of sig are the parts of e, each once.
func verifyPlain(e *Evidence, sig *xades.Signature) error {
	refs := sig.References()
	seen := make([]bool, 1+len(e.Attachments))
	for _, ref := range refs {
		i, d := e.part([]byte(ref.URI))
		if i < 0 {
			return fmt.Errorf("%w: there is no part %.80q", xades.ErrReference, ref.URI)
		}
		if ref.DigestMethod != xades.DigestSHA512 {
			return fmt.Errorf("%w: digest algorithm %.80q", xades.ErrUnsupported, ref.DigestMethod)
		}
		if !bytes.Equal(ref.Digest, d[:]) {
			return fmt.Errorf("%w: digest of %s", xades.ErrReference, ref.URI)
		}
		if seen[i] {
			return fmt.Errorf("%w: %s is referenced twice", xades.ErrReference, ref.URI)
		}
		seen[i] = true
	}
	for i, ok := range seen {
		if !ok {
			return fmt.Errorf("%w: %s", ErrCoverage, e.partURI(i))
		}
	}
	return nil
}

// trust returns what is remembered for a Trust value.
func (v *Verifier) trust(t Trust) *trustCache {
	if !reflect.ValueOf(t).Comparable() {
		return newTrustCache(t) // it could not be found again
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for i, tc := range v.trusts {
		if tc.trust == t {
			if i > 0 {
				copy(v.trusts[1:i+1], v.trusts[:i])
				v.trusts[0] = tc
			}
			return tc
		}
	}
	if len(v.trusts) == maxTrusts {
		v.trusts = v.trusts[:maxTrusts-1]
	}
	tc := newTrustCache(t)
	v.trusts = append([]*trustCache{tc}, v.trusts...)
	return tc
}

// trustCache holds verdicts that follow from one Trust value.
type trustCache struct {
	trust  Trust
	chains cache[chainKey, *chainVerdict]
	ocsp   cache[ocspKey, ocspVerdict]
}

func newTrustCache(t Trust) *trustCache {
	return &trustCache{t, newCache[chainKey, *chainVerdict](maxChains), newCache[ocspKey, ocspVerdict](maxOCSP)}
}

type chainKey struct {
	cert     pki.CertHash
	instance string
}

// chainVerdict is a chain found good, for any instant within its validity.
type chainVerdict struct {
	*pki.Chain
	keys                []ocspKey // of Certs, without the response
	notBefore, notAfter time.Time
	member              id.Member
	memberErr           error
}

// chain finds and checks the path from the certificate of sig to an authority
// of the signer's instance.
func (tc *trustCache) chain(sig *xades.Signature, instance string, trust Trust, at time.Time) (*chainVerdict, error) {
	key := chainKey{sig.CertificateHash(), instance}
	if c, ok := tc.chains.get(key); ok && !at.Before(c.notBefore) && !at.After(c.notAfter) {
		return c, nil
	}
	chain, err := pki.VerifyChain(sig.Certificate(), sig.Extras(), instanceTrust{trust, instance}, at)
	if err != nil {
		return nil, err
	}
	c := newChainVerdict(chain)
	tc.chains.put(key, c)
	return c, nil
}

func newChainVerdict(chain *pki.Chain) *chainVerdict {
	leaf := chain.Certs[0]
	c := &chainVerdict{Chain: chain, notBefore: leaf.NotBefore, notAfter: leaf.NotAfter}
	for i, cert := range chain.Certs {
		c.keys = append(c.keys, ocspKey{cert: pki.HashOf(cert), issuer: pki.HashOf(chain.Issuers[i]), instance: chain.Anchor.Instance})
		if cert.NotBefore.After(c.notBefore) {
			c.notBefore = cert.NotBefore
		}
		if cert.NotAfter.Before(c.notAfter) {
			c.notAfter = cert.NotAfter
		}
	}
	switch a := chain.Anchor; {
	case a.Profile == nil:
		c.memberErr = fmt.Errorf("authority %q has no known certificate profile", a.Name)
	case a.AuthenticationOnly:
		c.memberErr = fmt.Errorf("authority %q issues authentication certificates only", a.Name)
	default:
		c.member, c.memberErr = a.Profile.Member(leaf, a.Instance)
	}
	return c
}

// instanceTrust narrows a Trust to the authorities of one instance: nobody
// else may vouch for its members.
type instanceTrust struct {
	pki.Trust
	instance string
}

func (t instanceTrust) Authorities(rawSubject []byte) []*pki.Authority {
	all := t.Trust.Authorities(rawSubject)
	for i, a := range all {
		if a.Instance != t.instance {
			own := append([]*pki.Authority(nil), all[:i]...)
			for _, a := range all[i+1:] {
				if a.Instance == t.instance {
					own = append(own, a)
				}
			}
			return own
		}
	}
	return all
}

type ocspKey struct {
	response [sha256.Size]byte
	cert     pki.CertHash
	issuer   pki.CertHash
	instance string // whose responders count
}

type ocspVerdict struct {
	response *ocsp.Response
	at       time.Time // the instant it was judged for
	checked  time.Time // when
}

// holds reports whether the verdict can be used for the instant at: it is
// recent, and the response is still fresh then.
func (o ocspVerdict) holds(p ocsp.Policy, at, now time.Time) bool {
	if age := now.Sub(o.checked); age < 0 || age > ocspVerdictLife {
		return false
	}
	if at.Sub(o.at).Abs() > ocspVerdictLife {
		return false
	}
	freshness := p.Freshness
	if freshness <= 0 {
		freshness = ocsp.DefaultFreshness
	}
	r := o.response
	return !r.ThisUpdate.Before(at.Add(-freshness)) &&
		(!at.Before(o.at) || !r.ThisUpdate.After(at)) &&
		(p.IgnoreNextUpdate || r.NextUpdate.IsZero() || !r.NextUpdate.Before(at))
}

// status demands a good OCSP response for every certificate of the chain and
// returns that of the first.
func (tc *trustCache) status(c *chainVerdict, sig *xades.Signature, trust Trust, at, now time.Time) (*ocsp.Response, error) {
	var first *ocsp.Response
	for i := range c.Certs {
		r, err := tc.statusOf(c, i, sig, trust, at, now)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			first = r
		}
	}
	return first, nil
}

func (tc *trustCache) statusOf(c *chainVerdict, i int, sig *xades.Signature, trust Trust, at, now time.Time) (*ocsp.Response, error) {
	policy := trust.OCSPPolicy()
	key := c.keys[i]
	cert, issuer := c.Certs[i], c.Issuers[i]
	hashes := sig.OCSPHashes()
	for j, der := range sig.OCSPResponses() {
		key.response = hashes[j]
		if v, ok := tc.ocsp.get(key); ok && v.holds(policy, at, now) {
			return v.response, nil
		}
		r, err := ocsp.Verify(der, cert, issuer, trust.OCSPResponders(key.instance, issuer), at, policy)
		if errors.Is(err, ocsp.ErrMismatch) {
			continue // about another certificate
		}
		if err != nil {
			return nil, err
		}
		tc.ocsp.put(key, ocspVerdict{r, at, now})
		return r, nil
	}
	return nil, fmt.Errorf("%w: the signature holds none for %q", ocsp.ErrUnavailable, cert.Subject)
}

// cache is a bounded map, safe for concurrent use. It holds two generations:
// when the young one is full, the old one is dropped, so what is in use stays.
type cache[K comparable, V any] struct {
	mu         *sync.Mutex
	limit      int // of one generation
	young, old map[K]V
}

func newCache[K comparable, V any](limit int) cache[K, V] {
	return cache[K, V]{mu: new(sync.Mutex), limit: limit / 2, young: make(map[K]V)}
}

func (c *cache[K, V]) get(k K) (V, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v, ok := c.young[k]; ok {
		return v, true
	}
	v, ok := c.old[k]
	if ok {
		c.add(k, v)
	}
	return v, ok
}

func (c *cache[K, V]) put(k K, v V) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.add(k, v)
}

func (c *cache[K, V]) add(k K, v V) {
	if len(c.young) >= c.limit {
		c.old, c.young = c.young, make(map[K]V)
	}
	c.young[k] = v
}
