// SPDX-License-Identifier: Apache-2.0

package ocsp

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// fetchTimeout bounds one responder's answer, so that a silent one leaves time
// for the next.
const fetchTimeout = 20 * time.Second

// ClientConfig configures a Client. The zero value is useful.
type ClientConfig struct {
	HTTP *http.Client     // nil: the default transport; redirects are never followed
	Now  func() time.Time // nil: time.Now
}

// Client fetches OCSP responses. It is safe for concurrent use.
type Client struct {
	http *http.Client
	now  func() time.Time
}

// NewClient makes a client.
func NewClient(c ClientConfig) *Client {
	h := http.Client{}
	if c.HTTP != nil {
		h = *c.HTTP
	}
	h.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Client{http: &h, now: c.Now}
}

// Fetch asks the responders at urls, in that order, about leaf and returns the
// first answer that is about it, in DER. The answer is not verified: it may be
// forged, and it may say that the certificate is revoked. If there is none, the
// error is ErrUnavailable and names what each responder did.
func (c *Client) Fetch(ctx context.Context, leaf, issuer *x509.Certificate, urls []string) ([]byte, error) {
	if len(urls) == 0 {
		return nil, fmt.Errorf("%w: none is known for %q", ErrUnavailable, issuer.Subject)
	}
	request, err := NewRequest(leaf, issuer)
	if err != nil {
		return nil, err
	}
	var failures []error
	for _, u := range urls {
		der, err := c.fetch(ctx, u, request)
		if err == nil {
			err = c.plausible(der, leaf, issuer)
		}
		if err == nil {
			return der, nil
		}
		failures = append(failures, fmt.Errorf("%s: %w", u, err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("%w: %w", ErrUnavailable, errors.Join(failures...))
}

// plausible checks what can be checked without knowing whom to trust.
func (c *Client) plausible(der []byte, leaf, issuer *x509.Certificate) error {
	b, err := parseBasic(der)
	if err != nil {
		return err
	}
	if err := b.concerns(leaf, issuer); err != nil {
		return err
	}
	return checkAhead(b.thisUpdate, c.now())
}

func (c *Client) fetch(ctx context.Context, url string, request []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(request))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", contentTypeRequest)
	req.Header.Set("Accept", contentTypeResponse)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("HTTP status %s", resp.Status)
	}
	der, err := io.ReadAll(io.LimitReader(resp.Body, maxResponse+1))
	if err != nil {
		return nil, err
	}
	return der, nil
}

// NewRequest makes the DER of an unsigned OCSPRequest about leaf, without nonce.
func NewRequest(leaf, issuer *x509.Certificate) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { // OCSPRequest
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { // TBSRequest
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { // requestList
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { // Request
					addCertID(b, leaf, issuer)
				})
			})
		})
	})
	der, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("OCSP request: %w", err)
	}
	return der, nil
}
