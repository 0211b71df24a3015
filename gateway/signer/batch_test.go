// SPDX-License-Identifier: Apache-2.0

package signer_test

import (
	"crypto/sha512"
	"fmt"
	"sync"
	"testing"

	"kontor/gateway/signer"
	"kontor/pki/asic"
)

// Messages that wait for the same key share a signature; each of them can be
// verified alone, and none proves another.
func TestBatching(t *testing.T) {
	t.Parallel()
	const messages = 200
	for _, tt := range []struct {
		batching  signer.Batching
		wantFewer bool
	}{{signer.Auto, true}, {signer.Always, true}, {signer.Never, false}} {
		t.Run(string(tt.batching), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.signing(0)
			s := w.signer(func(c *signer.Config) { c.Batching = tt.batching })
			if _, err := s.Sign(t.Context(), w.view.Load(), w.member, message, nil); err != nil {
				t.Fatal(err) // and the OCSP response is there
			}
			evidence := make([]*asic.Evidence, messages)
			start := make(chan struct{})
			var wg sync.WaitGroup
			for i := range messages {
				wg.Go(func() {
					<-start
					digest := sha512.Sum512(fmt.Append(nil, i))
					var attachments []asic.Digest
					for range i % 3 {
						attachments = append(attachments, sha512.Sum512(fmt.Append(nil, "attachment", i)))
					}
					e, err := s.Sign(t.Context(), w.view.Load(), w.member, digest, attachments)
					if err != nil {
						t.Error(err)
						return
					}
					evidence[i] = e
				})
			}
			close(start)
			wg.Wait()
			signatures := map[string]int{}
			for i, e := range evidence {
				if e == nil {
					continue
				}
				signatures[string(e.Signature)]++
				if _, err := w.verify(e); err != nil {
					t.Errorf("message %d: %v", i, err)
				}
				other := *e
				other.Message = sha512.Sum512(fmt.Append(nil, i+1))
				if _, err := w.verify(&other); err == nil {
					t.Errorf("the evidence of message %d holds for another one", i)
				}
			}
			made, signed := s.Counts()
			if made != uint64(len(signatures))+1 || signed != messages+1 { // and the first message
				t.Errorf("counted %d signatures of %d messages", made, signed)
			}
			if fewer := len(signatures) < messages; fewer != tt.wantFewer {
				t.Errorf("%d messages have %d signatures", messages, len(signatures))
			}
		})
	}
}

// Nothing waits for nothing: a lone message is signed in the plain form.
func TestLoneMessageIsPlain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.signing(0)
	s := w.signer()
	for range 10 {
		e, err := s.Sign(t.Context(), w.view.Load(), w.member, message, nil)
		if err != nil {
			t.Fatal(err)
		}
		if e.Chain != nil {
			t.Fatal("a lone message has a hash chain")
		}
	}
}

func TestParseBatching(t *testing.T) {
	if b, err := signer.ParseBatching(""); err != nil || b != signer.Auto {
		t.Error(b, err)
	}
	if _, err := signer.ParseBatching("sometimes"); err == nil {
		t.Error("accepted")
	}
}
