// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"crypto/sha512"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"kontor/pki/asic"
	"kontor/pki/xades"
)

// Batching says when messages share a signature. One signature of X-Road's
// batch form covers the root of a hash tree over all of them; each message
// carries its own path to the root and can be verified alone.
type Batching string

// The ways of batching.
const (
	// Auto signs together what waits for the same key: nothing waits for nothing,
	// so a lone message is signed alone and at once. In a crowd a signature waits
	// a moment for more to join.
	Auto Batching = "auto"
	// Never gives every message its own signature, made in parallel.
	Never Batching = "never"
	// Always waits a moment for company before it signs, for keys that are slow
	// or have a price per use.
	Always Batching = "always"
)

// ParseBatching reads a way of batching; empty means Auto.
func ParseBatching(s string) (Batching, error) {
	b := Batching(s)
	switch {
	case s == "":
		return Auto, nil
	case slices.Contains([]Batching{Auto, Never, Always}, b):
		return b, nil
	}
	return "", fmt.Errorf("unknown way of batching %q: use %s, %s or %s", s, Auto, Never, Always)
}

const (
	// maxBatch bounds a hash tree: eight levels, and chains that peers read.
	maxBatch = 256
	// company is how long Always waits.
	company = 2 * time.Millisecond

	// crowd is how many messages share a signature on average from which on Auto
	// takes it that more are about to come. So many come together only where the
	// processors are busy: while one message waits, others are worked on.
	crowd = 4
	// Auto gathers a crowd for gathering times what a signature takes, so that
	// slow keys make few, for at most maxGathering: a fraction of what an
	// exchange takes in a crowd.
	gathering    = 12
	maxGathering = 4 * time.Millisecond
	// Each doubling of a batch costs every message another step of its hash
	// chain, at both ends: more than minEnough, or a signature's time divided by
	// stepCost, are not worth waiting for.
	minEnough = 12
	stepCost  = 12 * time.Microsecond
)

// press makes the signatures of one key. Who finds it idle leads: it signs for
// itself and for all who came meanwhile, then hands the lead to the first of
// those who came while it signed.
type press struct {
	batching Batching
	counts   *counts

	mu      sync.Mutex // guards the fields below
	leading bool
	waiting []*job

	// Of who leads.
	last int           // how many shared the last signature
	mean float64       // of late
	cost time.Duration // of a signature, the least of late
}

// job is one message that waits for its signature.
type job struct {
	evidence *asic.Evidence
	err      error
	woken    chan bool // true: lead; false: signed. Nil for who led at once.
}

// sign fills in the evidence of j, or its error.
func (p *press) sign(c *xades.Credentials, j *job, now func() time.Time) {
	if p.batching == Never {
		p.signTogether(c, []*job{j}, now())
		return
	}
	p.mu.Lock()
	if p.leading {
		j.woken = make(chan bool, 1)
		p.waiting = append(p.waiting, j)
		p.mu.Unlock()
		if lead := <-j.woken; !lead {
			return
		}
	} else {
		p.leading = true
		p.mu.Unlock()
	}

	p.gather()
	p.mu.Lock()
	n := min(len(p.waiting), maxBatch-1)
	batch := append([]*job{j}, p.waiting[:n]...)
	p.waiting = slices.Delete(p.waiting, 0, n)
	p.mu.Unlock()

	start := time.Now()
	p.signTogether(c, batch, now())
	p.learn(len(batch), time.Since(start))
	for _, other := range batch[1:] {
		other.woken <- false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.waiting) == 0 {
		p.leading = false
		return
	}
	next := p.waiting[0]
	p.waiting = slices.Delete(p.waiting, 0, 1)
	next.woken <- true
}

// gather gives others time to join who leads.
func (p *press) gather() {
	if p.batching == Always {
		time.Sleep(company)
		return
	}
	// Others that are ready to run may be about to sign, too: signing keeps the
	// processor busy, so without this nobody ever waits while there is load.
	runtime.Gosched()
	if p.last == 1 || p.mean < crowd {
		return
	}
	p.mu.Lock()
	here := 1 + len(p.waiting)
	p.mu.Unlock()
	if here < max(minEnough, int(p.cost/stepCost)) {
		time.Sleep(min(gathering*p.cost, maxGathering))
	}
}

// learn notes what the last signature took. The least counts, for the rest is
// waiting for a processor; it grows slowly, as the key may have become slower.
func (p *press) learn(messages int, took time.Duration) {
	p.last = messages
	p.mean += (float64(messages) - p.mean) / 8
	if p.cost += p.cost / 64; p.cost == 0 || took < p.cost {
		p.cost = took
	}
}

// counts are what a Signer made since it started.
type counts struct{ signatures, messages atomic.Uint64 }

// Counts returns how many signatures were made since the start, and for how
// many messages.
func (s *Signer) Counts() (signatures, messages uint64) {
	return s.counts.signatures.Load(), s.counts.messages.Load()
}

// signTogether gives the jobs one signature: the plain form for one message
// without attachments, else the hash-chain form.
func (p *press) signTogether(c *xades.Credentials, jobs []*job, at time.Time) {
	first := jobs[0].evidence
	ref := xades.Reference{URI: xades.URIMessage, DigestMethod: xades.DigestSHA512, Digest: first.Message[:]}
	var chains [][]byte
	var result []byte
	var err error
	if len(jobs) > 1 || len(first.Attachments) > 0 {
		messages := make([][]asic.Digest, len(jobs))
		for i, j := range jobs {
			messages[i] = append([]asic.Digest{j.evidence.Message}, j.evidence.Attachments...)
		}
		result, chains, err = asic.BuildChains(messages)
		sum := sha512.Sum512(result)
		ref.URI, ref.Digest = xades.URIChainResult, sum[:]
	}
	var signature []byte
	if err == nil {
		signature, err = xades.Sign(c, ref, at)
		p.counts.signatures.Add(1)
		p.counts.messages.Add(uint64(len(jobs)))
	}
	for i, j := range jobs {
		if err != nil {
			j.err = err
			continue
		}
		j.evidence.Signature = signature
		if chains != nil {
			j.evidence.ChainResult, j.evidence.Chain = result, chains[i]
		}
	}
}
