// SPDX-License-Identifier: Apache-2.0

package signer_test

import (
	"crypto"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kontor/gateway/signer"
	"kontor/pki/asic"
	"kontor/pki/xades"
)

// slowKey takes a time for each signature, and counts them.
type slowKey struct {
	crypto.Signer
	takes time.Duration
	made  int
}

func (k *slowKey) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	time.Sleep(k.takes)
	k.made++ // one at a time
	return k.Signer.Sign(random, digest, opts)
}

// Whoever is alone waits for nothing but the key. In a crowd a signature
// gathers more messages, the longer the slower the key is, but never long.
func TestGathering(t *testing.T) {
	t.Parallel()
	const clients, rounds, pause = 64, 20, 10 * time.Millisecond
	root := newAuthority(t, "Test CA", nil)
	for _, tt := range []struct{ takes, mayWait time.Duration }{
		{0, 0},
		{30 * time.Microsecond, 960 * time.Microsecond},
		{time.Millisecond, 4 * time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			key := &slowKey{Signer: root.key, takes: tt.takes}
			sign := signer.NewPress(signer.Auto, &xades.Credentials{Key: key, Cert: root.cert, OCSP: [][]byte{{1}}})
			took := func() time.Duration {
				start := time.Now()
				if _, err := sign(asic.Digest{}); err != nil {
					t.Error(err)
				}
				return time.Since(start)
			}
			alone := func() {
				t.Helper()
				for range 3 {
					if d := took(); d != tt.takes {
						t.Errorf("key of %s: alone, a message took %s", tt.takes, d)
					}
				}
			}
			alone()

			key.made = 0
			var wg sync.WaitGroup
			for i := range clients {
				wg.Go(func() {
					time.Sleep(time.Duration(i) * pause / clients) // they come one by one
					for range rounds {
						// Behind one signature, until it is complete, and in its own.
						if d, most := took(), 2*(tt.mayWait+tt.takes); d > most {
							t.Errorf("key of %s: a message took %s, more than %s", tt.takes, d, most)
						}
						time.Sleep(pause)
					}
				})
			}
			wg.Wait()
			t.Logf("key of %s: %.1f messages for a signature", tt.takes, float64(clients*rounds)/float64(key.made))
			if tt.takes >= time.Millisecond && key.made > clients*rounds/16 {
				t.Errorf("key of %s: %d signatures of %d messages", tt.takes, key.made, clients*rounds)
			}

			took() // the last of the crowd's
			alone()
		})
	}
}
