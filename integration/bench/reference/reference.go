// SPDX-License-Identifier: Apache-2.0

// Package reference runs the chains that Kontor is compared with: two reverse
// proxies with mutual TLS between them, certificates verified both ways,
// connections kept, nothing logged. They sign nothing and keep nothing.
package reference

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"kontor/integration/bench/process"
)

// Config says where a chain is.
type Config struct {
	Dir     string    // folder of its own
	IP      [2]string // of the proxy in front and the one behind it
	Backend string    // host:port
	NetNS   [2]string
	Env     []string
}

// Chain is a chain that runs.
type Chain struct {
	Name  string
	Addr  string // host:port that clients ask, by HTTP/1.1
	Procs [2]*process.Process
}

// Stop ends both proxies.
func (c *Chain) Stop() error {
	var failed []error
	for _, p := range c.Procs {
		if p != nil {
			failed = append(failed, p.Stop())
		}
	}
	return errors.Join(failed...)
}

// serverName is what the certificate of the proxy behind is for.
const serverName = "behind.bench"

// start writes the files of both sides, starts the proxies and waits for the
// first answer. The chain is stopped after an error.
func start(ctx context.Context, name string, c Config, files map[string]string, args [2][]string, env ...string) (*Chain, error) {
	chain := &Chain{Name: name, Addr: c.IP[0] + ":8080"}
	if c.NetNS[0] == "" {
		if err := process.Free(chain.Addr, c.IP[1]+":8443"); err != nil {
			return nil, err
		}
	}
	for file, text := range files {
		if err := os.WriteFile(filepath.Join(c.Dir, file), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	for i, side := range []string{"front", "behind"} {
		var err error
		chain.Procs[i], err = process.Start(process.Spec{Name: name + " " + side, Args: args[i], NetNS: c.NetNS[i], Env: append(env, c.Env...),
			Log: filepath.Join(c.Dir, side+".log")})
		if err != nil {
			return nil, errors.Join(err, chain.Stop())
		}
	}
	if err := chain.wait(ctx); err != nil {
		return nil, errors.Join(err, chain.Stop())
	}
	return chain, nil
}

func (c *Chain) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	last := errors.New("no answer")
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.Addr+"/rest/bytes/1", nil)
		if err != nil {
			return err
		}
		if resp, err := client.Do(req); err == nil {
			b, _ := io.ReadAll(io.LimitReader(resp.Body, 4096)) // only to help
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			last = fmt.Errorf("%s: %s", resp.Status, b)
		}
		for _, p := range c.Procs {
			if err := p.Err(); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer at %s: %w; its logs are beside %s", c.Name, c.Addr, last, c.Procs[0].Log)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// writeCertificates makes an authority and a certificate for each side:
// ca.pem, front.pem, front.key, behind.pem, behind.key.
func writeCertificates(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	write := func(file, kind string, der []byte) error {
		return os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
	}
	now := time.Now()
	template := func(n int64, name string) *x509.Certificate {
		return &x509.Certificate{SerialNumber: big.NewInt(n), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour)}
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	ca := template(1, "Bench reference CA")
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage = true, true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return err
	}
	if err := write("ca.pem", "CERTIFICATE", der); err != nil {
		return err
	}
	for i, side := range []string{"front", "behind"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		c := template(int64(2+i), side+".bench")
		c.DNSNames, c.KeyUsage = []string{side + ".bench"}, x509.KeyUsageDigitalSignature
		c.ExtKeyUsage = []x509.ExtKeyUsage{[]x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}[i]}
		if der, err = x509.CreateCertificate(rand.Reader, c, ca, key.Public(), caKey); err != nil {
			return err
		}
		if err := write(side+".pem", "CERTIFICATE", der); err != nil {
			return err
		}
		if der, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
			return err
		}
		if err := write(side+".key", "PRIVATE KEY", der); err != nil {
			return err
		}
	}
	return nil
}
