// SPDX-License-Identifier: Apache-2.0

package profile_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"os"
	"path/filepath"
	"runtime/pprof"
	"testing"
	"time"

	"kontor/integration/bench/profile"
)

// What a program that signs and verifies spends on either is told apart.
func TestByStage(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cpu.pprof")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("message"))
	for began := time.Now(); time.Since(began) < 500*time.Millisecond; {
		sig, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
		if err != nil || !ecdsa.VerifyASN1(&key.PublicKey, digest[:], sig) {
			t.Fatal(err)
		}
	}
	pprof.StopCPUProfile()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	sums, err := profile.ByStage(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	if sums[profile.Sign] == 0 || sums[profile.Verify] == 0 || sums[profile.Hash]+sums[profile.TLS]+sums[profile.Log] != 0 {
		t.Errorf("%v", sums)
	}
}

func TestStageOf(t *testing.T) {
	for want, stack := range map[string][]string{
		profile.TLS:     {"crypto/internal/fips140/aes/gcm.gcmAesDec", "crypto/tls.(*halfConn).decrypt", "crypto/tls.(*Conn).Read", "net/http.(*conn).serve"},
		profile.Network: {"internal/runtime/syscall.Syscall6", "syscall.write", "internal/poll.(*FD).Write", "net.(*netFD).Write", "crypto/tls.(*Conn).write"},
		profile.Hash:    {"crypto/internal/fips140/sha512.blockAVX2", "crypto/sha512.(*digest).Write", "kontor/gateway/message.(*Body).Write"},
		profile.Verify:  {"crypto/internal/fips140/sha256.block", "crypto/ecdsa.VerifyASN1", "kontor/pki/xades.Verify"},
		profile.Log:     {"syscall.Fdatasync", "github.com/cockroachdb/pebble/v2/record.(*LogWriter).flushLoop"},
		profile.Runtime: {"runtime.futex", "runtime.findRunnable", "runtime.schedule"},
		profile.XML:     {"runtime.mallocgc", "kontor/pki/xades.parse", "kontor/gateway.(*Gateway).verify"},
		profile.HTTP:    {"runtime.memmove", "bufio.(*Reader).Read", "net/http.(*conn).serve"},
		profile.Other:   {"os.Getpid", "main.main"},
	} {
		if got := profile.StageOf(stack); got != want {
			t.Errorf("%q is %s, want %s", stack, got, want)
		}
	}
}
